"""params.yaml, read and checked: every number we choose.

A number changes an output through the stage that reads it, never through this code.

Imports `errors`, `paths`, `whisper`.
"""
