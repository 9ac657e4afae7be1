"""Recordings and corpora small enough for a test, made from nothing; and the way to the real ones,
where they lie beside the repository.
"""

import hashlib
import io
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile

from asr.params import reader, schema
from asr.storage import shards
from support.repository import SHARED, SHIPPED

REAL = SHARED / "data"


def real(*parts: str) -> Path:
    """A real recording or corpus; skips the test where there is none."""
    path = REAL.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"no {'/'.join(parts)} beside this repository")
    return path


def voice(seconds: float, rate: int = 16_000, seed: int = 0) -> np.ndarray:
    """(S,) float32: a hum with overtones and some noise, other for every seed."""
    draw = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    hum = sum(
        np.sin(2 * np.pi * draw.uniform(90, 250) * overtone * time) / overtone
        for overtone in range(1, 6)
    )
    return (0.1 * hum + 0.01 * draw.standard_normal(len(time))).astype(np.float32)


def encoded(
    samples: np.ndarray, rate: int = 16_000, format: str = "WAV", subtype: str | None = None
) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=format, subtype=subtype)
    return file.getvalue()


def encoded_by_av(
    samples: np.ndarray, rate: int, format: str, codec: str, bit_rate: int | None = None
) -> bytes:
    """What libsndfile cannot write: m4a and webm."""
    file = io.BytesIO()
    with av.open(file, "w", format=format) as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        if bit_rate:
            stream.bit_rate = bit_rate
        add_sound(container, stream, samples, rate)
    return file.getvalue()


def add_sound(container: Any, stream: Any, samples: np.ndarray, rate: int) -> None:
    """Encode samples (S,) of -1 to 1 as all of a stream; PyAV resamples them to its rate."""
    frame = av.AudioFrame.from_ndarray(
        (samples * 32767).astype(np.int16)[None], format="s16", layout="mono"
    )
    frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), 0
    for part in (frame, None):
        container.mux(stream.encode(part))


def row(
    id: str,
    audio: bytes | None,
    text: str = "one two",
    speaker: str | None = None,
    duration: float | None = None,
) -> dict[str, Any]:
    return {
        "id": id,
        "audio": audio,
        "text": text,
        "speaker": speaker,
        "attributes": "{}",
        "duration": duration,
    }


def write_rows(
    folder: Path, stem: str, rows: dict[str, list[dict[str, Any]]], max_rows: int | None = None
) -> Path:
    """A data folder (`part` for raw, `chunk` for chunks) with these rows."""
    manifests = {}
    for split, given in rows.items():
        writer = shards.SplitWriter(folder / split, stem, shards.ROW, max_rows)
        for one in given:
            writer.add(one)
        (folder / split).mkdir(parents=True, exist_ok=True)
        manifests[split] = writer.close()
    shards.write_top_manifest(folder, manifests, source="test")
    return folder


def sha256s(folder: Path, *but: str) -> dict[str, str]:
    """Every file below a folder and its hash."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in but
    }


def place_of(text: str, dotted: str) -> int:
    """Index of the line where a key of params.yaml stands."""
    lines, start = text.splitlines(), 0
    for depth, key in enumerate(dotted.split(".")):
        start = next(
            index
            for index in range(start, len(lines))
            if re.match(rf"{'  ' * depth}{key}:( |$)", lines[index])
        )
    return start


def changed(text: str, dotted: str, value: str) -> str:
    """The same params with another value, written in one line, at one key."""
    lines, at = text.splitlines(), place_of(text, dotted)
    indent = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
    end = at + 1
    while end < len(lines) and lines[end].startswith(f"{indent}  "):
        end += 1
    lines[at:end] = [f"{indent}{dotted.split('.')[-1]}: {value}", *[""] * (end - at - 1)]
    return "\n".join(lines) + "\n"


def added(text: str, dotted: str, line: str) -> str:
    """The same params with one more line above a key, as far to the right as that."""
    lines, at = text.splitlines(), place_of(text, dotted)
    lines.insert(at, " " * (len(lines[at]) - len(lines[at].lstrip())) + line)
    return "\n".join(lines) + "\n"


def load(folder: Path, **values: str) -> schema.Params:
    """The shipped params with a few other values; `a__b` stands for `a.b`."""
    text = SHIPPED.read_text()
    for key, value in values.items():
        text = changed(text, key.replace("__", "."), value)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.yaml").write_text(text)
    return reader.load(folder / "params.yaml")
