"""Recordings to text for people: the command line, the queue behind the pages, subtitles, corrections.

Imports `errors`, `whisper`, `storage`, `runtime`, `audio`, `sources`, `features`, `model`, `runs`.
"""
