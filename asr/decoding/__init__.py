"""What transcription decodes besides the greedy decoding of `model`, which validation shares: a
change here renames no training.

Imports `errors`, `whisper`, `features`, `model`.
"""
