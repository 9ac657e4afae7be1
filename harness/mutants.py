"""Small healthy files of every format we read, and mutants of them, for the harness `fuzz`.

    make harness NAME=fuzz

A mutant is a pure function of format, seed and number, and takes 0.1 ms.
"""

from __future__ import annotations

import gzip
import io
import re
import tarfile
from collections.abc import Callable
from functools import cache

import numpy as np

from support.broken_audio import Draw, fast_start, film
from support.data import encoded, encoded_by_av, voice
from support.repository import SHIPPED


def voices() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """0.4 s at 16,000, 8,000 and 48,000 Hz, and with two channels (S, 2) at 8,000 Hz."""
    low = voice(0.4, 8_000)
    return voice(0.4), low, voice(0.4, 48_000), np.stack([low, low[::-1]], axis=1)


def by_libsndfile(name: str) -> list[bytes]:
    plain, low, high, both = voices()
    samples, rate, kinds = {
        "wav": (both, 8_000, ("PCM_16", "PCM_24", "FLOAT", "PCM_U8", "ULAW")),
        "adpcm": (low, 8_000, ("IMA_ADPCM", "MS_ADPCM", "GSM610", "G721_32", "NMS_ADPCM_16")),
        "flac": (both, 8_000, ("PCM_16", "PCM_24")),
        "ogg": (low, 8_000, (None,)),
        "opus": (plain, 16_000, ("OPUS",)),
        "mp3": (low, 8_000, (None,)),
        "aiff": (low, 8_000, ("PCM_16", "FLOAT", "IMA_ADPCM")),
        "caf": (both, 8_000, ("PCM_16", "ALAC_16", "ULAW")),
    }[name]
    layout = {"adpcm": "WAV", "opus": "OGG"}.get(name, name.upper())
    made = [encoded(samples, rate, layout, kind) for kind in kinds]
    more = {"ogg": (both, 8_000), "mp3": (np.stack([high, high], axis=1), 48_000)}
    return made + ([encoded(*more[name], layout)] if name in more else [])


def by_ffmpeg(name: str) -> list[bytes]:
    plain, _, high, _ = voices()
    kinds = {
        "m4a": [(plain, 16_000, "mp4", "aac"), (high, 48_000, "mov", "alac")],
        "mp4": [(plain, 16_000, "ipod", "aac"), (high, 48_000, "mp4", "libmp3lame")],
        "aac": [(plain, 16_000, "adts", "aac")],
        "webm": [(high, 48_000, "webm", "libopus"), (high, 48_000, "matroska", "pcm_s16le")],
    }[name]
    made = [encoded_by_av(*kind) for kind in kinds]
    if name == "m4a":
        made.insert(1, fast_start(made[0]))
    return [film(), *made] if name == "mp4" else made


TEXTS = {
    "csv": (
        b'file_name,transcription,split\r\na.wav,"one, '
        b'""two""",train\r\nb.wav,\xc3\xa5\xc3\xa4,test\r\n'
    )
    * 3,
    "tsv": b"client_id\tpath\tsentence\tage\n"
    + b'ann\tclip.mp3\tshe said "no\t\nbob\tb.mp3\t\xf0\x9f\x98\x82\ttwenties\n' * 9,
    "jsonl": b'{"file_name": "a.wav", "transcription": "\\u00e5 one", "age": 3.5, "gone": null}\n'
    * 5,
    "srt": (
        b"1\n00:00:01,000 --> 00:00:02,500\n<i>one</i> two\n\n2\n00:00:03,000 --> "
        b"00:00:04,000\nthree\n\n"
    )
    * 3,
    "vtt": b"WEBVTT\n\nNOTE by hand\n\n"
    + b"a\n00:01.000 --> 00:02.500 align:start\n<v Ann>one &amp; two\n\n" * 3,
    "yaml": SHIPPED.read_bytes(),
}
MAKERS: dict[str, Callable[[str], list[bytes]]] = {
    **dict.fromkeys(("wav", "adpcm", "flac", "ogg", "opus", "mp3", "aiff", "caf"), by_libsndfile),
    **dict.fromkeys(("m4a", "mp4", "aac", "webm"), by_ffmpeg),
    **dict.fromkeys(TEXTS, lambda name: [TEXTS[name]]),
    "tar": lambda _: [archive(tarfile.GNU_FORMAT), archive(tarfile.PAX_FORMAT)],
    "gz": lambda _: [gzip.compress(one, mtime=0) for one in healthy("tar")],
}


@cache
def healthy(name: str) -> list[bytes]:
    """A few small files of a format, of which all mutants come."""
    made = MAKERS[name](name) if name in MAKERS else [b"anything"]
    return [unnumbered(one) for one in made]


def unnumbered(content: bytes) -> bytes:
    """The file without what encoders draw at random or take from the clock."""
    if content.startswith(b"OggS"):
        ogg = bytearray(content.replace(content[14:18], b"EAR1"))
        mend_ogg(ogg)
        return bytes(ogg)
    if content.startswith(b"\x1aE\xdf\xa3"):
        for number, length in (
            (b"\x73\xa4\x90", 16),
            (b"\x73\xc5\x88", 8),
            (b"\x63\xc5\x88", 8),
            (b"\xbf\x84", 4),
        ):
            content = re.sub(
                re.escape(number) + b".{%d}" % length,
                number + bytes(length),
                content,
                flags=re.DOTALL,
            )
    return (
        re.sub(b"(PEAK.{8}).{4}", rb"\1EAR1", content, flags=re.DOTALL)
        if content[:4] in (b"RIFF", b"FORM")
        else content
    )


def archive(layout: int) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=layout) as tar:
        for name in ("cv/sv/clips/a.mp3", f"cv/sv/{'long' * 40}/b.mp3", "cv/sv/train.tsv"):
            info = tarfile.TarInfo(name)
            info.size = 300
            tar.addfile(info, io.BytesIO(bytes(range(100)) * 3))
    return file.getvalue()


FIELDS = (
    *(0, 1, 2, 3, 7, 8, 15, 16, 31, 127, 128, 255, 256, 32_767, 32_768, 65_535),
    *(1 << 20, (1 << 31) - 1, 1 << 31, (1 << 32) - 1),
)


def flip(content: bytearray, draw: Draw) -> None:
    for _ in range(int(draw.integers(1, 9))):
        content[draw.integers(len(content))] ^= 1 << int(draw.integers(8))


def overwrite(content: bytearray, draw: Draw) -> None:
    at, length = int(draw.integers(len(content))), int(draw.integers(1, 65))
    content[at : at + length] = draw.bytes(min(length, len(content) - at))


def forge(content: bytearray, draw: Draw) -> None:
    """A number that is none, most often where headers are."""
    width, order = int(draw.choice([1, 2, 4, 4, 8])), "little" if draw.random() < 0.5 else "big"
    at = int(draw.integers(max(1, len(content) if draw.random() < 0.3 else min(len(content), 400))))
    value = int(draw.choice(FIELDS)) % (1 << 8 * width)
    content[at : at + width] = value.to_bytes(width, order)  # type: ignore[arg-type]


def cut(content: bytearray, draw: Draw) -> None:
    del content[int(draw.integers(1, len(content) + 1)) :]


def drop(content: bytearray, draw: Draw) -> None:
    at = int(draw.integers(len(content)))
    del content[at : at + int(draw.integers(1, 300))]


def repeat(content: bytearray, draw: Draw) -> None:
    at, length = int(draw.integers(len(content))), int(draw.integers(1, 500))
    content[at:at] = content[at : at + length] * int(draw.integers(1, 20))


def insert(content: bytearray, draw: Draw) -> None:
    at = int(draw.integers(len(content) + 1))
    content[at:at] = draw.bytes(int(draw.integers(1, 100)))


def splice(content: bytearray, draw: Draw) -> None:
    """The rest of another file."""
    others = [
        one for name in ("wav", "flac", "ogg", "mp3", "m4a", "webm", "csv") for one in healthy(name)
    ]
    other = others[draw.integers(len(others))]
    content[int(draw.integers(len(content) + 1)) :] = other[int(draw.integers(len(other))) :]


def pages(content: bytearray, draw: Draw) -> None:
    """The pages of two Ogg streams, each whole, in an order that no encoder knows."""
    streams = [one for name in ("ogg", "opus") for one in healthy(name)]
    mixed = [
        b"OggS" + page
        for one in (bytes(content), streams[draw.integers(len(streams))])
        for page in one.split(b"OggS")[1:]
    ]
    end = mixed[(at := int(draw.integers(len(mixed) + 1))) :]
    draw.shuffle(end)
    mixed[at:] = end
    if draw.random() < 0.5:
        mixed = sorted(mixed, key=lambda page: page[18:22])
    if mixed and draw.random() < 0.6:
        mixed = [page[:14] + mixed[0][14:18] + page[18:] for page in mixed]
    if draw.random() < 0.5:
        mixed = [
            page[:18] + number.to_bytes(4, "little") + page[22:]
            for number, page in enumerate(mixed)
        ]
    content[:] = b"".join(mixed)


CHANGES = (flip, flip, overwrite, forge, forge, forge, cut, drop, repeat, insert, splice)


def mutant(name: str, seed: int, number: int) -> bytes:
    """A broken file of a format; half of those with checksums get right ones, so that what lies
    behind them is reached.
    """
    draw = np.random.default_rng([seed, number])
    files = healthy("tar" if name == "gz" else name)
    content = bytearray(files[draw.integers(len(files))])
    if name in ("ogg", "opus") and draw.random() < 0.3:
        pages(content, draw)
    for _ in range(int(draw.integers(1, 4))):
        if content:
            CHANGES[draw.integers(len(CHANGES))](content, draw)
    mended = draw.random() < 0.5
    if mended and name in ("ogg", "opus"):
        mend_ogg(content)
    elif mended and name in ("tar", "gz"):
        mend_tar(content)
    if name != "gz":
        return bytes(content)
    packed = bytearray(gzip.compress(bytes(content), 1, mtime=0))
    if not mended:
        CHANGES[draw.integers(len(CHANGES))](packed, draw)
    return bytes(packed)


OGG_TABLE = [0] * 256
for _index in range(256):
    _value = _index << 24
    for _ in range(8):
        _value = (_value << 1 ^ (0x04C11DB7 if _value & 1 << 31 else 0)) & 0xFFFFFFFF
    OGG_TABLE[_index] = _value


def mend_ogg(content: bytearray) -> None:
    """Right checksums for all pages that still look like some."""
    at = content.find(b"OggS")
    while at >= 0:
        following = content.find(b"OggS", at + 4)
        page = content[at : following if following >= 0 else len(content)]
        if len(page) >= 27:
            page[22:26] = bytes(4)
            total = 0
            for byte in page:
                total = (total << 8 & 0xFFFFFFFF) ^ OGG_TABLE[(total >> 24) ^ byte]
            content[at + 22 : at + 26] = total.to_bytes(4, "little")
        at = following


def mend_tar(content: bytearray) -> None:
    """Right checksums for all blocks that may be headers."""
    for at in range(0, len(content) - 511, 512):
        if content[at + 257 : at + 262] == b"ustar":
            content[at + 148 : at + 156] = b" " * 8
            content[at + 148 : at + 156] = b"%06o\0 " % (sum(content[at : at + 512]) & 0o777777)
