"""The page Transcribe: recordings in, text and subtitles out."""
