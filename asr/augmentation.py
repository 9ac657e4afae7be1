"""Copies of training recordings that sound otherwise: faster or slower, in a room, in noise, louder or fainter.

    python -m asr.augmentation RECORDING OUT      # hear it: before.wav, copy-1.wav ..., and what was drawn for each
    python -m asr.augmentation --row ID OUT       # the same for a training row: what featurize makes of it

A copy is a pure function of (seed, id, copy) and of what is mixed in; each kind of change draws by a key of its own, so that turning
one on moves no other. Noise is a folder's, or babble: other rows of the same chunk file, so that a corpus that grows changes no
earlier chunk. Costs 3 ms for a clip of 5 s, and one decoding for each voice of a babble.
"""

from __future__ import annotations

import argparse
import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import soundfile

from asr import acoustics
from asr.audio import codec
from asr.audio.sample_file import AUDIO_SUFFIXES
from asr.errors import BadData, BadParams, exit_with
from asr.params import schema
from asr.storage import files, paths, shards
from asr.whisper import SAMPLE_RATE

READ_BLOCKS = 4  # of a recording that is mixed in: its first two minutes, 8 MB
KEPT_RECORDINGS = 4  # of those, in each process
HEARD = 3  # copies to hear where params make none

Named = tuple[str, np.ndarray]
Noises = Callable[[np.random.Generator, int], Named | None]
Responses = Callable[[np.random.Generator], Named]


@dataclass(frozen=True)
class Drawn:
    """What was drawn for a copy; None where it has none of a kind."""

    speed: float | None = None
    room: str | None = None
    noise: str | None = None
    snr_db: float | None = None
    gain_db: float | None = None

    def told(self) -> str:
        """In words, for people."""
        speed = f"speed {self.speed:.3f}" if self.speed is not None else ""
        noise = f"{self.noise} at {self.snr_db:.1f} dB SNR" if self.noise is not None else ""
        gain = f"gain {self.gain_db:+.1f} dB" if self.gain_db is not None else ""
        return ", ".join(one for one in (speed, self.room, noise, gain) if one) or "nothing was drawn"


def augmented(
    samples: np.ndarray, id: str, copy: int, given: schema.Augment, noises: Noises, responses: Responses
) -> tuple[np.ndarray, Drawn]:
    """One copy of a recording: its speed, then the room, then the noise of the place, then the microphone's gain.

    Args:
        samples: (S,) float32, 16 kHz.
        copy: 1, 2, ...
        noises: what a generator draws for so many samples; None where there is nothing to draw from: the copy then has no noise.
        responses: the room that a generator draws.
    Returns:
        (S / speed,) float32, and what was drawn.
    """
    chosen = partial(_chosen, given.seed, f"{copy}:{id}")
    speed = room = noise = snr_db = gain_db = None
    if draw := chosen("speed", given.speed.probability):
        speed = draw.uniform(given.speed.min, given.speed.max)
        samples = acoustics.at_speed(samples, speed)
    if draw := chosen("reverberation", given.reverberation.probability):
        room, response = responses(draw)
        samples = acoustics.in_room(samples, response)
    if draw := chosen("noise", given.noise.probability):
        wanted = draw.uniform(given.noise.min_snr_db, given.noise.max_snr_db)
        if found := noises(draw, len(samples)):
            noise, snr_db, samples = found[0], wanted, acoustics.in_noise(samples, found[1], wanted)
    if draw := chosen("gain", given.gain.probability):
        gain_db = draw.uniform(given.gain.min_db, given.gain.max_db)
        samples = acoustics.at_gain(samples, gain_db)
    return samples, Drawn(speed, room, noise, snr_db, gain_db)


def _chosen(seed: int, key: str, kind: str, probability: float) -> np.random.Generator | None:
    """A generator for one kind of change of one copy; None where the copy is left without it."""
    digest = hashlib.sha256(f"{seed}:{kind}:{key}".encode(errors="surrogateescape")).digest()
    draw = np.random.default_rng(int.from_bytes(digest, "big"))
    return draw if draw.random() < probability else None


def recordings(folder: str | None, probability: float) -> list[Path] | None:
    """The recordings that may be mixed in, sorted; None where params name no folder, or none is wanted.

    Raises:
        BadParams: a folder without recordings.
    """
    if folder is None or not probability:
        return None
    top = paths.resolve(folder)
    found = sorted(path for path in top.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file())
    if not found:
        raise BadParams(f"featurize.augment: {folder} holds no recording; want a folder, from the top of the repository")
    return found


def responses_of(given: schema.Augment, recorded: list[Path] | None) -> Responses:
    """Rooms: recorded ones, or made up with an RT60 between the given ones."""

    def responses(draw: np.random.Generator) -> Named:
        if recorded:
            return _one_of(draw, recorded)
        rt60 = draw.uniform(given.reverberation.min_rt60_seconds, given.reverberation.max_rt60_seconds)
        return f"room with RT60 {rt60:.2f} s", acoustics.room_response(draw, rt60)

    return responses


def noises_of(given: schema.Augment, recorded: list[Path] | None, rows: pa.ChunkedArray | None, own: int | None) -> Noises:
    """Noise: a stretch of a recorded one, or babble of several rows.

    Args:
        rows: encoded recordings; without another one than `own` there is no babble.
        own: the row that is to be heard through it.
    """
    others = [row for row in range(len(rows) if rows is not None else 0) if row != own]

    def noises(draw: np.random.Generator, length: int) -> Named | None:
        if recorded:
            name, noise = _one_of(draw, recorded)
            return name, acoustics.stretch(draw, noise, length)
        if rows is None or not others:
            return None
        voices = draw.choice(others, min(given.noise.babble_voices, len(others)), replace=False)
        return f"babble of {len(voices)}", np.sum([_voice(draw, rows[int(row)].as_py(), length) for row in voices], axis=0)

    return noises


def _voice(draw: np.random.Generator, encoded: bytes, length: int) -> np.ndarray:
    """(length,) of somebody speaking, as loud as all others."""
    samples = codec.decode(encoded)
    return acoustics.stretch(draw, samples, length) / np.float32(max(np.sqrt(acoustics.speech_power(samples)), 1e-9))


def _one_of(draw: np.random.Generator, recorded: list[Path]) -> Named:
    path = recorded[int(draw.integers(len(recorded)))]
    return path.name, _read(path)


@lru_cache(KEPT_RECORDINGS)
def _read(path: Path) -> np.ndarray:
    """The first two minutes of a recording that is mixed in."""
    try:
        with path.open("rb") as file:
            return np.concatenate(list(islice(codec.blocks(file), READ_BLOCKS)))
    except (codec.Undecodable, OSError) as error:
        raise BadData(f"{path}: cannot be mixed in: {error}; take it out of the folder") from None


def voices(chunk: Path) -> pa.ChunkedArray:
    """The encoded recordings of a chunk file, read in place."""
    return pa.Table.from_batches(list(shards.batches(chunk, ["audio"])))["audio"]


def find(split: Path, id: str) -> tuple[Path, int]:
    """The chunk file of a row, and its place there.

    Raises:
        BadData: no row has this id.
    """
    for chunk in shards.paths(split):
        ids = [one for batch in shards.batches(chunk, ["id"]) for one in batch["id"].to_pylist()]
        if id in ids:
            return chunk, ids.index(id)
    raise BadData(f"no training row has the id {id}; data/chunks/train holds those that were kept")


def hear(encoded: bytes, id: str, given: schema.Augment, rows: pa.ChunkedArray | None, own: int | None, out: Path) -> None:
    """Write a recording and its copies as WAV files of 16 kHz, and print what was drawn for each."""
    samples = codec.decode(encoded)
    noises = noises_of(given, recordings(given.noise.folder, given.noise.probability), rows, own)
    responses = responses_of(given, recordings(given.reverberation.folder, given.reverberation.probability))
    _write(out / "before.wav", samples)
    for copy in range(1, (given.copies or HEARD) + 1):
        changed, drawn = augmented(samples, id, copy, given, noises, responses)
        _write(out / f"copy-{copy}.wav", changed)
        print(f"copy-{copy}.wav: {drawn.told()}")


def _write(path: Path, samples: np.ndarray) -> None:
    """A WAV file of floating-point samples, which may pass 1."""
    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLE_RATE, "FLOAT", format="WAV")
    files.write_bytes(path, file.getvalue())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recording", help="a file; with --row the id of a training row")
    parser.add_argument("out", type=Path, help="a folder for what is to be heard")
    parser.add_argument(
        "--row", action="store_true", help="copy a row of data/chunks/train as featurize does, with babble of its own chunk"
    )
    told = parser.parse_args()
    given = schema.load(paths.root() / "params.yaml").featurize.augment
    train, recording = paths.root() / "data/chunks/train", Path(told.recording)
    if told.row:
        chunk, own = find(train, told.recording)
        rows = voices(chunk)
        hear(rows[own].as_py(), told.recording, given, rows, own, told.out)
    elif recording.is_file():
        some = next(iter(shards.paths(train)), None) if train.is_dir() else None
        hear(recording.read_bytes(), recording.name, given, voices(some) if some else None, None, told.out)
    else:
        raise BadData(f"{recording}: not there; want a recording, or the id of a training row and --row")


if __name__ == "__main__":
    exit_with(main)
