"""Finished work, read back: reports, revisions, the index of runs; kept and compared.

Imports `errors`, `paths`, `storage`, `runtime`, `wer`, `metrics`, `tracking`, `evaluation`.
"""
