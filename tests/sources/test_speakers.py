"""Whatever the speaker's column is called, no voice stands in two splits; where none tells the
voices apart, that is said, with what could.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from asr.sources import folder, selection, speakers
from asr.sources.selection import MAIN, Selection
from asr.sources.utterances import Utterance
from asr.storage.shards import SPLITS
from support.sources import disjoint

VOICES = [f"m{number % 60}" for number in range(180)]
NAMED = (
    *("speaker", "client_id", "spk", "spk_id", "speaker_name", "user_id", "reader", "participant"),
    *("SPEAKER", "Speaker ID", "speaker-id", "SpeakerId", "Client Id", "user", "narrator", "voice"),
)
NOT_NAMED = ("speakers", "n_speakers", "speaker_gender", "speaker_count", "loudspeaker", "name")


def rows_with(**columns: list[Any]) -> list[dict[str, Any]]:
    return [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]


@pytest.mark.parametrize("name", [*NAMED, *NOT_NAMED])
def test_the_usual_names_are_understood_in_whatever_case(name: str) -> None:
    choice = speakers.choose(rows_with(**{name: VOICES}))
    expected = f"the column {name} tells the voices apart, 60 of them"
    if name in NOT_NAMED:
        assert choice == speakers.Choice(None)
    else:
        assert choice == speakers.Choice(name, expected)


ONE, EACH = ["anna"] * 180, [f"u{number}" for number in range(180)]
GENDERS = ["Female", "male", ""] * 60
COUNTS: list[Any] = [1, 2] * 90
# Columns, which is taken, and what is said of another.
CHOICES: dict[str, tuple[dict[str, list[Any]], str | None, str]] = {
    "ours, whatever it holds": ({"speaker": VOICES, "speaker_id": ONE}, "speaker_id", ""),
    "ours in some rows": ({"spk": VOICES, "speaker_id": ["", None, 7] * 60}, "speaker_id", ""),
    "ours in no row": ({"spk": VOICES, "speaker_id": [None] * 180}, "spk", "spk tells the"),
    "ours alone, in no row": ({"speaker_id": ["None"] * 180}, "speaker_id", ""),
    "the same in all rows": ({"speaker": ONE}, None, "speaker tells none: it is the same in all"),
    "another in every row": ({"user": EACH}, None, "user tells none: it is another in every row"),
    "one alone": ({"speaker": ["anna"] + [None] * 179}, "speaker", "1 of them"),
    "a gender": ({"speaker": GENDERS}, None, "speaker tells none: it holds genders"),
    "a gender and a voice": ({"speaker": GENDERS, "user": VOICES}, "user", "speaker tells none"),
    "a count and a voice": ({"speaker": COUNTS, "reader": VOICES}, "reader", "reader tells the"),
    "a count and an id": ({"speaker": COUNTS, "spk_id": EACH[:90] * 2}, "spk_id", "spk_id tells"),
    "numbers alone": ({"speaker": [number % 60 for number in range(180)]}, "speaker", "60 of"),
    "an id and a name": ({"speaker_name": VOICES, "client_id": VOICES}, "client_id", "60 of them"),
    "yes and no": ({"voice": [True, False] * 90}, None, "voice tells none"),
    "holes": ({"spk": [float("nan"), "a", "b", "None", "a", ""] * 30}, "spk", "2 of them"),
}


@pytest.mark.parametrize("kind", CHOICES)
def test_of_several_columns_the_one_that_tells_voices_is_taken(kind: str) -> None:
    columns, expected, said = CHOICES[kind]
    choice = speakers.choose(rows_with(**columns))
    assert choice.column == expected
    assert said in choice.note if said else not choice.note


def table(place: Path, rows: list[dict[str, Any]]) -> Path:
    place.mkdir()
    with (place / "metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return place


@pytest.mark.parametrize("name", ["speaker_id", "speaker", "Client ID", "none"])
def test_voices_of_a_table_whose_speaker_is_called_otherwise_are_in_one_split(
    tmp_path: Path, name: str
) -> None:
    files = [f"{number}.wav" for number in range(180)]
    rows = rows_with(**{"file_name": files, "text": files, name: VOICES, "age": VOICES})
    corpus = folder.read(table(tmp_path / "mine", rows), tmp_path)
    taken = Selection("mine", MAIN, 1.0, [], None, seed=1)
    counts = selection.survey(corpus.utterances, taken)
    placed = list(selection.select(corpus.utterances, taken, counts))
    heard = [
        {VOICES[int(one.text[:-4])] for one in placed if one.split == split} for split in SPLITS
    ]
    assert disjoint(dict(zip(SPLITS, heard, strict=True))) == (name != "none")
    assert {one.attributes["age"] for one in placed} == set(VOICES), "others stay attributes"
    assert name == "none" or not any(name in one.attributes for one in placed)
    is_told = name in ("speaker", "Client ID")
    assert (corpus.about.get("speaker_column") == name) == bool(corpus.note) == is_told
    assert bool(speakers.warning(counts.voices, corpus.utterances)) == (name == "none")


def utterance(
    id: str, speaker: str | None = None, split: str | None = None, **attributes: Any
) -> Utterance:
    return Utterance(id, split, "text", lambda: None, speaker, attributes)


def dialect(number: int) -> str:
    return "north" if number % 2 else "south"


# What is known of 12 rows, and what is said of it; nothing where the voices are kept apart.
WARNINGS: dict[str, tuple[list[Utterance], list[str]]] = {
    "speakers": ([utterance(f"{n}", f"s{n % 4}") for n in range(12)], []),
    "splits": ([utterance(f"{n}", split="train") for n in range(12)], []),
    "no speaker, no column": (
        [utterance(f"{n}.wav") for n in range(12)],
        ["no row names a speaker", "what could tell them: nothing that was found"],
    ),
    "no speaker, and columns": (
        [utterance(f"{n}.wav", dialect=dialect(n), who=f"w{n % 4}", at=n) for n in range(12)],
        ["what could tell them: who (4, such as w0), dialect (2, such as north)"],
    ),
    "a gender and a number of its own are no clues": (
        [utterance(f"{n}.wav", sex="mf"[n % 2], at=n, all="same") for n in range(12)],
        ["what could tell them: nothing that was found"],
    ),
    "the voice in the file's name": (
        [utterance(f"m{n % 3}-{n}.mp3") for n in range(12)],
        ["no row names a speaker", "how the file's name begins (3, such as m0)"],
    ),
    "the voice before digits": (
        [utterance(f"{'ab'[n % 2]}{n}.mp3") for n in range(12)],
        ["how the file's name begins (2, such as a)"],
    ),
    "the voice in the folder": (
        [utterance(f"m{n % 3}/{n}.mp3") for n in range(12)],
        ["the folder (3, such as m0)"],
    ),
    "speakers of some rows": (
        [utterance(f"{n}.wav", "anna" if n % 3 else None) for n in range(12)],
        ["4 of 12 rows name no speaker"],
    ),
    "a speaker of its own in each row": (
        [utterance(f"{n}.wav", f"u{n}") for n in range(12)],
        ["each row names a speaker of its own"],
    ),
    "what cannot be printed": (
        [utterance(f"{n}.wav", **{"a\udcff": "\udcff\n" * (1 + n % 2)}) for n in range(12)],
        ["a\ufffd (2, such as \ufffd\ufffd)"],
    ),
}


@pytest.mark.parametrize("kind", WARNINGS)
def test_where_nothing_tells_the_voices_apart_that_is_said_with_what_could(kind: str) -> None:
    rows, expected = WARNINGS[kind]
    voices = speakers.Voices()
    for row in rows:
        voices.add(row)
    said = speakers.warning(voices, rows)
    assert all(one in said for one in expected), said
    assert bool(said) == bool(expected)
    assert not said or said.startswith("voices cannot be kept apart: ")
    said.encode()


# Folders on top with a recording of a speaker `bo` each, and the splits that they are.
FOLDERS: dict[str, dict[str, str | None]] = {
    "ours": {"train": "train", "validation": "validation", "test": "test"},
    "ours beside people": {"train": "train", "test": "test", "anna": None},
    "dev": {"train": "train", "dev": "validation", "test": "test"},
    "val and eval": {"training": "train", "val": "validation", "eval": "test"},
    "in capitals": {"Train": "train", "VALID": "validation", "Test": "test"},
    "dev and eval alone": {"dev": "validation", "eval": "test"},
    "people, of whom one is called Dev": {"anna": None, "bo": None, "dev": None, "Val": None},
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_folders_named_as_splits_are_splits_and_no_speakers(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "mine"
    for name in FOLDERS[kind]:
        (place / name / "bo").mkdir(parents=True)
        for suffix in ("wav", "txt"):
            (place / name / "bo" / f"a.{suffix}").write_text("x")
    corpus = folder.read(place, tmp_path)
    found = {one.id.partition("/")[0]: (one.split, one.speaker) for one in corpus.utterances}
    assert found == {
        name: (split, "bo" if split else name) for name, split in FOLDERS[kind].items()
    }
    others = [
        f"{split} ({name})" for name, split in FOLDERS[kind].items() if split and split != name
    ]
    assert all(one in corpus.note for one in others)
    assert bool(corpus.note) == bool(others)
