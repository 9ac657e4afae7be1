"""Transcribe recordings: the command line, the queue behind the pages, corrected transcripts.

Imports `errors`, `paths`, `whisper`, `storage`, `runtime`, `audio`, `sources`, `features`, `model`,
`decoding`, `runs`.
"""
