"""What transcription needs beyond the greedy decoding of `model`.

It is not part of `model`, because a change there makes every model train anew. Imports `errors`,
`whisper`, `features`, `model`.
"""
