"""Checks of a training from outside; their results are reports/train/checks.json.

Imports `whisper`, `features`, `windows`, `stopping`, `model`, `wer`, `training`.
"""
