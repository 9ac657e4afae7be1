"""The table of utterances that `evaluate` writes, and what people read of it.

Imports `errors`, `storage`, `markdown`, `wer`.
"""
