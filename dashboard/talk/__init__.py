"""The page Talk: speak with a language model; the workspace's Whisper transcribes."""
