"""The code that decides the weights; a change here makes every model train anew.

Imports `errors`, `whisper`, `storage`, `runtime`, `params`, `stats`, `features`, `windows`,
`model`, `wer`, `metrics`.
"""
