"""What transcription needs beyond the greedy decoding of `model`.

It stands apart because a change in `model` makes every model train anew. Imports `errors`,
`whisper`, `features`, `model`.
"""
