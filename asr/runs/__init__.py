"""Finished trainings: read their reports and revisions, index, compare and keep them.

Imports `errors`, `paths`, `dvc_hashes`, `storage`, `runtime`, `wer`, `metrics`, `tracking`,
`evaluation`.
"""
