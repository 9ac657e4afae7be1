"""What every source gives: a corpus of utterances, each with a way to fetch its audio.

A source's `read(...)` returns a `Corpus`: what is known about it, and its utterances. An utterance
is light: its audio is fetched by calling `audio()` when its turn comes. No source holds a list of
its rows, so a corpus of any size passes through in the memory of one recording.
"""

from __future__ import annotations

import errno
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Our splits, and the names that others give them.
SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "dev", "valid", "val", "development"),
    "test": ("test", "eval", "evaluation", "testing"),
}


@dataclass(frozen=True)
class Utterance:
    """One recording with its transcript.

    Attributes:
        id: unique in its corpus.
        split: train, validation or test; None where the source gives none, so that we split by
            speaker.
        text: the transcript; empty where there is none.
        audio: returns the encoded bytes, or None where the recording is missing.
        speaker: None where it is not known.
        attributes: what else the source says of the utterance: age, gender, accent, ...
        duration: seconds, as the source says; None where it says nothing.
    """

    id: str
    split: str | None
    text: str
    audio: Callable[[], bytes | None]
    speaker: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    duration: float | None = None


@dataclass(frozen=True)
class UtteranceIterable:
    """Utterances in the corpus's own order, read again in each loop over them."""

    read: Callable[[], Iterator[Utterance]]

    def __iter__(self) -> Iterator[Utterance]:
        return self.read()


@dataclass(frozen=True)
class Corpus:
    """The utterances of one source.

    Attributes:
        about: goes into the manifest: name, licence, counts that a person should see.
        utterances: all of them.
        note: what else a person should read before the work; empty where there is nothing.
    """

    about: dict[str, Any]
    utterances: UtteranceIterable
    note: str = ""


def split_named(name: str) -> str | None:
    """Our split of a name that others give it, in whatever case; None where it is no such name."""
    names = SPLIT_NAMES.items()
    return next((ours for ours, theirs in names if name.casefold() in theirs), None)


def read_bytes(path: Path) -> bytes | None:
    """Read a file; None where it is not there, or the name is too long for any file.

    Some systems store an accented letter as one character, others as letter and accent. A name is
    found under either spelling.
    """
    normal_forms = [Path(unicodedata.normalize(form, str(path))) for form in ("NFC", "NFD")]
    try:
        for spelling in (path, *normal_forms):
            if spelling.is_file():
                return spelling.read_bytes()
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
    return None


def one_line(text: str) -> str:
    """Put a text on one line, with single spaces between words."""
    return " ".join(text.split())
