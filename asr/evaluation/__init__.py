"""The table of utterances that `evaluate` writes, its scores, slices and report.

Imports `errors`, `rooms`, `storage`, `runtime`, `params`, `features`, `model`, `engines`,
`decoding`, `markdown`, `stats`, `wer`.
"""
