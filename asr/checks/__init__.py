"""Checks of a training from outside; their results are reports/train/checks.json.

Imports `whisper`, `params`, `features`, `model`, `wer`, `training`.
"""
