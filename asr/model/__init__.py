"""A Whisper: built, loaded and saved, prompted, decoded greedily, made ready for training.

Imports `errors`, `paths`, `whisper`, `params`, `features`.
"""
