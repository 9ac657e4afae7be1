"""Recordings to text for people: the command line, the queue behind the pages, corrections.

Imports `errors`, `paths`, `whisper`, `storage`, `runtime`, `audio`, `sources`, `features`, `model`,
`decoding`, `runs`.
"""
