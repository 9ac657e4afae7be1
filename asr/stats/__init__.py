"""Statistics of a corpus's recordings, and the window to choose for them.

Imports `whisper`, `storage`, `markdown`, `audio`, `cleaning`.
"""
