"""Recorded digits joined into connected ones: the Free Spoken Digit Dataset, or one laid out alike.

A recording's name tells digit, speaker and number: `7_jackson_32.wav`. A speaker stands in one
split, and says all of an utterance. A speaker's recordings are dealt like cards, shuffled by the
seed: none is used again before all the others were. More rows than before, or more of another
split, leave the first ones as they are. Audio is made when its turn comes, 1 ms an utterance, at
the recordings' own rate; memory holds only the list of recordings.
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
# Between two digits: the recordings are cut close, and people who say a number pause so long.
PAUSE_SECONDS = (0.05, 0.3)
MAX_SECONDS = 10.0  # of one digit

Recordings = dict[str, list[Path]]  # by speaker


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
    """Plan utterances from recordings of single digits.

    Args:
        path: the folder `recordings`, or the one that holds it.
        rows: how many utterances per split.
        speakers_validation, speakers_test: by name; all others train.
        min_digits, max_digits: least and most per utterance.
        seed: of the order of recordings, the lengths and the pauses.
        language: Whisper's code; the recordings are English.
    Raises:
        ParamsError: another language, a speaker in both lists, min_digits over max_digits.
        DataError: no such recordings, a speaker who is not there or lacks a digit, nobody left to
            train.
    """
    _check_params(speakers_validation, speakers_test, min_digits, max_digits, language)
    held_out = {"validation": speakers_validation, "test": speakers_test}
    by_split = _by_split(path, _recordings(path), held_out)
    digits = (min_digits, max_digits)
    return Corpus(
        about={
            "name": f"connected digits from {path.name}",
            "licence": "CC BY-SA 4.0, if these are the Free Spoken Digit Dataset's recordings",
            "language": language,
            "speakers": {split: list(by_split[split]) for split in SPLITS},
        },
        utterances=UtteranceIterable(partial(_all_utterances, rows, by_split, digits, seed)),
    )


def _check_params(
    speakers_validation: list[str],
    speakers_test: list[str],
    min_digits: int,
    max_digits: int,
    language: str,
) -> None:
    if language != "en":
        raise ParamsError(
            f"download.language: got {language}, want en, which is what the digits are spoken in"
        )
    if min_digits > max_digits:
        raise ParamsError(
            f"download.digits.min_digits: got {min_digits}, want at most max_digits ({max_digits})"
        )
    both = sorted(set(speakers_validation) & set(speakers_test))
    if both:
        raise ParamsError(
            f"download.digits.speakers: {', '.join(both)} cannot both validate and test"
        )


def _recordings(path: Path) -> Recordings:
    """Every speaker's recordings; speakers and recordings are ordered by name."""
    folder = path / "recordings"
    if not folder.is_dir():
        folder = path
    if not folder.is_dir():
        raise DataError(
            f"{path}: not there; want the folder of the Free Spoken Digit Dataset (download.path)"
        )
    by_speaker: Recordings = {}
    entries = (entry for entry in os.scandir(folder) if entry.is_file(follow_symlinks=False))
    for name in sorted(entry.name for entry in entries):
        match = NAME.fullmatch(name)
        if match:
            _, speaker, _ = match.groups()
            by_speaker.setdefault(speaker, []).append(folder / name)
    if not by_speaker:
        raise DataError(
            f"{folder}: no recordings named as 7_jackson_32.wav: digit, speaker, number"
        )
    for speaker, recordings in by_speaker.items():
        missing = set("0123456789") - {recording.name[0] for recording in recordings}
        if missing:
            raise DataError(
                f"{folder}: {speaker} does not say {', '.join(sorted(missing))}; "
                "want each of the ten digits at least once"
            )
    return dict(sorted(by_speaker.items()))


def _by_split(
    path: Path, by_speaker: Recordings, held_out: dict[str, list[str]]
) -> dict[str, Recordings]:
    """Give each split its speakers; those who are not held out train."""
    everybody = ", ".join(by_speaker)
    for split, names in held_out.items():
        unknown = sorted(set(names) - set(by_speaker))
        if unknown:
            raise DataError(
                f"{path}: download.digits.speakers.{split}: no {', '.join(unknown)}; "
                f"there are {everybody}"
            )
    taken = {name for names in held_out.values() for name in names}
    if taken >= set(by_speaker):
        raise DataError(
            f"{path}: download.digits.speakers: all of {everybody} validate or test; "
            "nobody is left to train"
        )
    speakers = {**held_out, "train": [name for name in by_speaker if name not in taken]}
    return {
        split: {name: by_speaker[name] for name in sorted(set(speakers[split]))} for split in SPLITS
    }


def _all_utterances(
    rows: dict[str, int], by_split: dict[str, Recordings], digits: tuple[int, int], seed: int
) -> Iterator[Utterance]:
    for split in SPLITS:
        yield from _utterances(split, rows[split], by_split[split], digits, seed)


def _utterances(
    split: str, rows: int, by_speaker: Recordings, digits: tuple[int, int], seed: int
) -> Iterator[Utterance]:
    """Yield the utterances of a split.

    Each is by the speaker of whose recordings the smallest share was used so far, so that the
    recordings of all are used up together.
    """
    draw = random.Random(f"{seed}:{split}:digits")
    decks = {name: _deck(recordings, f"{seed}:{name}") for name, recordings in by_speaker.items()}
    used = dict.fromkeys(by_speaker, 0)
    for index in range(rows):
        speaker = min(by_speaker, key=lambda name: used[name] / len(by_speaker[name]))
        count = draw.randint(*digits)
        recordings = [next(decks[speaker]) for _ in range(count)]
        used[speaker] += count
        pauses = [round(draw.uniform(*PAUSE_SECONDS), 3) for _ in recordings[1:]]
        words = [_spell(int(recording.name[0])) for recording in recordings]
        yield Utterance(
            id=f"{split}-{index:05d}",
            split=split,
            text=" ".join(words),
            audio=partial(join, recordings, pauses),
            speaker=speaker,
            attributes={"digits": count},
        )


def _deck(recordings: list[Path], key: str) -> Iterator[Path]:
    """Yield the recordings in a shuffled order, and once all have come, in another; without end."""
    draw = random.Random(key)
    deck = deque[Path]()
    while True:
        deck.extend(draw.sample(recordings, len(recordings)))
        while deck:
            yield deck.popleft()


def _spell(digit: int) -> str:
    from num2words import num2words  # takes 0.1 s, so it is imported as late as possible

    return str(num2words(digit, lang="en"))


def join(recordings: list[Path], pauses: list[float]) -> bytes:
    """Join recordings, with silence between them.

    Args:
        pauses: seconds; one less than there are recordings.
    Returns:
        FLAC bytes: mono, 16 bit, at the rate of the recordings.
    Raises:
        DataError: one that cannot be read, is not mono, is too long, or has another rate than the
            first.
    """
    pieces: list[np.ndarray] = []
    rate = 0
    for path, pause in zip(recordings, [0.0, *pauses], strict=True):
        samples, own_rate = _samples(path)
        if rate and own_rate != rate:
            raise DataError(
                f"{path}: {own_rate} samples a second, want {rate} as in {recordings[0].name}"
            )
        rate = own_rate
        silence = np.zeros(round(pause * rate), np.int16)
        pieces += [silence, samples]
    file = io.BytesIO()
    soundfile.write(file, np.concatenate(pieces), rate, "PCM_16", format="FLAC")
    return file.getvalue()


def _samples(path: Path) -> tuple[np.ndarray, int]:
    """Samples, (S,) int16, and their rate."""
    try:
        with soundfile.SoundFile(path) as file:
            if file.channels != 1 or not 0 < file.frames <= MAX_SECONDS * file.samplerate:
                seconds = file.frames / file.samplerate
                raise DataError(
                    f"{path}: {file.channels} channels, {seconds:.1f} s; want one digit, mono"
                )
            return file.read(dtype="int16"), file.samplerate
    except (soundfile.LibsndfileError, ZeroDivisionError) as error:
        raise DataError(f"{path}: not a recording we can read ({error})") from None
