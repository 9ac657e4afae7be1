"""Trainings: their states, reports and revisions, their index; compare and keep them.

Imports `errors`, `paths`, `dvc_hashes`, `storage`, `runtime`, `params`, `wer`, `metrics`,
`tracking`, `evaluation`.
"""
