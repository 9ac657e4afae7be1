"""Each recording decoded once and measured, the reasons to leave a row out, and copies across
splits.

Imports `rooms`, `errors`, `whisper`, `storage`, `runtime`, `audio`.
"""
