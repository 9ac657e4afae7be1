"""Whisper models: build, load, save, prompt, decode greedily, and prepare them for training.

Imports `errors`, `paths`, `whisper`, `params`, `features`, `windows`, `stopping`.
"""
