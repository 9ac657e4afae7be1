"""Read and check params.yaml, which holds every number that the user may choose.

This code changes no output by itself; a value does, through the stage that reads it.

Imports `errors`, `paths`, `whisper`.
"""
