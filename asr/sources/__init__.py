"""Where a corpus comes from, and which of its rows are taken: one small module for each source.

Imports `errors`, `paths`, `whisper`, `storage`, `runtime`, `params`, `audio`.
"""
