"""Finished trainings: read their reports and revisions, index, compare and keep them.

Imports `errors`, `paths`, `storage`, `runtime`, `wer`, `metrics`, `tracking`, `evaluation`.
"""
