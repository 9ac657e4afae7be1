"""A corpus with every defect we know of, planted: KINDS of bad rows, each with the code it must
get, and CLEAN rows as odd as they come.

Every row is other than the next, and the same for the same seed but for serial numbers that ogg and
webm draw. `corpus` gives the rows of all splits and what must become of each. Making 20 rows of all
kinds costs 5 s.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np

from asr.storage import shards
from support.data import encoded, encoded_by_av, row, voice, write_rows

Draw = np.random.Generator
Make = Callable[[Draw], dict[str, Any]]
LIMITS = (0.3, 2.0)
ROWS = 20
WORDS = (
    "river stone candle winter garden silver morning bridge yellow thunder paper harbour".split()
)
FOREIGN = [
    "caf\u00e9",
    "na\u00efve",
    "\u201cquote\u201c",
    "it\u2019s",
    "\u20ac",
    "stra\u00dfe",
    "ma\u00f1ana",
]
NOT_UTF8, BROKEN, CUT = {"text_not_utf8"}, {"audio_undecodable"}, {"audio_truncated"}
EITHER = BROKEN | CUT


@dataclass(frozen=True)
class Kind:
    """How a row of a kind is made, the codes of which it must get one, and whether it must in every
    split or in training only.
    """

    make: Make
    codes: set[str]
    everywhere: bool = True


def seed(draw: Draw) -> int:
    return int(draw.integers(1 << 31))


def hum(draw: Draw, seconds: float = 0.6, rate: int = 8_000) -> np.ndarray:
    return voice(seconds, rate, seed(draw))


def wav(draw: Draw, seconds: float = 0.6, rate: int = 8_000, **how: Any) -> bytearray:
    return bytearray(encoded(hum(draw, seconds, rate), rate, **how))


def said(draw: Draw, count: int = 2) -> str:
    return " ".join(draw.choice(WORDS, count))


def mp4(draw: Draw, seconds: float = 0.6, **how: Any) -> bytes:
    return encoded_by_av(hum(draw, seconds, 16_000), 16_000, "mp4", "aac", **how)


def webm(draw: Draw, seconds: float = 0.6) -> bytes:
    return encoded_by_av(hum(draw, seconds, 48_000), 48_000, "webm", "libopus")


def opus(draw: Draw, seconds: float = 0.6) -> bytes:
    return encoded(hum(draw, seconds, 16_000), 16_000, "OGG", "OPUS")


def fast_start(content: bytes) -> bytes:
    """An mp4 with its table in front, as it is served: offsets of the media move by the table's
    length.
    """
    at = content.index(b"moov") - 4
    moov = bytearray(content[at:])
    mdat = content.index(b"mdat") - 4
    place = moov.index(b"stco") + 8
    for number in range(struct.unpack_from(">I", moov, place)[0]):
        offset = struct.unpack_from(">I", moov, place + 4 + 4 * number)[0]
        struct.pack_into(">I", moov, place + 4 + 4 * number, offset + len(moov))
    return content[:mdat] + bytes(moov) + content[mdat:at]


@cache
def film() -> bytes:
    """A video without sound."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        for part in (av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8)), None):
            container.mux(stream.encode(part))
    return file.getvalue()


def zipped(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("clip.wav", content)
    return file.getvalue()


def saved(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def png(draw: Draw) -> bytes:
    def part(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )

    pixels = b"".join(b"\0" + draw.bytes(32) for _ in range(32))
    head = part(b"IHDR", struct.pack(">IIBBBBB", 32, 32, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + part(b"IDAT", zlib.compress(pixels)) + part(b"IEND", b"")


def changed(content: bytes, at: int, layout: str, value: int) -> bytes:
    """The file with one field of its header forged."""
    copy = bytearray(content)
    struct.pack_into(layout, copy, at, value)
    return bytes(copy)


def forged(content: bytes, names: list[tuple[bytes, bytes]]) -> bytes:
    """The file with other names of the same length in it."""
    for old, new in names:
        content = content.replace(old, new)
    return content


def letters(draw: Draw, count: int) -> bytes:
    return bytes(draw.integers(65, 91, count).astype(np.uint8))


def part(content: bytes | bytearray, draw: Draw, low: float = 0.3, high: float = 0.8) -> bytes:
    """The beginning of a file."""
    return bytes(content[: int(len(content) * draw.uniform(low, high))])


def with_one(samples: np.ndarray, draw: Draw, value: float) -> bytes:
    """A float recording with one sample that is none."""
    samples[draw.integers(len(samples))] = value
    return encoded(samples, 8_000, subtype="FLOAT")


def lines(draw: Draw, text: str) -> bytes:
    return text.replace("@", said(draw, 3)).encode()


def sounds(make: Callable[[Draw], bytes | bytearray | None], **rest: Any) -> Make:
    """Rows of which the sound is given."""
    return lambda draw: {
        "audio": None if (made := make(draw)) is None else bytes(made),
        "text": said(draw),
        **rest,
    }


def texts(make: Callable[[Draw], str], seconds: float = 0.6) -> Make:
    """Rows of which the text is given; bytes that are no UTF-8 are as `download` leaves them."""
    return lambda draw: {"audio": bytes(wav(draw, seconds)), "text": make(draw)}


def one_of(*choices: str) -> Callable[[Draw], str]:
    return lambda draw: str(draw.choice(np.array(choices, dtype=object)))


def misread(text: str) -> str:
    return text.encode().decode("cp1252")


def read_as(made: bytes) -> str:
    return made.decode("utf-8", errors="replace")


NO_SOUND: dict[str, Callable[[Draw], bytes | bytearray | None]] = {
    "zero bytes": lambda _: b"",
    "web page": lambda draw: lines(
        draw,
        (
            "<!DOCTYPE html><html><head><title>@</title></head><body><h1>404 Not "
            "Found</h1>@</body></html>"
        ),
    ),
    "json": lambda draw: json.dumps({"error": said(draw), "code": 403}).encode(),
    "xml": lambda draw: lines(
        draw, '<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>@</Message></Error>'
    ),
    "picture": png,
    "photo": lambda draw: (
        b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01" + draw.bytes(900) + b"\xff\xd9"
    ),
    "gif": lambda draw: b"GIF89a" + draw.bytes(600),
    "pdf": lambda draw: (
        lines(draw, "%PDF-1.7\n1 0 obj << /Title (@) >> endobj\n") + draw.bytes(500) + b"%%EOF"
    ),
    "zip": lambda draw: zipped(bytes(wav(draw))),
    "gzip": lambda draw: gzip.compress(bytes(wav(draw)), mtime=0),
    "program": lambda draw: b"\x7fELF\x02\x01\x01" + bytes(9) + draw.bytes(2000),
    "database": lambda draw: b"SQLite format 3\x00" + draw.bytes(2000),
    "array": lambda draw: saved(hum(draw)),
    "text": lambda draw: lines(draw, "this is @ and no sound\n" * 40),
    "text of two bytes": lambda draw: ("\ufeff" + said(draw, 40)).encode("utf-16-le"),
    "table": lambda draw: lines(draw, "path\tsentence\nclip.mp3\t@\n"),
    "pointer to a large file": lambda draw: lines(
        draw, "version https://git-lfs.github.com/spec/v1\noid sha256:@\nsize 12345\n"
    ),
    "base64": lambda draw: base64.b64encode(wav(draw)),
    "random": lambda draw: draw.bytes(int(draw.integers(10, 5000))),
    "zeros": lambda draw: bytes(int(draw.integers(10, 5000))),
    "ones": lambda draw: b"\xff" * int(draw.integers(10, 5000)),
    "mangled to text": lambda draw: wav(draw).decode("utf-8", errors="replace").encode(),
    "without its head": lambda draw: wav(draw)[1 + int(draw.integers(60)) :],
    "head of a riff": lambda draw: b"RIFF" + draw.bytes(4) + b"WAVE",
    "head of a wav": lambda draw: wav(draw)[:44],
    "head of a flac": lambda draw: wav(draw, format="FLAC")[: 8 + int(draw.integers(34))],
    "head of an ogg": lambda draw: wav(draw, format="OGG")[: 28 + int(draw.integers(200))],
    "head of an m4a": lambda draw: mp4(draw)[: 28 + int(draw.integers(20))],
    "head of a webm": lambda draw: webm(draw)[: 40 + int(draw.integers(150))],
    "tags without an mp3": lambda draw: (
        b"ID3\x03\x00\x00\x00\x00\x02\x00TIT2\x00\x00\x00\x20\x00\x00\x00"
        + draw.bytes(31)
        + bytes(214)
    ),
    "cut wav": lambda draw: part(wav(draw), draw),
    "cut flac": lambda draw: part(wav(draw, format="FLAC"), draw),
    "cut aiff": lambda draw: part(wav(draw, format="AIFF"), draw),
    "cut m4a": lambda draw: part(mp4(draw), draw),
    "cut m4a with its table in front": lambda draw: part(
        fast_start(mp4(draw, 1.5)), draw, 0.5, 0.8
    ),
    "not a number": lambda draw: with_one(hum(draw), draw, np.nan),
    "infinite": lambda draw: with_one(hum(draw), draw, -np.inf),
    "huge peaks": lambda draw: encoded(hum(draw) * 1e6, 8_000, subtype="FLOAT"),
    "forged rate": lambda draw: changed(
        wav(draw), 24, "<I", int(draw.choice([0, 1, 7, 900, 1_000_000, 2**31, 2**32 - 1]))
    ),
    "forged channels": lambda draw: changed(
        wav(draw), 22, "<H", int(draw.choice([0, 2_000, 30_000, 65_535]))
    ),
    "forged width": lambda draw: changed(
        wav(draw), 34, "<H", int(draw.choice([0, 1, 77, 4_000, 65_535]))
    ),
    "forged size": lambda draw: changed(
        wav(draw), 40, "<I", int(draw.integers(100_000, 2_000_000_000))
    ),
    "forged length of a flac": lambda draw: changed(
        wav(draw, format="FLAC"), 22, ">I", int(draw.integers(100_000, 2**32))
    ),
    "codec of nobody in a wav": lambda draw: changed(
        wav(draw), 20, "<H", int(draw.choice([0x7777, 0x1234, 0xABCD, 0x0999]))
    ),
    "codec of nobody in an m4a": lambda draw: forged(
        mp4(draw), [(b"mp4a", b"zzz" + letters(draw, 1)), (b"\x40\x15", b"\xfc\x15")]
    ),
    "codec of nobody in a webm": lambda draw: forged(
        webm(draw), [(b"A_OPUS", b"A_Z" + letters(draw, 3))]
    ),
    "film without sound": lambda draw: film() + struct.pack(">I4s", 24, b"free") + draw.bytes(16),
    "midi": lambda draw: (
        b"MThd\x00\x00\x00\x06\x00\x00\x00\x01\x00\x60MTrk\x00\x00\x00\x10"
        + draw.bytes(12)
        + b"\x00\xff\x2f\x00"
    ),
    "playlist": lambda draw: lines(
        draw, "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n@.wav\n#EXT-X-ENDLIST\n"
    ),
    "list of files": lambda draw: lines(draw, "ffconcat version 1.0\nfile '@.wav'\n"),
}
PROMISED: dict[str, Callable[[Draw], bytes | bytearray]] = {
    "cut ogg": lambda draw: part(wav(draw, 1.5, 16_000, format="OGG"), draw, 0.7, 0.85),
    "cut opus": lambda draw: part(opus(draw, 1.5), draw, 0.5, 0.8),
    "cut mp3": lambda draw: part(wav(draw, 1.5, 16_000, format="MP3"), draw, 0.4, 0.8),
    "cut webm": lambda draw: part(webm(draw, 1.5), draw, 0.5, 0.8),
    "half of what its table says": lambda draw: wav(draw, float(draw.uniform(0.5, 1.3))),
}
UNFIT: dict[str, tuple[str, Callable[[Draw], bytes | bytearray]]] = {
    "silence": (
        "audio_silent",
        lambda draw: encoded(np.zeros(int(draw.integers(4_000, 16_000))), 8_000),
    ),
    "silence in an mp3": (
        "audio_silent",
        lambda draw: encoded(np.zeros(int(draw.integers(8_000, 30_000))), 16_000, "MP3"),
    ),
    "offset": (
        "audio_silent",
        lambda draw: encoded(
            np.full(8_000, draw.uniform(0.1, 0.9)), int(draw.choice([8_000, 11_025, 16_000]))
        ),
    ),
    "a step of noise": (
        "audio_silent",
        lambda draw: encoded(draw.integers(-1, 2, 8_000).astype(np.int16), 8_000),
    ),
    "a click in silence": (
        "audio_silent",
        lambda draw: encoded(np.eye(1, 8_000, int(draw.integers(8_000)))[0], 8_000),
    ),
    "one sample": (
        "too_short",
        lambda draw: encoded(np.array([draw.uniform(0.1, 1)]), int(draw.choice([8_000, 16_000]))),
    ),
    "too short": ("too_short", lambda draw: wav(draw, float(draw.uniform(0.01, 0.29)))),
    "too long": ("too_long", lambda draw: wav(draw, float(draw.uniform(2.01, 3.0)))),
    "clipped to a square": (
        "audio_clipped",
        lambda draw: encoded(np.sign(hum(draw)) * 0.9, int(draw.choice([8_000, 16_000]))),
    ),
}
BAD_TEXTS: dict[str, tuple[set[str], Callable[[Draw], str]]] = {
    "empty": ({"text_empty"}, lambda _: ""),
    "blank": ({"text_empty"}, lambda draw: " \t\n\r"[: int(draw.integers(1, 5))] * 3),
    "spaces that do not break": ({"text_empty"}, one_of("\u00a0", "\u202f\u2007", "\u3000\u3000")),
    "marks of no width": (
        {"text_empty"},
        one_of("\u200b", "\ufeff", "\u200e \u200f", "\u2060\u200d", "\u00ad"),
    ),
    "letters one cannot see": (
        {"text_empty"},
        one_of("\u3164", "\u115f\u1160", "\u2800\u2800", "\uffa0"),
    ),
    "nothing but controls": ({"text_empty"}, one_of("\0", "\0\0\0", "\x1b\x07", "\x7f", "\x85")),
    "latin-1": (
        NOT_UTF8,
        lambda draw: read_as(f"sm\u00f6rg\u00e5s {said(draw)}".encode("latin-1")),
    ),
    "windows-1251": (NOT_UTF8, lambda draw: read_as(f"привет {said(draw)}".encode("cp1251"))),
    "letter cut in two": (NOT_UTF8, lambda draw: read_as(f"{said(draw)} \u00e9".encode()[:-1])),
    "half a pair": (
        NOT_UTF8,
        lambda draw: read_as(f"{said(draw)} \ud83d".encode("utf-8", "surrogatepass")),
    ),
}
UNFIT_TEXTS: dict[str, tuple[str, Callable[[Draw], str]]] = {
    "nul in a text": ("text_control", lambda draw: f"{said(draw)}\0{said(draw, 1)}"),
    "colours of a terminal": ("text_control", lambda draw: f"\x1b[31m{said(draw)}\x1b[0m"),
    "bell and backspace": (
        "text_control",
        lambda draw: said(draw) + one_of("\x07", "\x08", "\x0c", "\x7f")(draw),
    ),
    "controls of latin-1": ("text_control", lambda draw: f"it\x92s {said(draw)}"),
    "only punctuation": (
        "text_wordless",
        one_of("...", "?!", "\u2014", "\u3002\u3002", "\u201c \u201d", "\u061f", "- - -", "*"),
    ),
    "only symbols": (
        "text_wordless",
        one_of("\u266a\u266a", "$ $", "+++", "\u00a9", "\u2192", "~~ ~~", "="),
    ),
    "only emoji": (
        "text_wordless",
        one_of("\U0001f602", "\U0001f44d\U0001f3fd", "\u2764\ufe0f", "\U0001f469\u200d\U0001f680"),
    ),
    "only tags": (
        "text_markup",
        one_of("<unk>", "<noise> <noise>", "<br/>", "<s></s>", "<!-- -->"),
    ),
    "only notes": (
        "text_markup",
        one_of("[noise]", "[Music]", "[ laughter ]", "[MUSIC] [noise]", "[inaudible 1]"),
    ),
    "only entities": ("text_markup", one_of("&nbsp;", "&#160;", "&nbsp;&amp;", "&lt;&gt;")),
    "html": (
        "text_markup",
        lambda draw: (
            f"<{(tag := draw.choice(['p', 'b', 'span', 'i', 'div']))}>{said(draw)}</{tag}>"
        ),
    ),
    "line breaks of html": ("text_markup", lambda draw: f"{said(draw, 1)}<br>{said(draw, 1)}"),
    "whole page": ("text_markup", lambda draw: f"<!DOCTYPE html><html>{said(draw, 1)}"),
    "subtitle with its times": (
        "text_markup",
        lambda draw: f"1\n00:00:0{draw.integers(10)},000 --> 00:00:02,500\n{said(draw, 1)}",
    ),
    "json in a text": ("text_markup", lambda draw: json.dumps({"text": said(draw, 1)})),
    "utf-8 read as windows-1252": (
        "text_mojibake",
        lambda draw: f"{said(draw, 1)} {misread(str(draw.choice(FOREIGN)))}",
    ),
    "twice read as windows-1252": (
        "text_mojibake",
        lambda draw: f"{said(draw, 1)} {misread(misread('café'))}",
    ),
    "too many words": ("too_fast", lambda draw: said(draw, int(draw.integers(7, 30)))),
    "too many characters": (
        "too_fast",
        lambda draw: "天地玄黄宇宙洪荒日月盈昃" * int(draw.integers(2, 9)) + str(draw.integers(9)),
    ),
    "too many digits": ("too_fast", lambda draw: "".join(map(str, draw.integers(0, 10, 50)))),
    "text of the whole book": ("too_fast", lambda draw: said(draw, 3000)),
}


def promised(make: Callable[[Draw], bytes | bytearray]) -> Make:
    """Rows whose table says more seconds than there are."""
    return sounds(make, duration=1.5)


KINDS: dict[str, Kind] = {
    "missing": Kind(sounds(lambda _: None), {"audio_missing"}),
    **{name: Kind(sounds(make), BROKEN) for name, make in NO_SOUND.items()},
    **{name: Kind(promised(make), EITHER) for name, make in PROMISED.items()},
    **{name: Kind(sounds(make), {code}, everywhere=False) for name, (code, make) in UNFIT.items()},
    **{f"text: {name}": Kind(texts(make), codes) for name, (codes, make) in BAD_TEXTS.items()},
    **{
        f"text: {name}": Kind(texts(make), {code}, everywhere=False)
        for name, (code, make) in UNFIT_TEXTS.items()
    },
}


def tagged(content: bytes, draw: Draw) -> bytes:
    """An mp3 with a picture in front of it and a name behind it."""
    picture = b"\x00image/png\x00\x03\x00" + png(draw)
    frame = b"APIC" + struct.pack(">IH", len(picture), 0) + picture
    size = len(frame)
    head = b"ID3\x03\x00\x00" + bytes(
        [size >> 21 & 127, size >> 14 & 127, size >> 7 & 127, size & 127]
    )
    return head + frame + content + b"TAG" + said(draw, 3).encode()[:30].ljust(125, b"\0")


def listed(content: bytes, draw: Draw) -> bytes:
    """A wav with a list of odd length before its data."""
    extra = (
        b"LIST" + struct.pack("<I", 15) + b"INFOISFT" + struct.pack("<I", 3) + draw.bytes(3) + b"\0"
    )
    made = content[:36] + extra + content[36:]
    return changed(made, 4, "<I", len(made) - 8)


def quietly(draw: Draw) -> bytes:
    """Breath in a narrow band, with pauses, at -60 dB."""
    noise = np.convolve(draw.standard_normal(9_600), np.hanning(9), "same") * (
        np.sin(np.arange(9_600) / 700) > -0.3
    )
    return encoded(noise / np.abs(noise).max() * 1e-3, 16_000, subtype="PCM_16")


def exactly(draw: Draw) -> bytes:
    return encoded(hum(draw, float(draw.choice(LIMITS)), 16_000), 16_000)


ODD_SOUNDS: dict[str, Callable[[Draw], bytes | bytearray]] = {
    "8 kHz": wav,
    "192 kHz": lambda draw: wav(draw, 0.4, 192_000),
    "11,025 Hz": lambda draw: wav(draw, 0.6, 11_025),
    "24 bits": lambda draw: wav(draw, 0.6, 48_000, subtype="PCM_24"),
    "floats": lambda draw: wav(draw, subtype="DOUBLE"),
    "8 bits": lambda draw: wav(draw, subtype="PCM_U8"),
    "telephone": lambda draw: wav(draw, subtype="ULAW"),
    "5.1": lambda draw: encoded(np.stack([hum(draw) for _ in range(6)], axis=1), 8_000),
    "stereo with one silent side": lambda draw: encoded(
        np.stack([hum(draw), np.zeros(4_800)], axis=1), 8_000
    ),
    "flac": lambda draw: wav(draw, 0.6, 16_000, format="FLAC", subtype="PCM_24"),
    "aiff": lambda draw: wav(draw, format="AIFF"),
    "caf": lambda draw: wav(draw, format="CAF"),
    "ogg": lambda draw: wav(draw, 0.6, 16_000, format="OGG"),
    "opus": opus,
    "mp3": lambda draw: wav(draw, 0.6, 16_000, format="MP3"),
    "mp3 with a picture": lambda draw: tagged(bytes(wav(draw, 0.6, 16_000, format="MP3")), draw),
    "m4a": mp4,
    "m4a with its table in front": lambda draw: fast_start(mp4(draw)),
    "webm": webm,
    "wav with a list": lambda draw: listed(bytes(wav(draw)), draw),
    "wav from a pipe": lambda draw: changed(wav(draw), 40, "<I", 0xFFFFFFFF),
    "whisper": quietly,
    "loud and clipped": lambda draw: encoded(np.clip(hum(draw) * 12, -1, 1), 8_000),
    "offset microphone": lambda draw: encoded(hum(draw) * 0.1 + 0.3, 8_000),
    "pauses around a word": lambda draw: encoded(
        np.concatenate([np.zeros(6_000), hum(draw, 0.3), np.zeros(6_000)]), 8_000
    ),
    "as short and as long as allowed": exactly,
}
ODD_TEXTS: dict[str, Callable[[Draw], str]] = {
    "one word": lambda draw: said(draw, 1),
    "one letter": one_of("a", "é", "Я", "אַ", "7", "好"),
    "emoji": lambda draw: f"{said(draw)} \U0001f602\U0001f44d\U0001f3fd \U0001fae8\u2764\ufe0f",
    "family of emoji": lambda draw: f"\U0001f469\u200d\U0001f469\u200d\U0001f467 {said(draw)}",
    "arabic": one_of("السلام عليكم", "كتاب جديد", "مَرْحَبًا", "شكرا"),
    "hebrew with marks of direction": one_of(
        "\u200fשלום עולם\u200f", "\u2067בוקר טוב\u2069", "שָׁלוֹם"
    ),
    "persian": one_of("می\u200cخواهم", "کتاب\u200cها"),
    "combining marks": one_of(
        "Tie\u0302\u0301ng Vie\u0323\u0302t", "cafe\u0301", "a\u030angstro\u0308m"
    ),
    "hindi": one_of("नमस्ते दुनिया", "आपका स्वागत है", "हिन्दी"),
    "thai": one_of("สวัสดีครับผมชื่อ", "ขอบคุณมากนะคะ", "กรุงเทพมหานคร"),
    "chinese": one_of("今天天气很好", "我们去吃饭吧", "你好吗"),
    "japanese": one_of("おはようございます", "ありがとうございました", "カタカナです"),
    "korean": one_of("안녕하세요", "감사합니다", "만나서 반가워"),
    "amharic": one_of("ሰላም እንዴት ነህ", "አመሰግናለሁ"),
    "cyrillic": one_of("Доброе утро", "Спасибо большое", "щё"),
    "greek": one_of("Καλημέρα", "ευχαριστώ πολύ"),
    "capitals of portuguese": one_of("AÇÃO E REAÇÃO", "NÃO", "IRMÃ", "À NOITE", "\u00c8\u00a0vero"),
    "quotes of many kinds": lambda draw: (
        f"\u00bb{said(draw, 1)}\u00ab \u201e{said(draw, 1)}\u201c \u2018it\u2019s\u2019 \u2026"
    ),
    "numbers": one_of("1984", "3,14", "1 000 000", "100 %", "\u20ac 5", "½", "٣٤", "१२३"),
    "lines and tabs": lambda draw: f"{said(draw, 1)}\n\t{said(draw, 1)}\r\n",
    "spaces around": lambda draw: f"  {said(draw)}\u00a0 ",
    "mark of byte order": lambda draw: f"\ufeff{said(draw)}",
    "soft hyphens": lambda draw: "\u00ad".join(said(draw)),
    "smaller and greater": one_of(
        "I <3 you", "a < b > c", "x <- y", "2 <= 3", "x --> y", "Tom & Jerry; yes"
    ),
    "notes beside words": lambda draw: f"[noise] {said(draw)} <unk>",
    "brackets": lambda draw: f"({said(draw)}) [{said(draw, 1)}] {said(draw, 1)}",
    "code": one_of(
        "x = {1, 2}", "C++ and C#", "hello@example.org", "www.example.org/?q=1", "#hashtag", "AT&T"
    ),
    "fast": lambda draw: said(draw, 3)[:24],
}
CLEAN: dict[str, Make] = {
    **{name: sounds(make) for name, make in ODD_SOUNDS.items()},
    "a table that is a little wrong": lambda draw: {
        "audio": bytes(wav(draw)),
        "text": said(draw),
        "duration": draw.uniform(0.3, 0.65),
    },
    **{f"text: {name}": texts(make) for name, make in ODD_TEXTS.items()},
}


def corpus(
    number: int, rows: int = ROWS
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, set[str]]]:
    """Rows of every split, good and bad mixed, and by id the codes of which each must get one; none
    for a row that must stay.

    An id says kind and number. Of 20 rows of a kind 15 are training rows, two stand in validation,
    two in the test, one in the holdout.
    """
    splits: dict[str, list[dict[str, Any]]] = {split: [] for split in shards.ALL_SPLITS}
    wanted: dict[str, set[str]] = {}
    kinds = {**KINDS, **{name: Kind(make, set()) for name, make in CLEAN.items()}}
    for index, (name, kind) in enumerate(kinds.items()):
        for count in range(rows):
            split = shards.ALL_SPLITS[max(0, count - rows + 7) // 2]
            made = kind.make(np.random.default_rng([number, index, count]))
            splits[split].append({**row(f"{name} {count:02d}", None), **made})
            wanted[f"{name} {count:02d}"] = (
                kind.codes if kind.everywhere or split == "train" else set()
            )
    order = np.random.default_rng(number)
    return {
        split: [given[at] for at in order.permutation(len(given))]
        for split, given in splits.items()
    }, wanted


def twice(splits: dict[str, list[dict[str, Any]]], count: int = ROWS) -> dict[str, set[str]]:
    """Add rows whose id is another's: to training and to the test."""
    wanted: dict[str, set[str]] = {}
    draw = np.random.default_rng(count)
    for number in range(count):
        id = f"good for two {number:02d}"
        splits["train"].insert(0, row(id, bytes(wav(draw)), said(draw)))
        splits[("train", "test")[number % 2]].append(row(id, bytes(wav(draw)), said(draw)))
        wanted[id] = {"id_duplicate"}
    return wanted


def write(folder: Path, number: int, rows: int = ROWS) -> dict[str, set[str]]:
    """The corpus as `download` would leave it; returns what must become of each row."""
    splits, wanted = corpus(number, rows)
    write_rows(folder, "part", splits)
    return wanted
