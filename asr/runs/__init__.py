"""Trainings: their states, reports and revisions, their index; compare and keep them.

Imports `errors`, `paths`, `storage`, `runtime`, `params`, `wer`, `metrics`, `tracking`,
`evaluation`.
"""
