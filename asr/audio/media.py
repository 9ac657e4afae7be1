"""What kind of file a recording is, told by its first bytes; nothing is decoded."""

from __future__ import annotations

MP4_BRANDS = (b"M4A ", b"M4B ", b"mp4", b"iso", b"dash", b"avc1", b"3gp", b"qt  ")


def media_type(sound: bytes) -> str | None:
    """What a browser can be told these bytes are, by how they begin; None for what no browser
    plays. Nothing is decoded.
    """
    for start, kind in (
        (b"fLaC", "audio/flac"),
        (b"OggS", "audio/ogg"),
        (b"ID3", "audio/mpeg"),
        (b"\x1a\x45\xdf\xa3", "audio/webm"),
    ):
        if sound.startswith(start):
            return kind
    if sound[:4] == b"RIFF" and sound[8:12] == b"WAVE":
        return "audio/wav"
    if sound[4:8] == b"ftyp" and sound[8:12].startswith(MP4_BRANDS):
        return "audio/mp4"
    if len(sound) > 1 and sound[0] == 0xFF and sound[1] & 0xE0 == 0xE0:
        return "audio/mpeg" if sound[1] & 0x06 else "audio/aac"
    return None
