"""What decides the weights of a training, and nothing else: a change here trains every model anew.

Imports `errors`, `whisper`, `storage`, `runtime`, `params`, `features`, `model`, `wer`, `metrics`.
"""
