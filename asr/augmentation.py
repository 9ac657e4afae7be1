"""Copies of training recordings that sound otherwise: faster or slower, in a room, in noise, louder
or fainter.

    earshot augment RECORDING OUT      # hear it: before.wav, copy-1.wav ..., and what was drawn for each
    earshot augment --row ID OUT       # the same for a training row: what featurize makes of it

A copy is a pure function of (seed, id, copy) and of what is mixed in; each kind of change draws by
a key of its own, so that turning one on moves no other. Noise is a folder's, or babble: other rows
of the same chunk file, so that a corpus that grows changes no earlier chunk. Costs 3 ms for a clip
of 5 s, and one decoding for each voice of a babble.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import scipy.fft
import soundfile
import soxr

from asr import paths
from asr.audio import codec
from asr.audio.sample_file import AUDIO_SUFFIXES
from asr.errors import DataError, ParamsError, exit_with
from asr.params import reader, schema
from asr.runtime import command
from asr.storage import files, shards
from asr.whisper import SAMPLE_RATE

READ_BLOCKS = 4  # of a recording that is mixed in: its first two minutes, 8 MB
KEPT_RECORDINGS = 4  # of those, in each process
HEARD = 3  # copies to hear where params make none

Named = tuple[str, np.ndarray]
Noises = Callable[[np.random.Generator, int], Named | None]
Responses = Callable[[np.random.Generator], Named]

FRAME = SAMPLE_RATE // 50  # 20 ms, in which a voice's power stands still
ACTIVE_DB = (
    25.0  # below the loudest frame somebody still speaks; pauses of clean recordings lie lower
)


@dataclass(frozen=True)
class AugmentationRecord:
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
        return (
            ", ".join(one for one in (speed, self.room, noise, gain) if one) or "nothing was drawn"
        )


def augmented(
    samples: np.ndarray,
    id: str,
    copy: int,
    given: schema.Augment,
    noises: Noises,
    responses: Responses,
) -> tuple[np.ndarray, AugmentationRecord]:
    """One copy of a recording: its speed, then the room, then the noise of the place, then the
    microphone's gain.

    Args:
        samples: (S,) float32, 16 kHz.
        copy: 1, 2, ...
        noises: what a generator draws for so many samples; None where there is nothing to draw
            from: the copy then has no noise.
        responses: the room that a generator draws.
    Returns:
        (S / speed,) float32, and what was drawn.
    """
    chosen = partial(_chosen, given.seed, f"{copy}:{id}")
    speed = room = noise = snr_db = gain_db = None
    if draw := chosen("speed", given.speed.probability):
        speed = draw.uniform(given.speed.min, given.speed.max)
        samples = at_speed(samples, speed)
    if draw := chosen("reverberation", given.reverberation.probability):
        room, response = responses(draw)
        samples = in_room(samples, response)
    if draw := chosen("noise", given.noise.probability):
        wanted = draw.uniform(given.noise.min_snr_db, given.noise.max_snr_db)
        if found := noises(draw, len(samples)):
            noise, snr_db, samples = found[0], wanted, in_noise(samples, found[1], wanted)
    if draw := chosen("gain", given.gain.probability):
        gain_db = draw.uniform(given.gain.min_db, given.gain.max_db)
        samples = at_gain(samples, gain_db)
    return samples, AugmentationRecord(speed, room, noise, snr_db, gain_db)


def _chosen(seed: int, key: str, kind: str, probability: float) -> np.random.Generator | None:
    """A generator for one kind of change of one copy; None where the copy is left without it."""
    digest = hashlib.sha256(f"{seed}:{kind}:{key}".encode(errors="surrogateescape")).digest()
    draw = np.random.default_rng(int.from_bytes(digest, "big"))
    return draw if draw.random() < probability else None


def recordings(folder: str | None, probability: float) -> list[Path] | None:
    """The recordings that may be mixed in, sorted; None where params name no folder, or none is
    wanted.

    Raises:
        BadParams: a folder without recordings.
    """
    if folder is None or not probability:
        return None
    top = paths.resolve(folder)
    found = sorted(
        path for path in top.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file()
    )
    if not found:
        raise ParamsError(
            f"featurize.augment: {folder} holds no recording; want a folder, from the top of the repository"
        )
    return found


def responses_of(given: schema.Augment, recorded: list[Path] | None) -> Responses:
    """Rooms: recorded ones, or made up with an RT60 between the given ones."""

    def responses(draw: np.random.Generator) -> Named:
        if recorded:
            return _one_of(draw, recorded)
        rt60 = draw.uniform(
            given.reverberation.min_rt60_seconds, given.reverberation.max_rt60_seconds
        )
        return f"room with RT60 {rt60:.2f} s", room_response(draw, rt60)

    return responses


def noises_of(
    given: schema.Augment,
    recorded: list[Path] | None,
    rows: pa.ChunkedArray | None,
    own: int | None,
) -> Noises:
    """Noise: a stretch of a recorded one, or babble of several rows.

    Args:
        rows: encoded recordings; without another one than `own` there is no babble.
        own: the row that is to be heard through it.
    """
    others = [row for row in range(len(rows) if rows is not None else 0) if row != own]

    def noises(draw: np.random.Generator, length: int) -> Named | None:
        if recorded:
            name, noise = _one_of(draw, recorded)
            return name, stretch(draw, noise, length)
        if rows is None or not others:
            return None
        voices = draw.choice(others, min(given.noise.babble_voices, len(others)), replace=False)
        return f"babble of {len(voices)}", np.sum(
            [_voice(draw, rows[int(row)].as_py(), length) for row in voices], axis=0
        )

    return noises


def _voice(draw: np.random.Generator, encoded: bytes, length: int) -> np.ndarray:
    """(length,) of somebody speaking, as loud as all others."""
    samples = codec.decode(encoded)
    return stretch(draw, samples, length) / np.float32(max(np.sqrt(speech_power(samples)), 1e-9))


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
        raise DataError(f"{path}: cannot be mixed in: {error}; take it out of the folder") from None


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
    raise DataError(
        f"no training row has the id {id}; data/chunks/train holds those that were kept"
    )


def write_examples(
    encoded: bytes,
    id: str,
    given: schema.Augment,
    rows: pa.ChunkedArray | None,
    own: int | None,
    out: Path,
) -> None:
    """Write a recording and its copies as WAV files of 16 kHz, and print what was drawn for each."""
    samples = codec.decode(encoded)
    noises = noises_of(given, recordings(given.noise.folder, given.noise.probability), rows, own)
    responses = responses_of(
        given, recordings(given.reverberation.folder, given.reverberation.probability)
    )
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


def at_speed(samples: np.ndarray, factor: float) -> np.ndarray:
    """(S / factor,) the sound so many times as fast, as a tape would play it: by resampling, so
    that pitch moves too, as in Kaldi.
    """
    played: np.ndarray = soxr.resample(samples, SAMPLE_RATE * factor, SAMPLE_RATE)
    return played


def at_gain(samples: np.ndarray, gain_db: float) -> np.ndarray:
    """(S,) louder by so many dB. What passes 1 stays: features know no clipping."""
    return samples * np.float32(10 ** (gain_db / 20))


def speech_power(samples: np.ndarray) -> float:
    """Mean square over the frames in which somebody speaks: those within 25 dB of the loudest.

    Over all samples, a clip with long pauses would count as faint, and the noise mixed into its
    words would be fainter than asked for.
    """
    whole = samples[: len(samples) // FRAME * FRAME] if len(samples) >= FRAME else samples
    power = np.square(whole.reshape(-1, min(FRAME, len(whole))), dtype=np.float64).mean(1)
    return float(power[power >= power.max() * 10 ** (-ACTIVE_DB / 10)].mean())


def in_noise(samples: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """(S,) with noise (S,) added, so loud that speech has `snr_db` more power than all of the
    noise; silence stays as it is.
    """
    speech, power = speech_power(samples), float(np.square(noise, dtype=np.float64).mean())
    if not speech or not power:
        return samples
    return samples + noise * np.float32(np.sqrt(speech / power / 10 ** (snr_db / 10)))


def in_room(samples: np.ndarray, response: np.ndarray) -> np.ndarray:
    """(S,) as heard in a room, as loud as before. The direct sound, the response's peak, stays
    where it was; the end is cut.
    """
    response = response[int(np.abs(response).argmax()) :]
    length = scipy.fft.next_fast_len(len(samples) + len(response) - 1, real=True)
    spectrum = scipy.fft.rfft(samples, length) * scipy.fft.rfft(response.astype(np.float32), length)
    heard = scipy.fft.irfft(spectrum, length)[: len(samples)]
    before, after = speech_power(samples), speech_power(heard)
    return heard * np.float32(np.sqrt(before / after)) if after else samples


def room_response(draw: np.random.Generator, rt60: float) -> np.ndarray:
    """(R,) how a room answers a click: the click, then noise that falls by 60 dB in `rt60` seconds.

    Both have the same energy, as at the room's critical distance. Source: Polack 1988, the
    statistical model of reverberation.
    """
    time = np.arange(1, max(round(rt60 * SAMPLE_RATE), 2)) / SAMPLE_RATE
    tail = draw.standard_normal(len(time)) * 10 ** (-3 * time / rt60)
    return np.concatenate([[1.0], tail / np.linalg.norm(tail)]).astype(np.float32)


def stretch(draw: np.random.Generator, samples: np.ndarray, length: int) -> np.ndarray:
    """(length,) of a recording from a place that is drawn; a shorter one begins anew at its end."""
    places = len(samples) - length + 1 if len(samples) >= length else len(samples)
    start = int(draw.integers(places))
    return np.take(samples, np.arange(start, start + length), mode="wrap")


def main() -> None:
    parser = command.parser(__doc__)
    parser.add_argument("recording", help="a file; with --row the id of a training row")
    parser.add_argument("out", type=Path, help="a folder for what is to be heard")
    parser.add_argument(
        "--row",
        action="store_true",
        help="copy a row of data/chunks/train as featurize does, with babble of its own chunk",
    )
    told = parser.parse_args()
    given = reader.load(paths.root() / "params.yaml").featurize.augment
    train, recording = paths.root() / paths.CHUNKS / "train", Path(told.recording)
    if told.row:
        chunk, own = find(train, told.recording)
        rows = voices(chunk)
        write_examples(rows[own].as_py(), told.recording, given, rows, own, told.out)
    elif recording.is_file():
        some = next(iter(shards.paths(train)), None) if train.is_dir() else None
        write_examples(
            recording.read_bytes(),
            recording.name,
            given,
            voices(some) if some else None,
            None,
            told.out,
        )
    else:
        raise DataError(
            f"{recording}: not there; want a recording, or the id of a training row and --row"
        )


if __name__ == "__main__":
    exit_with(main)
