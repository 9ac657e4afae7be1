"""Make copies of training recordings that sound different: speed, room, noise, loudness.

    earshot augment RECORDING OUT    # write before.wav, copy-1.wav ..., and print what was drawn
    earshot augment --row ID OUT     # the same for a training row, as featurize makes its copies

A copy is a pure function of (seed, id, copy) and of what is mixed in. Each kind of change has a
random generator of its own, so turning one on changes no other. Noise is a recording of a folder,
or babble: other rows of the same chunk file, so that a corpus that grows changes no earlier chunk.
Costs 3 ms for a clip of 5 s, and one decoding for each voice of a babble.
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

READ_BLOCKS = 4  # blocks of a recording that is mixed in: its first two minutes, 8 MB
CACHED_RECORDINGS = 4  # recordings to mix in that each process keeps in memory
EXAMPLE_COPIES = 3  # copies that are written where `featurize.augment.copies` is 0
FRAME = SAMPLE_RATE // 50  # 20 ms, in which a voice's power is constant
# Speech lies at most this far below the loudest frame; pauses of clean recordings lie lower.
ACTIVE_DB = 25.0

NamedSound = tuple[str, np.ndarray]
# Draws noise of so many samples; None if there is nothing to draw from.
Noises = Callable[[np.random.Generator, int], NamedSound | None]
# Draws the impulse response of a room.
Responses = Callable[[np.random.Generator], NamedSound]


@dataclass(frozen=True)
class AugmentationRecord:
    """What was drawn for a copy; None for each kind of change that it does not have."""

    speed: float | None = None
    room: str | None = None
    noise: str | None = None
    snr_db: float | None = None
    gain_db: float | None = None

    def text(self) -> str:
        """What was drawn, as one line."""
        speed = f"speed {self.speed:.3f}" if self.speed is not None else ""
        noise = f"{self.noise} at {self.snr_db:.1f} dB SNR" if self.noise is not None else ""
        gain = f"gain {self.gain_db:+.1f} dB" if self.gain_db is not None else ""
        parts = [part for part in (speed, self.room, noise, gain) if part]
        return ", ".join(parts) or "nothing was drawn"


def augmented(
    samples: np.ndarray,
    id: str,
    copy: int,
    params: schema.Augment,
    noises: Noises,
    responses: Responses,
) -> tuple[np.ndarray, AugmentationRecord]:
    """Make one copy of a recording: change its speed, then add a room, noise and a gain.

    Args:
        samples: (S,) float32, 16 kHz.
        copy: 1, 2, ...
        noises: draws noise; if it returns None, the copy has no noise.
        responses: draws the impulse response of a room.
    Returns:
        (S / speed,) float32, and what was drawn.
    """
    generator_for = partial(_generator, params.seed, f"{copy}:{id}")
    speed = room = noise = snr_db = gain_db = None
    if draw := generator_for("speed", params.speed.probability):
        speed = draw.uniform(params.speed.min, params.speed.max)
        samples = at_speed(samples, speed)
    if draw := generator_for("reverberation", params.reverberation.probability):
        room, response = responses(draw)
        samples = in_room(samples, response)
    if draw := generator_for("noise", params.noise.probability):
        drawn_snr_db = draw.uniform(params.noise.min_snr_db, params.noise.max_snr_db)
        if named_noise := noises(draw, len(samples)):
            noise, noise_samples = named_noise
            snr_db = drawn_snr_db
            samples = in_noise(samples, noise_samples, snr_db)
    if draw := generator_for("gain", params.gain.probability):
        gain_db = draw.uniform(params.gain.min_db, params.gain.max_db)
        samples = at_gain(samples, gain_db)
    return samples, AugmentationRecord(speed, room, noise, snr_db, gain_db)


def _generator(seed: int, key: str, kind: str, probability: float) -> np.random.Generator | None:
    """A generator for one kind of change of one copy; None if this copy is not to have it."""
    digest = hashlib.sha256(f"{seed}:{kind}:{key}".encode(errors="surrogateescape")).digest()
    draw = np.random.default_rng(int.from_bytes(digest, "big"))
    return draw if draw.random() < probability else None


def recordings(folder: str | None, probability: float) -> list[Path] | None:
    """Return the recordings of a folder that may be mixed in, sorted.

    None if params name no folder, or the probability is 0.

    Raises:
        ParamsError: a folder without recordings.
    """
    if folder is None or not probability:
        return None
    below = paths.resolve(folder).rglob("*")
    matches = [path for path in below if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file()]
    if not matches:
        raise ParamsError(
            f"featurize.augment: {folder} holds no recording; "
            "want a folder, from the top of the repository"
        )
    return sorted(matches)


def responses_of(params: schema.Augment, recorded: list[Path] | None) -> Responses:
    """Return a function that draws the impulse response of a room.

    Args:
        recorded: files of impulse responses; without them rooms are synthetic, with an RT60 in the
            range of params.
    """
    reverberation = params.reverberation

    def responses(draw: np.random.Generator) -> NamedSound:
        if recorded:
            return _one_of(draw, recorded)
        rt60 = draw.uniform(reverberation.min_rt60_seconds, reverberation.max_rt60_seconds)
        return f"room with RT60 {rt60:.2f} s", room_response(draw, rt60)

    return responses


def noises_of(
    params: schema.Augment,
    recorded: list[Path] | None,
    rows: pa.ChunkedArray | None,
    own: int | None,
) -> Noises:
    """Return a function that draws noise: a stretch of a recording, or babble of several rows.

    Args:
        recorded: recordings of noise; without them the noise is babble.
        rows: encoded recordings of which babble is made.
        own: index of the row that the noise is mixed into, which is not used for babble.
    """
    num_rows = len(rows) if rows is not None else 0
    others = [row for row in range(num_rows) if row != own]

    def noises(draw: np.random.Generator, length: int) -> NamedSound | None:
        if recorded:
            name, noise = _one_of(draw, recorded)
            return name, stretch(draw, noise, length)
        if rows is None or not others:
            return None
        num_voices = min(params.noise.babble_voices, len(others))
        voice_rows = draw.choice(others, num_voices, replace=False)
        voices = [_voice(draw, rows[int(row)].as_py(), length) for row in voice_rows]
        return f"babble of {num_voices}", np.sum(voices, axis=0)

    return noises


def _voice(draw: np.random.Generator, encoded: bytes, length: int) -> np.ndarray:
    """(length,) one voice of a babble, as loud as the others."""
    samples = codec.decode(encoded)
    return stretch(draw, samples, length) / np.float32(max(np.sqrt(speech_power(samples)), 1e-9))


def _one_of(draw: np.random.Generator, recorded: list[Path]) -> NamedSound:
    """Draw one of the files; return its name and samples."""
    path = recorded[int(draw.integers(len(recorded)))]
    return path.name, _read(path)


@lru_cache(CACHED_RECORDINGS)
def _read(path: Path) -> np.ndarray:
    """(S,) the first two minutes of a recording that is mixed in."""
    try:
        with path.open("rb") as file:
            return np.concatenate(list(islice(codec.blocks(file), READ_BLOCKS)))
    except (codec.Undecodable, OSError) as error:
        raise DataError(f"{path}: cannot be mixed in: {error}; take it out of the folder") from None


def encoded_recordings(chunk: Path) -> pa.ChunkedArray:
    """The encoded recordings of a chunk file, memory-mapped."""
    return pa.Table.from_batches(list(shards.batches(chunk, ["audio"])))["audio"]


def find(split: Path, id: str) -> tuple[Path, int]:
    """Return the chunk file of a row, and its index there.

    Raises:
        DataError: no row has this id.
    """
    for chunk in shards.paths(split):
        batches = shards.batches(chunk, ["id"])
        ids = [row_id for batch in batches for row_id in batch["id"].to_pylist()]
        if id in ids:
            return chunk, ids.index(id)
    raise DataError(
        f"no training row has the id {id}; data/chunks/train holds those that were kept"
    )


def write_examples(
    encoded: bytes,
    id: str,
    params: schema.Augment,
    rows: pa.ChunkedArray | None,
    own: int | None,
    out: Path,
) -> None:
    """Write a recording and its copies as WAV files of 16 kHz, and print what was drawn.

    Args:
        rows, own: as in `noises_of`.
    """
    samples = codec.decode(encoded)
    noise, room = params.noise, params.reverberation
    noises = noises_of(params, recordings(noise.folder, noise.probability), rows, own)
    responses = responses_of(params, recordings(room.folder, room.probability))
    _write(out / "before.wav", samples)
    for copy in range(1, (params.copies or EXAMPLE_COPIES) + 1):
        changed, drawn = augmented(samples, id, copy, params, noises, responses)
        _write(out / f"copy-{copy}.wav", changed)
        print(f"copy-{copy}.wav: {drawn.text()}")


def _write(path: Path, samples: np.ndarray) -> None:
    """Write a WAV file of floating-point samples, which may exceed 1."""
    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLE_RATE, "FLOAT", format="WAV")
    files.write_bytes(path, file.getvalue())


def at_speed(samples: np.ndarray, factor: float) -> np.ndarray:
    """(S / factor,) the sound played `factor` times as fast; its pitch rises too, as in Kaldi."""
    played: np.ndarray = soxr.resample(samples, SAMPLE_RATE * factor, SAMPLE_RATE)
    return played


def at_gain(samples: np.ndarray, gain_db: float) -> np.ndarray:
    """(S,) the sound louder by `gain_db`. Samples beyond 1 stay: features do not clip them."""
    return samples * np.float32(10 ** (gain_db / 20))


def speech_power(samples: np.ndarray) -> float:
    """Mean square over the frames with speech: those within 25 dB of the loudest.

    If pauses counted, a clip with long pauses would have a low power, and the noise mixed into its
    words would be fainter than intended.
    """
    whole = samples[: len(samples) // FRAME * FRAME] if len(samples) >= FRAME else samples
    frames = whole.reshape(-1, min(FRAME, len(whole)))
    power = np.square(frames, dtype=np.float64).mean(1)
    is_active = power >= power.max() * 10 ** (-ACTIVE_DB / 10)
    return float(power[is_active].mean())


def in_noise(samples: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """(S,) with noise (S,) added, scaled so that speech has `snr_db` more power than the noise.

    Silence stays as it is.
    """
    speech = speech_power(samples)
    power = float(np.square(noise, dtype=np.float64).mean())
    if not speech or not power:
        return samples
    return samples + noise * np.float32(np.sqrt(speech / power / 10 ** (snr_db / 10)))


def in_room(samples: np.ndarray, response: np.ndarray) -> np.ndarray:
    """(S,) the sound in a room, as loud as before.

    The direct sound, which is the response's peak, stays at its time; reverberation after the last
    sample is cut.

    Args:
        response: (R,) the room's impulse response.
    """
    response = response[int(np.abs(response).argmax()) :]
    length = scipy.fft.next_fast_len(len(samples) + len(response) - 1, real=True)
    spectrum = scipy.fft.rfft(samples, length) * scipy.fft.rfft(response.astype(np.float32), length)
    convolved = scipy.fft.irfft(spectrum, length)[: len(samples)]
    before = speech_power(samples)
    after = speech_power(convolved)
    return convolved * np.float32(np.sqrt(before / after)) if after else samples


def room_response(draw: np.random.Generator, rt60: float) -> np.ndarray:
    """(R,) a synthetic impulse response: a click, then noise that falls by 60 dB in `rt60` seconds.

    Both have the same energy, as at the room's critical distance. Source: Polack 1988, the
    statistical model of reverberation.
    """
    time = np.arange(1, max(round(rt60 * SAMPLE_RATE), 2)) / SAMPLE_RATE
    tail = draw.standard_normal(len(time)) * 10 ** (-3 * time / rt60)
    return np.concatenate([[1.0], tail / np.linalg.norm(tail)]).astype(np.float32)


def stretch(draw: np.random.Generator, samples: np.ndarray, length: int) -> np.ndarray:
    """(length,) part of a recording from a random start; a shorter recording is repeated."""
    num_starts = len(samples) - length + 1 if len(samples) >= length else len(samples)
    start = int(draw.integers(num_starts))
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
    arguments = parser.parse_args()
    params = reader.load(paths.root() / "params.yaml").featurize.augment
    train = paths.root() / paths.CHUNKS / "train"
    if arguments.row:
        _write_row_examples(arguments.recording, params, train, arguments.out)
    else:
        _write_file_examples(Path(arguments.recording), params, train, arguments.out)


def _write_row_examples(id: str, params: schema.Augment, train: Path, out: Path) -> None:
    """Write the examples of a training row, with babble of its own chunk."""
    chunk, own = find(train, id)
    rows = encoded_recordings(chunk)
    write_examples(rows[own].as_py(), id, params, rows, own, out)


def _write_file_examples(recording: Path, params: schema.Augment, train: Path, out: Path) -> None:
    """Write the examples of a file, with babble of the first training chunk, if there is one."""
    if not recording.is_file():
        raise DataError(
            f"{recording}: not there; want a recording, or the id of a training row and --row"
        )
    chunk = next(iter(shards.paths(train)), None) if train.is_dir() else None
    rows = encoded_recordings(chunk) if chunk else None
    write_examples(recording.read_bytes(), recording.name, params, rows, None, out)


if __name__ == "__main__":
    exit_with(main)
