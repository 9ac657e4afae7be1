"""Find the media type of a recording by its first bytes; nothing is decoded."""

from __future__ import annotations

MAGIC = {
    b"fLaC": "audio/flac",
    b"OggS": "audio/ogg",
    b"ID3": "audio/mpeg",
    b"\x1a\x45\xdf\xa3": "audio/webm",
}
MP4_BRANDS = (b"M4A ", b"M4B ", b"mp4", b"iso", b"dash", b"avc1", b"3gp", b"qt  ")


def media_type(encoded: bytes) -> str | None:
    """Return the media type that a browser needs to play a file; None if no browser plays it."""
    for start, kind in MAGIC.items():
        if encoded.startswith(start):
            return kind
    if encoded[:4] == b"RIFF" and encoded[8:12] == b"WAVE":
        return "audio/wav"
    if encoded[4:8] == b"ftyp" and encoded[8:12].startswith(MP4_BRANDS):
        return "audio/mp4"
    # A frame of MPEG audio begins with eleven bits of 1; it is AAC if both bits of its layer are 0.
    if len(encoded) > 1 and encoded[0] == 0xFF and encoded[1] & 0xE0 == 0xE0:
        return "audio/mpeg" if encoded[1] & 0x06 else "audio/aac"
    return None
