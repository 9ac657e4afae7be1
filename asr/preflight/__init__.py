"""What is asked before hours are spent: refusals, forecasts, trials of a few steps.

Changes no byte of an output. Imports `errors`, `paths`, `whisper`, `storage`, `runtime`, `params`,
`features`, `windows`, `stopping`, `model`, `engines`,
`wer`, `training`.
"""
