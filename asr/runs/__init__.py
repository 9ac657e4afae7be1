"""Finished work, read back: reports, revisions, the index of runs; kept and compared.

Imports `errors`, `storage`, `wer`, `tracking`, `evaluation`.
"""
