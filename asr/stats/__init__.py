"""What the recordings of a corpus are like, and which window to take for them.

Imports `whisper`, `storage`, `markdown`, `audio`, `cleaning`.
"""
