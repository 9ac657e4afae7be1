"""Questions to a training, from outside; the answers are its checks.json.

Imports `whisper`, `features`, `model`, `wer`, `training`.
"""
