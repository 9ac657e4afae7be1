"""Encoded recordings to samples: one channel of float32 at 16 kHz.

Imports `errors`, `whisper`, `storage`, `runtime`.
"""
