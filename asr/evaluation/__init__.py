"""The table of utterances that `evaluate` writes, its scores, slices and report.

Imports `errors`, `storage`, `markdown`, `stats`, `wer`.
"""
