"""Transcribe recordings: the command line, the queue behind the pages, what visitors keep.

Imports `errors`, `paths`, `whisper`, `dvc_hashes`, `storage`, `runtime`, `audio`, `sources`,
`model`, `engines`, `decoding`, `evaluation`, `runs`.
"""
