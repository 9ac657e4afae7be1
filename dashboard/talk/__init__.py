"""The page Talk: speak with a language model through a Whisper of ours."""
