"""Recorded digits joined into connected ones: the Free Spoken Digit Dataset, or your own in its
layout, `7_jackson_32.wav`.

A speaker stands in one split, and says all of an utterance. His recordings are dealt like cards,
shuffled by the seed: none comes again before all others of his have come. More rows than before, or
more of another split, leave the first ones as they are. Sound is made when its turn comes, 1 ms an
utterance, at the recordings' own rate; the list of recordings is all that memory holds.
"""

from __future__ import annotations

import io
import os
import random
import re
from collections import deque
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import soundfile

from asr.errors import DataError, ParamsError
from asr.sources.utterances import Corpus, Utterance, UtteranceIterable
from asr.storage.shards import SPLITS

NAME = re.compile(r"([0-9])_([\w.-]+)_([0-9]+)\.wav")
PAUSE_SECONDS = (
    0.05,
    0.3,
)  # between two digits: the recordings are cut close, and people who say a number pause so long
MAX_SECONDS = 10.0  # of one digit
Cast = dict[str, list[Path]]  # recordings by speaker


def read(
    path: Path,
    rows: dict[str, int],
    speakers_validation: list[str],
    speakers_test: list[str],
    min_digits: int,
    max_digits: int,
    seed: int,
    language: str,
) -> Corpus:
    """Deal recordings out to utterances.

    Args:
        path: the folder `recordings`, or the one that holds it.
        rows: how many utterances per split.
        speakers_validation, speakers_test: by name; all others train.
        min_digits, max_digits: least and most per utterance.
        language: Whisper's code; what is said is English.
    Raises:
        BadParams: another language, a speaker in both lists, fewer digits at most than at least.
        BadData: no such recordings, a speaker who is not there or lacks a digit, nobody left to
            train.
    """
    if language != "en":
        raise ParamsError(
            f"download.language: got {language}, want en, which is what the digits are spoken in"
        )
    if min_digits > max_digits:
        raise ParamsError(
            f"download.digits.min_digits: got {min_digits}, want at most max_digits ({max_digits})"
        )
    if both := sorted(set(speakers_validation) & set(speakers_test)):
        raise ParamsError(
            f"download.digits.speakers: {', '.join(both)} cannot both validate and test"
        )
    casts = _casts(
        path, _speakers(path), {"validation": speakers_validation, "test": speakers_test}
    )
    return Corpus(
        about={
            "name": f"connected digits from {path.name}",
            "licence": "CC BY-SA 4.0, if these are the Free Spoken Digit Dataset's recordings",
            "language": language,
            "speakers": {split: list(casts[split]) for split in SPLITS},
        },
        utterances=UtteranceIterable(
            lambda: (
                one
                for split in SPLITS
                for one in _utterances(
                    split, rows[split], casts[split], (min_digits, max_digits), seed
                )
            )
        ),
    )


def _speakers(path: Path) -> Cast:
    """Every speaker's recordings, in the order of names whatever the folder's."""
    place = path / "recordings" if (path / "recordings").is_dir() else path
    if not place.is_dir():
        raise DataError(
            f"{path}: not there; want the folder of the Free Spoken Digit Dataset (download.path)"
        )
    found: Cast = {}
    for name in sorted(
        entry.name for entry in os.scandir(place) if entry.is_file(follow_symlinks=False)
    ):
        if said := NAME.fullmatch(name):
            found.setdefault(said[2], []).append(place / name)
    if not found:
        raise DataError(f"{place}: no recordings named as 7_jackson_32.wav: digit, speaker, number")
    for speaker, recordings in found.items():
        if missing := set("0123456789") - {one.name[0] for one in recordings}:
            raise DataError(
                f"{place}: {speaker} does not say {', '.join(sorted(missing))}; want each of the ten digits at least once"
            )
    return dict(sorted(found.items()))


def _casts(path: Path, known: Cast, held_out: dict[str, list[str]]) -> dict[str, Cast]:
    for split, names in held_out.items():
        if unknown := sorted(set(names) - set(known)):
            raise DataError(
                f"{path}: download.digits.speakers.{split}: no {', '.join(unknown)}; there are {', '.join(known)}"
            )
    taken = {name for names in held_out.values() for name in names}
    if taken >= set(known):
        raise DataError(
            f"{path}: download.digits.speakers: all of {', '.join(known)} validate or test; nobody is left to train"
        )
    chosen = {**held_out, "train": [name for name in known if name not in taken]}
    return {split: {name: known[name] for name in sorted(set(chosen[split]))} for split in SPLITS}


def _utterances(
    split: str, rows: int, cast: Cast, digits: tuple[int, int], seed: int
) -> Iterator[Utterance]:
    """Each by the speaker of whose recordings the smallest share was used so far, so that all are
    used up together.
    """
    draw = random.Random(f"{seed}:{split}:digits")
    packs = {name: _pack(recordings, f"{seed}:{name}") for name, recordings in cast.items()}
    used = dict.fromkeys(cast, 0)
    for index in range(rows):
        speaker = min(cast, key=lambda name: used[name] / len(cast[name]))
        chosen = [next(packs[speaker]) for _ in range(draw.randint(*digits))]
        used[speaker] += len(chosen)
        pauses = [round(draw.uniform(*PAUSE_SECONDS), 3) for _ in chosen[1:]]
        yield Utterance(
            id=f"{split}-{index:05d}",
            split=split,
            text=" ".join(_spelled(int(one.name[0])) for one in chosen),
            audio=partial(join, chosen, pauses),
            speaker=speaker,
            attributes={"digits": len(chosen)},
        )


def _pack(recordings: list[Path], key: str) -> Iterator[Path]:
    """The recordings in a shuffled order, and in another one when all have come."""
    draw, pack = random.Random(key), deque[Path]()
    while True:
        pack.extend(draw.sample(recordings, len(recordings)))
        while pack:
            yield pack.popleft()


def _spelled(digit: int) -> str:
    from num2words import num2words  # 0.1 s, as late as can be

    return str(num2words(digit, lang="en"))


def join(recordings: list[Path], pauses: list[float]) -> bytes:
    """Recordings one after the other, with seconds of silence between.

    Returns:
        FLAC bytes: mono, 16 bit, at the rate of the recordings.
    Raises:
        BadData: one that cannot be read, is not mono, is too long, or has another rate than the
            first.
    """
    parts: list[np.ndarray] = []
    rate = 0
    for path, pause in zip(recordings, [0.0, *pauses], strict=True):
        samples, own = _samples(path)
        if rate and own != rate:
            raise DataError(
                f"{path}: {own} samples a second, want {rate} as in {recordings[0].name}"
            )
        rate = own
        parts += [np.zeros(round(pause * rate), np.int16), samples]
    file = io.BytesIO()
    soundfile.write(file, np.concatenate(parts), rate, "PCM_16", format="FLAC")
    return file.getvalue()


def _samples(path: Path) -> tuple[np.ndarray, int]:
    try:
        with soundfile.SoundFile(path) as file:
            if file.channels != 1 or not 0 < file.frames <= MAX_SECONDS * file.samplerate:
                raise DataError(
                    f"{path}: {file.channels} channels, {file.frames / file.samplerate:.1f} s; want one digit, mono"
                )
            return file.read(dtype="int16"), file.samplerate
    except (soundfile.LibsndfileError, ZeroDivisionError) as error:
        raise DataError(f"{path}: not a recording we can read ({error})") from None
