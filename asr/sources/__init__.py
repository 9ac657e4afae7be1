"""Where a corpus comes from, and which of its rows are taken: one small module for each source.

Imports `errors`, `whisper`, `storage`, `runtime`, `audio`.
"""
