"""From sound to hypotheses and segments with times, on any engine, without torch.

Imports `errors`, `paths`, `dvc_hashes`, `whisper`, `storage`, `runtime`, `audio`, `speech`,
`features`, `windows`, `stopping`, `model`, `engines`.
"""
