"""Where a sound holds speech, and the pieces of it that a model decodes.

Needs no model of ours, and no torch. Imports `audio`, `runtime`, `whisper`.
"""
