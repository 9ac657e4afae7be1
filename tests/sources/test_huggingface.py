"""Data sets of the hub, read by the real client from a hub on 127.0.0.1: four families in their own
layouts, and all that can go wrong.
"""

from __future__ import annotations

import io
import json
import logging
import os
import pickle
import random
import signal
import subprocess
import sys
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from asr import paths
from asr.audio.codec import decode
from asr.errors import DataError, DiskError, NetworkError, ParamsError, UserError
from asr.sources import hub, huggingface
from asr.sources.utterances import Corpus
from asr.storage.shards import SPLITS
from stages import download
from support.data import encoded, load, voice
from support.hub import (
    PAGE,
    Hub,
    busy,
    commit_of,
    cut,
    flipped,
    served,
    sha256,
    stuck,
    web_page,
    whole,
)
from support.repository import REPOSITORY

AUDIO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
SOUNDS = [encoded(voice(0.1, seed=seed), format="FLAC") for seed in range(4)]
TOKEN = "hf_DoNotShowMeToAnybody"
Row = dict[str, Any]


def parquet(
    rows: list[Row],
    features: dict[str, Any] | None = None,
    types: dict[str, pa.DataType] | None = None,
) -> bytes:
    """A file as `datasets` writes it: sound as bytes and path, row groups, and the features beside
    the schema.
    """
    types = {"audio": AUDIO, **(types or {})}
    columns = {name: pa.array([row[name] for row in rows], types.get(name)) for name in rows[0]}
    told = {"audio": {"sampling_rate": 16000, "_type": "Audio"}, **(features or {})}
    table = pa.table(columns).replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": told}})}
    )
    file = io.BytesIO()
    pq.write_table(table, file, row_group_size=2)
    return file.getvalue()


def sound(number: int, path: str | None = None) -> Row:
    return {"bytes": SOUNDS[number % 4] + str(number).encode(), "path": path}


def mirror_row(number: int) -> Row:
    """Of a Common Voice mirror."""
    path = f"common_voice_sv-SE_{number}.mp3"
    row = {
        "client_id": f"client-{number % 3}",
        "path": path,
        "audio": sound(number, path),
        "sentence": f'"Mening" nummer {number}.',
    }
    return row | {
        "up_votes": 2,
        "down_votes": 0,
        "age": "twenties",
        "gender": "",
        "accent": None,
        "locale": "sv-SE",
        "segment": "",
    }


def mirror(splits: dict[str, list[int]]) -> dict[str, bytes]:
    """One with a card that names its files; two numbers a file."""
    card = "---\nlicense: cc0-1.0\nconfigs:\n- config_name: sv-SE\n  data_files:\n"
    made = {}
    for split, numbers in splits.items():
        card += f"  - split: {split}\n    path: sv-SE/{split}-*\n"
        pairs = [numbers[at : at + 2] for at in range(0, len(numbers), 2)]
        for at, pair in enumerate(pairs):
            made[f"sv-SE/{split}-{at:05d}-of-{len(pairs):05d}.parquet"] = parquet(
                [mirror_row(number) for number in pair]
            )
    return made | {"README.md": f"{card}---\n# A mirror".encode(), "sv-SE/notes.txt": b"no parquet"}


MIRROR = mirror({"train": [0, 1, 2, 3, 4], "validation": [5, 6], "test": [7], "other": [8]})
NAME = "someone/common_voice_17_0"
LISTING = [
    lambda one: one.work()
] * 4  # what the mirror is asked before its first file: its commit, and three pages of its files


def fleurs_row(number: int) -> Row:
    """Of google/fleurs as the hub converted it: the id is the sentence's, the path is that of the
    machine that converted.
    """
    path = f"/storage/hf-datasets-cache/extracted/0f/{number}14.wav"
    row = {
        "id": 7,
        "num_samples": 1600,
        "path": path,
        "audio": sound(number, f"train/{number}14.wav"),
        "transcription": f"mening {number}",
    }
    return row | {
        "raw_transcription": f"Mening {number}!",
        "gender": number % 3,
        "lang_id": 1,
        "language": "Swedish",
    }


def fleurs() -> dict[str, Any]:
    features = {"gender": {"names": ["male", "female", "other"], "_type": "ClassLabel"}}
    types = {"gender": pa.int64()}
    converted = {
        f"{config}/{split}/0000.parquet": parquet(
            [fleurs_row(number) for number in numbers], features, types
        )
        for config in ("sv_se", "de_de")
        for split, numbers in (
            ("partial-train" if config == "de_de" else "train", [0, 1, 2]),
            ("validation", [3]),
            ("test", [4]),
        )
    }
    main = {
        "README.md": b"---\nlicense:\n- cc-by-4.0\n---\n",
        "fleurs.py": b"raise SystemExit",
        "data/sv_se/audio/train.tar.gz": b"tar",
    }
    return {"main": main, "refs/convert/parquet": converted}


def mls_row(number: int) -> Row:
    row = {
        "audio": sound(number, f"10_{number}.opus"),
        "original_path": "http://a/b.mp3",
        "begin_time": 1.5,
        "end_time": float("nan"),
    }
    row |= {
        "transcript": f"a sentence {number}",
        "audio_duration": 0.1,
        "speaker_id": str(number % 2),
        "chapter_id": "8687",
    }
    return row | {"file": f"10_{number}.opus", "id": f"10_8687_{number}"}


def mls() -> dict[str, bytes]:
    card = b"---\nlicense: cc-by-4.0\nconfigs:\n- config_name: dutch\n  data_files:\n"
    numbers = {"dev": [0], "test": [1], "train": [2, 3], "9_hours": [4], "1_hours": [5]}
    for split in numbers:
        card += f"  - split: {split}\n    path: dutch/{split}-*\n".encode()
    card += b"- config_name: no\n  data_files: no/**\n---\n"
    made = {
        f"dutch/{split}-00000-of-00001.parquet": parquet([mls_row(one) for one in some])
        for split, some in numbers.items()
    }
    return made | {"README.md": card, "no/a.parquet": parquet([mls_row(9)])}


def voxpopuli_row(number: int) -> Row:
    row = {
        "audio_id": f"2018-PLENARY-{number}",
        "language": 16,
        "audio": sound(number, f"{number}.wav"),
        "raw_text": "",
    }
    return row | {
        "normalized_text": f"herr talman {number}",
        "gender": "female",
        "speaker_id": "None",
        "is_gold_transcript": True,
    }


def voxpopuli() -> dict[str, Any]:
    splits = {"train": [0, 1], "validation": [2], "test": [3]}
    converted = {
        f"sv/{split}/0000.parquet": parquet([voxpopuli_row(one) for one in some])
        for split, some in splits.items()
    }
    return {
        "main": {"voxpopuli.py": b"", "README.md": b"no card"},
        "refs/convert/parquet": converted,
    }


REPOSITORIES: dict[str, Any] = {
    NAME: {"main": MIRROR, "v0": mirror({"train": [0], "validation": [1], "test": [2]})},
    "google/fleurs": fleurs(),
    "facebook/multilingual_librispeech": {"main": mls()},
    "facebook/voxpopuli": voxpopuli(),
    "someone/script": {"main": {"script.py": b"", "README.md": b"---\n: [\n---\n"}},
}


@pytest.fixture(scope="module")
def served_once() -> Iterator[Hub]:
    with served(REPOSITORIES) as one:
        yield one


@pytest.fixture(autouse=True)
def there(served_once: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The hub without faults, as new; nobody waits, and nobody has a token."""
    monkeypatch.setenv("HF_ENDPOINT", served_once.uri)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(hub, "PAUSE_SECONDS", 0)
    for module in (huggingface_hub.utils._http, huggingface_hub.file_download):
        monkeypatch.setattr(module, "time", SimpleNamespace(sleep=lambda _: None))
    for one in (served_once, served_once.cdn):
        one.faults.clear()
        one.asked.clear()
    (
        served_once.gated,
        served_once.private,
        served_once.barred,
        served_once.token,
        served_once.sizes,
    ) = set(), set(), set(), "", {}
    served_once.repositories = dict(REPOSITORIES)
    return served_once


def read(name: str = NAME, config: str | None = None, **given: Any) -> Corpus:
    return huggingface.read(
        name,
        config,
        **{"revision": None, "splits": None, "columns": None, "max_rows": None, **given},
    )


def listed(corpus: Corpus) -> list[tuple[Any, ...]]:
    return [
        (one.id, one.split, one.text, one.speaker, one.duration, one.audio())
        for one in corpus.utterances
    ]


def wanted(number: int, split: str | None) -> tuple[Any, ...]:
    """The mirror's row as an utterance."""
    row = mirror_row(number)
    return row["path"], split, row["sentence"], row["client_id"], None, row["audio"]["bytes"]


WHOLE = [
    wanted(number, split)
    for split, some in zip(SPLITS, ([0, 1, 2, 3, 4], [5, 6], [7]), strict=True)
    for number in some
]


WHOLE_FILES = [
    sha256(content)
    for path, content in MIRROR.items()
    if path.endswith(".parquet") and "other" not in path
]


def refused(kind: type[UserError], match: str, *given: Any, **more: Any) -> str:
    """What is said of a data set that cannot be read: one line, with a way out and no token."""
    with pytest.raises(kind, match=match) as caught:
        read(*given, **more)
    said = str(caught.value)
    assert caught.type is kind
    assert "\n" not in said
    assert ";" in said or "want" in said
    assert TOKEN not in said
    assert "signed-for-one" not in said
    return said


def one_set(there: Hub, made: dict[str, bytes], name: str = "someone/small") -> str:
    there.repositories[name] = {"main": made}
    return name


def small(rows: list[Row], types: dict[str, pa.DataType] | None = None) -> dict[str, bytes]:
    return {"train.parquet": parquet(rows, types=types)}


# the families


def test_a_mirror_of_common_voice() -> None:
    corpus = read()
    assert listed(corpus) == listed(corpus) == WHOLE
    assert decode(next(iter(corpus.utterances)).audio() or b"").shape == (1600,)
    attributes = {"up_votes": 2, "down_votes": 0, "age": "twenties", "locale": "sv-SE"}
    assert all(one.attributes == attributes for one in corpus.utterances)
    about = corpus.about
    assert (about["name"], about["config"], about["revision"], about["licence"]) == (
        NAME,
        "sv-SE",
        commit_of(MIRROR),
        "cc0-1.0",
    )
    held = {one["path"]: (one["split"], one["bytes"], one["checksum"]) for one in about["files"]}
    assert len(held) == 5
    for path, (split, size, checksum) in held.items():
        assert path.startswith(f"sv-SE/{split}-")
        assert (size, checksum) == (len(MIRROR[path]), f"sha256:{sha256(MIRROR[path])}")
    assert json.loads(json.dumps(about)) == about


def test_fleurs_is_read_as_the_hub_converted_it() -> None:
    corpus = read("google/fleurs", "sv_se")
    first = next(iter(corpus.utterances))
    assert (first.id, first.text, first.speaker, first.duration) == (
        "014.wav",
        "Mening 0!",
        None,
        None,
    )
    assert [one.attributes["gender"] for one in corpus.utterances] == [
        "male",
        "female",
        "other",
        "male",
        "female",
    ]
    assert first.attributes["transcription"] == "mening 0"
    assert [one.split for one in corpus.utterances] == ["train"] * 3 + ["validation", "test"]
    told = {
        key: corpus.about[key]
        for key in ("revision", "licence", "converted_by_the_hub", "incomplete_splits")
    }
    commit = commit_of(REPOSITORIES["google/fleurs"]["refs/convert/parquet"])
    assert told == {
        "revision": commit,
        "licence": ["cc-by-4.0"],
        "converted_by_the_hub": True,
        "incomplete_splits": [],
    }
    assert read("google/fleurs", "de_de").about["incomplete_splits"] == ["train"]
    assert listed(read("google/fleurs", "sv_se", revision=commit)) == listed(corpus)


def test_fleurs_without_a_config_tells_those_there_are() -> None:
    refused(
        ParamsError,
        r"^download.huggingface.config: got nothing, want one of de_de, sv_se$",
        "google/fleurs",
    )
    refused(
        ParamsError,
        r"^download.huggingface.config: got sv, want one of de_de, sv_se$",
        "google/fleurs",
        "sv",
    )


def test_mls() -> None:
    corpus = read("facebook/multilingual_librispeech", "dutch")
    rows = [(one.id, one.split, one.text, one.speaker, one.duration) for one in corpus.utterances]
    assert rows[0] == ("10_2.opus", "train", "a sentence 2", "0", 0.1)
    assert [row[1] for row in rows] == ["train", "train", "validation", "test"]
    assert next(iter(corpus.utterances)).attributes == {
        "original_path": "http://a/b.mp3",
        "begin_time": 1.5,
        "chapter_id": "8687",
        "id": "10_8687_2",
    }
    (alone,) = read("facebook/multilingual_librispeech", "no").utterances
    assert (alone.split, alone.text) == (None, "a sentence 9")


def test_voxpopuli() -> None:
    corpus = read("facebook/voxpopuli")
    one = next(iter(corpus.utterances))
    assert (one.id, one.text, one.speaker) == ("2018-PLENARY-0", "herr talman 0", None), (
        "who is not known is not one person"
    )
    assert one.attributes == {"language": 16, "gender": "female", "is_gold_transcript": True}
    assert (corpus.about["config"], corpus.about["columns"]["id"]) == ("sv", "audio_id")


# splits and columns


def test_splits_as_the_params_say() -> None:
    corpus = read(splits={"train": "train + other", "validation": "test", "test": "validation"})
    assert [(one.id.split("_")[-1], one.split) for one in corpus.utterances] == [
        *((f"{number}.mp3", "train") for number in (0, 1, 2, 3, 4, 8)),
        ("7.mp3", "validation"),
        ("5.mp3", "test"),
        ("6.mp3", "test"),
    ]


def test_a_training_split_named_alone_has_no_split() -> None:
    assert {one.split for one in read(splits={"train": "train+validation"}).utterances} == {None}


def test_a_test_split_named_alone_is_never_trained_on() -> None:
    assert {one.split for one in read(splits={"test": "test"}).utterances} == {"test"}


@pytest.mark.parametrize(
    ("splits", "match"),
    [
        (
            {"train": "training"},
            r"splits: got training, want some of other, test, train, validation$",
        ),
        ({"train": "train", "validation": "test", "test": "test"}, r"splits: got a split twice"),
        (
            {"train": "train", "test": "test"},
            r"splits: nothing for validation in other, test, train, validation; name theirs",
        ),
    ],
)
def test_splits_that_cannot_be(splits: dict[str, str], match: str) -> None:
    refused(ParamsError, match, splits=splits)


def test_a_set_without_validation_says_what_there_is(there: Hub) -> None:
    name = one_set(
        there,
        {
            f"data/{split}-00000-of-00001.parquet": parquet([mirror_row(1)])
            for split in ("train", "test")
        },
    )
    refused(
        ParamsError,
        (
            r"splits: nothing for validation in test, train; name theirs for each of ours, "
            r"or for train alone"
        ),
        name,
    )


def test_columns_as_the_params_say() -> None:
    corpus = read(columns={"text": "age", "speaker": "locale", "id": "sentence"})
    assert next((one.id, one.text, one.speaker) for one in corpus.utterances) == (
        '"Mening" nummer 0.',
        "twenties",
        "sv-SE",
    )
    numbered = [one.id for one in read(columns={"id": "row"}).utterances]
    assert numbered[:2] + numbered[-2:] == [
        "train-00000000",
        "train-00000001",
        "validation-00000001",
        "test-00000000",
    ]


@pytest.mark.parametrize(
    ("columns", "match"),
    [
        (
            {"text": "words"},
            (
                r"columns.text: got words, want one of accent, age, audio, client_id, .*, "
                r"sentence, up_votes$"
            ),
        ),
        ({"audio": "path"}, r"columns.audio: got path \(string\), want one of audio$"),
        ({"text": "up_votes"}, r"columns.text: got up_votes \(int64\), want one of accent, age, "),
        ({"speaker": "audio"}, r"columns.speaker: got audio \(struct<.*>\), want one of"),
        (
            {"id": "client_id"},
            (
                r"columns.id: client_id is no id \(client-\d stands twice\); want another, "
                r"or row for the row's number"
            ),
        ),
        ({"id": "accent"}, r"columns.id: accent is no id \(a row has none\)"),
    ],
)
def test_columns_that_cannot_be(there: Hub, columns: dict[str, str], match: str) -> None:
    if "accent" in str(columns) + match:
        rows = [mirror_row(number) | {"accent": None} for number in (1, 2, 4)]
        refused(
            ParamsError,
            match,
            one_set(there, small(rows, {"accent": pa.string()})),
            columns=columns,
        )
    else:
        refused(ParamsError, match, columns=columns)


SPEAKERS: dict[str, tuple[dict[str, Any], str | None, str]] = {
    "Speaker ID": ({}, "Speaker ID", "the column Speaker ID tells the voices apart, 2 of them"),
    "reader": ({"reader": {"list": 1}}, None, ""),
    "user": ({"user": "same"}, None, "the column user tells none: it is the same in all rows"),
    "spk": ({"speaker_id": "anna"}, "speaker_id", ""),
}


@pytest.mark.parametrize("name", SPEAKERS)
def test_the_column_of_the_speaker_is_found_by_any_usual_name(there: Hub, name: str) -> None:
    more, expected, note = SPEAKERS[name]
    rows = [
        {"audio": sound(number), "text": "a", name: "ab"[number % 2], **more} for number in range(4)
    ]
    corpus = read(one_set(there, small(rows)))
    assert (corpus.about["columns"]["speaker"], corpus.note) == (expected, note)


def test_a_set_without_text_or_sound_says_so(there: Hub) -> None:
    refused(
        ParamsError,
        r"columns.text: got nothing, want one of words$",
        one_set(there, small([{"audio": sound(1), "words": "a"}])),
    )
    made = small([{"audio": 1.0, "text": "a"}], {"audio": pa.float64()})
    refused(
        ParamsError,
        (
            r"columns.audio: got nothing, want a column that fits, of which there is none "
            r"among audio, text$"
        ),
        one_set(there, made),
    )


def test_an_id_that_repeats_gives_way_to_the_next_and_then_to_the_row(there: Hub) -> None:
    rows = [
        {"audio": sound(number, "same.wav"), "text": "a", "path": "/a/same", "id": number % 2}
        for number in range(3)
    ]
    corpus = read(one_set(there, small(rows)))
    assert [one.id for one in corpus.utterances] == [
        "train-00000000",
        "train-00000001",
        "train-00000002",
    ]
    rows = [row | {"audio": sound(number, f"/x/{number}.wav")} for number, row in enumerate(rows)]
    assert [one.id for one in read(one_set(there, small(rows), "someone/paths")).utterances] == [
        "0.wav",
        "1.wav",
        "2.wav",
    ]


def test_odd_rows_are_carried_along(there: Hub) -> None:
    """Sound that is missing, text that is none or not UTF-8, plain bytes, dictionaries, lists,
    numbers that are none.
    """
    rows: list[Row] = [
        {
            "audio": {"bytes": None, "path": "a.wav"},
            "text": None,
            "speaker_id": 1,
            "duration": float("inf"),
            "kind": "x",
            "words": ["a"],
        },
        {
            "audio": None,
            "text": "å",
            "speaker_id": None,
            "duration": 0.0,
            "kind": "y",
            "words": None,
        },
        {
            "audio": {"bytes": b"", "path": "b.wav"},
            "text": "b",
            "speaker_id": 2,
            "duration": 2.5,
            "kind": None,
            "words": [],
        },
    ]
    types = {"kind": pa.dictionary(pa.int8(), pa.string()), "words": pa.list_(pa.string())}
    content = parquet(rows, types=types).replace("å".encode(), b"\xff\xff")
    found = list(read(one_set(there, {"train.parquet": content})).utterances)
    assert [one.audio() for one in found] == [None, None, b""]
    assert [one.text for one in found] == ["", "\udcff\udcff", "b"]
    assert [(one.speaker, one.duration) for one in found] == [("1", None), (None, None), ("2", 2.5)]
    assert [one.attributes for one in found] == [{"kind": "x"}, {"kind": "y"}, {}]
    plain = small([{"audio": b"RIFF", "text": "a"}], {"audio": pa.binary()})
    assert [one.audio() for one in read(one_set(there, plain, "someone/plain")).utterances] == [
        b"RIFF"
    ]


def test_an_utterance_finds_its_sound_in_another_process_and_in_any_order() -> None:
    corpus = read()
    back = [pickle.loads(pickle.dumps(one)).audio() for one in reversed(list(corpus.utterances))]
    assert back == [row[-1] for row in reversed(WHOLE)]


def test_a_file_unlike_its_neighbours_is_refused(there: Hub) -> None:
    made = {
        "data/train-0.parquet": parquet([mirror_row(1)]),
        "data/train-1.parquet": parquet([{"audio": sound(2), "path": "2"}]),
    }
    corpus = read(one_set(there, made))
    with pytest.raises(
        DataError,
        match=(
            r"someone/small: data/train-1.parquet has no column sentence, client_id, unlike "
            r"its neighbours"
        ),
    ):
        list(corpus.utterances)


# which files


def files_by_split(there: Hub, paths: list[str], card: str = "", config: str | None = None) -> Any:
    """What is read of a set with these files: its config, and the files of each split."""
    made = {path: parquet([mirror_row(number)]) for number, path in enumerate(paths)}
    name = one_set(there, made | ({"README.md": card.encode()} if card else {}))
    about = read(name, config, splits={"train": "train"}).about
    return about["config"], [one["path"] for one in about["files"]]


def test_many_files_are_one_split_in_order(there: Hub) -> None:
    paths = [f"data/train-{number:05d}-of-00012.parquet" for number in range(12)]
    assert files_by_split(there, paths[::-1]) == ("default", paths)


def test_a_set_without_a_card_goes_by_its_names(there: Hub) -> None:
    """A config is then a folder; `dev` is validation, and what says nothing is train."""
    paths = ["sv/train/0.parquet", "sv/dev/part-0.parquet", "de/train/b.parquet", "sv/test.parquet"]
    assert files_by_split(there, paths, config="sv") == ("sv", ["sv/train/0.parquet"])
    numbers = ["0000.parquet", "0001.parquet"]
    assert files_by_split(there, numbers[::-1]) == ("default", numbers)
    assert files_by_split(there, numbers, config="default") == ("default", numbers)
    refused(ParamsError, r"config: got no, want one of default$", "someone/small", "no")


CARD = """---
configs:
- config_name: speakers
  data_files: speakers.csv
- config_name: a
  data_files: [a/*, a/y*]
- config_name: b
  default: true
  data_dir: b
---
"""


def test_the_card_says_which_files(there: Hub) -> None:
    paths = ["a/x.parquet", "a/y.parquet", "b/train-0.parquet", "c/train-0.parquet"]
    assert files_by_split(there, paths, CARD, "a") == ("a", paths[:2])
    assert files_by_split(there, paths, CARD) == ("b", paths[2:3])
    refused(ParamsError, r"config: got c, want one of a, b, speakers$", "someone/small", "c")


@pytest.mark.parametrize(
    "card",
    [
        "no card",
        "<html><h1>Mine</h1></html>",
        "---\n[\n---\n",
        "---\n- a\n---\n",
        "---\nlicense: &a [*a]\n---\n",
        "---\nlicense: &a 1\n? {}\n: 3\n---\n",
        "---\nlicense: " + "[" * 400 + "\n---\n",
    ],
)
def test_a_card_that_says_nothing_leaves_it_to_the_names(there: Hub, card: str) -> None:
    assert files_by_split(there, ["data/train-0.parquet"], card)[1] == ["data/train-0.parquet"]


@pytest.mark.parametrize(
    "configs", ["3", "\n- 3", "\n- config_name: a\n  data_files: 3", "\n- data_dir: a"]
)
def test_a_card_that_says_what_cannot_be(there: Hub, configs: str) -> None:
    name = one_set(
        there,
        small([mirror_row(1)]) | {"README.md": f"---\nconfigs: {configs}\n---\n".encode()},
    )
    refused(DataError, rf"{name}: `datasets` cannot read its card \(\w+\); set", name)


def test_only_as_many_files_are_fetched_as_hold_the_rows(there: Hub) -> None:
    corpus = read(max_rows=2)
    assert [one["path"] for one in corpus.about["files"]] == [
        "sv-SE/train-00000-of-00003.parquet",
        "sv-SE/validation-00000-of-00001.parquet",
        "sv-SE/test-00000-of-00001.parquet",
    ]
    assert len(there.fetched()) == 3
    assert len(list(read(max_rows=3).utterances)) == 7
    assert len(there.fetched()) == 4
    # where we split anew, a tenth of the rows must be enough for test
    assert len(list(read(splits={"train": "train+other"}, max_rows=1).utterances)) == 6


def test_of_a_share_as_many_files_are_fetched_as_hold_the_rows_of_it(
    there: Hub, tmp_path: Path
) -> None:
    """Else half of the first file would be all there is, though the next ones have more."""
    rows = {
        "source": "huggingface",
        "path": NAME,
        "share": 0.5,
        "role": "train",
        "max_rows_per_split": 2,
    }
    given = load(tmp_path, download__mix=json.dumps([rows])).download
    download.sources(given, tmp_path)
    assert len(there.fetched()) == 4  # two of training rows


def test_a_tag_and_a_commit_name_a_revision() -> None:
    old = REPOSITORIES[NAME]["v0"]
    for revision in ("v0", commit_of(old)):
        corpus = read(revision=revision)
        assert (corpus.about["revision"], len(list(corpus.utterances))) == (commit_of(old), 3)


def test_a_revision_that_is_not_there() -> None:
    refused(
        ParamsError,
        rf"huggingface.revision: {NAME} has no {'0' * 40}; want a commit, tag or branch, or null",
        revision="0" * 40,
    )


def test_a_revision_without_parquet_is_not_swapped_for_the_conversion() -> None:
    refused(
        ParamsError,
        r"revision: main of google/fleurs has no parquet; want null, or refs/convert/parquet",
        "google/fleurs",
        revision="main",
    )


def test_a_loading_script_is_not_run() -> None:
    said = refused(
        DataError,
        (
            r"someone/script: no parquet, and the hub has not converted it, so it needs a "
            r"loading script"
        ),
        "someone/script",
    )
    assert "download.source: folder" in said


def test_a_set_without_rows(there: Hub) -> None:
    made = {"train.parquet": parquet([mirror_row(1)])}
    table = pq.read_table(io.BytesIO(made["train.parquet"])).slice(0, 0)
    file = io.BytesIO()
    pq.write_table(table, file)
    with pytest.raises(DataError, match=r"someone/small: no rows in train"):
        read(one_set(there, {"train.parquet": file.getvalue()}))


@pytest.mark.parametrize("name", ["../../etc", "a/b/c", "google--fleurs", "", "a b/c"])
def test_a_name_that_is_none(there: Hub, name: str) -> None:
    refused(
        ParamsError,
        r"^download.path: got '.*', want the data set's name on the hub, such as google/fleurs$",
        name,
    )
    assert not there.asked


def test_a_file_that_leaves_its_folder_is_refused(there: Hub, tmp_path: Path) -> None:
    refused(
        NetworkError,
        r"answers as no hub does",
        one_set(there, {"../../../../x.parquet": parquet([mirror_row(1)])}),
    )
    assert not list(tmp_path.rglob("x.parquet*"))


# fetching


def test_nothing_is_fetched_twice(there: Hub) -> None:
    for _ in range(2):
        assert listed(read()) == WHOLE
    assert sorted(name for name, _ in there.fetched()) == sorted(WHOLE_FILES)


def test_a_part_that_went_missing_is_fetched_again(there: Hub) -> None:
    corpus = read()
    huggingface.forget(NAME)
    assert not paths.cache("hub", NAME).exists()
    assert listed(corpus) == WHOLE
    assert len(there.fetched()) == 10


def test_a_connection_that_breaks_costs_the_file_alone(there: Hub) -> None:
    there.cdn.faults += [lambda one: one.work(), cut(1000), cut(0)]
    assert listed(read()) == WHOLE
    assert len(there.fetched()) == len(WHOLE_FILES) + 2
    huggingface.forget(NAME)
    there.cdn.faults += [cut(1000)] * hub.MAX_TRIES
    refused(NetworkError, r"cannot be reached \(ReadError\); .* it goes on at this file")


KILLED = "import sys; from asr.sources import huggingface as h; h.read(sys.argv[1], *[None] * 5)"


def test_a_killed_fetch_goes_on_at_the_file_where_it_stood(
    there: Hub, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """And nothing of it lies in the user's home."""
    home = tmp_path_factory.mktemp("home")
    there.cdn.reached.clear()
    there.cdn.faults += [lambda one: one.work(), stuck(1500)]
    environment = os.environ | {"HOME": str(home)}
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, NAME], cwd=REPOSITORY, env=environment
    )
    assert there.cdn.reached.wait(60)
    process.send_signal(signal.SIGKILL)
    process.wait(20)
    drafts = paths.cache("hub", NAME, "drafts")
    assert list(drafts.rglob("*.incomplete"))
    assert not list(home.iterdir())
    assert listed(read()) == WHOLE
    assert Counter(name for name, _ in there.fetched()) == Counter(
        [*WHOLE_FILES, sha256(MIRROR["sv-SE/train-00001-of-00003.parquet"])]
    )
    assert not [path for path in drafts.rglob("*.*") if path.suffix in (".incomplete", ".parquet")]


def test_who_forgets_a_set_waits_for_who_fetches_it(there: Hub) -> None:
    """Two experiments of one data set: the one that is done takes nothing from under the other."""
    there.cdn.faults.append(stuck(900))
    with ThreadPoolExecutor(2) as pool:
        other = pool.submit(lambda: listed(read()))
        assert there.cdn.reached.wait(10)
        done = pool.submit(huggingface.forget, NAME)
        wait([done], timeout=0.2)
        there.cdn.closing.set()
        assert other.result() == WHOLE


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content[:-1],
        lambda content: content + b"x",
        lambda _: b"",
        flipped,
        lambda content: PAGE.ljust(len(content)),
        lambda _: PAGE,
    ],
)
def test_a_file_that_is_not_what_the_hub_lists_is_fetched_again_and_then_refused(
    there: Hub, change: Any
) -> None:
    there.cdn.faults += [whole(change)]
    assert listed(read()) == WHOLE
    huggingface.forget(NAME)
    there.cdn.asked.clear()
    there.cdn.faults += [whole(change)] * hub.MAX_TRIES
    refused(
        NetworkError,
        rf"{NAME}: sv-SE/train-00000-of-00003.parquet: what comes is not what the hub lists "
        r"\(a login page, a proxy\?\); try again later",
    )
    assert len(there.fetched()) == hub.MAX_TRIES
    assert not list(paths.cache("hub", NAME, commit_of(MIRROR)).rglob("*.parquet"))


def test_a_small_file_is_checked_by_gits_own_hash(there: Hub) -> None:
    answers = [lambda one: one.work(), lambda one: one.say(200, flipped(MIRROR["README.md"]))]
    there.faults += [*LISTING, *answers * hub.MAX_TRIES]
    refused(NetworkError, r"README.md: what comes is not what the hub lists")
    there.faults += [*LISTING, *answers]
    assert listed(read()) == WHOLE


def test_parquet_that_is_broken_as_the_hub_has_it(there: Hub) -> None:
    whole_one = MIRROR["sv-SE/test-00000-of-00001.parquet"]
    for broken in (
        b"PAR1 no parquet PAR1",
        b"",
        whole_one[:-8] + b"\xff" * 8,
        whole_one[: len(whole_one) // 2],
    ):
        name = one_set(there, {"train.parquet": broken})
        refused(
            DataError,
            (
                r"someone/small: train.parquet cannot be read as parquet \(.+\); set "
                r"download.huggingface.revision"
            ),
            name,
        )


def test_mutants_of_a_file_are_read_or_refused(there: Hub) -> None:
    """Whatever the hub's own checksum lets through; seeds 0 to 39."""
    told: Counter[str] = Counter()
    for seed in range(40):
        draw, content = random.Random(seed), bytearray(MIRROR["sv-SE/train-00000-of-00003.parquet"])
        for _ in range(draw.choice([1, 4])):
            content[-draw.randrange(1, 4000)] = draw.randrange(256)
        name = one_set(there, {"train.parquet": bytes(content)}, f"someone/mutant-{seed}")
        try:
            told["read"] += len(listed(read(name))) == 2
        except (DataError, ParamsError) as fault:
            told[type(fault).__name__] += 1
    assert told["read"] >= 5
    assert told["DataError"] >= 12


def test_a_disk_that_is_too_small_is_told_before(there: Hub) -> None:
    there.sizes = {path: 10**18 for path in MIRROR if path.endswith(".parquet")}
    with pytest.raises(
        DiskError, match=rf"{NAME} will take 5,000,000,000.0 GB, and .* GB are free; make room"
    ):
        read()
    assert not there.cdn.asked


def test_what_the_checks_above_are_worth(monkeypatch: pytest.MonkeyPatch, there: Hub) -> None:
    """The control: without them another sound comes in."""
    monkeypatch.setattr(hub, "_checksum", lambda part, _: part.checksum)
    there.cdn.faults += [whole(lambda content: content.replace(SOUNDS[0][-9:], b"another!!"))]
    assert listed(read()) != WHOLE


# a hub that does not answer, or not that


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_hub_is_asked_again(there: Hub, status: int) -> None:
    there.faults += [busy(status), busy(status)]
    there.cdn.faults += [busy(status), busy(status)]
    assert listed(read()) == WHOLE


def test_a_hub_that_stays_busy_is_left_alone(there: Hub) -> None:
    there.faults += [busy(503)] * hub.MAX_TRIES
    refused(NetworkError, r"the hub is busy \(503\)")
    assert len(there.asked) == hub.MAX_TRIES


def test_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    said = refused(
        NetworkError,
        r"http://127.0.0.1:9 cannot be reached \(ConnectError\); check the network and HF_ENDPOINT",
    )
    assert "goes on at this file" in said


@pytest.mark.parametrize("answers", [0, 1])
def test_a_hub_that_is_silent(there: Hub, monkeypatch: pytest.MonkeyPatch, answers: int) -> None:
    """At the first request, and while it lists its files."""
    monkeypatch.setattr(hub, "TIMEOUT_SECONDS", 0.05)
    monkeypatch.setattr(hub, "MAX_TRIES", 1)
    there.faults += [*LISTING[:answers], *[lambda one: one.server.closing.wait(0.2)] * 9]
    refused(NetworkError, r"cannot be reached \(ReadTimeout\)")


def test_offline(there: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    refused(NetworkError, rf"{NAME}: HF_HUB_OFFLINE forbids to ask the hub; unset it")
    assert not there.asked


@pytest.mark.parametrize(
    "fault",
    [web_page, busy(200), lambda one: one.say(200, b"{}"), lambda one: one.say(200, b"[1]")],
)
def test_another_service_has_the_place(there: Hub, fault: Any) -> None:
    there.faults += [fault]
    refused(
        NetworkError,
        rf"{there.uri} answers as no hub does \(a login page, a proxy\?\); check HF_ENDPOINT",
    )


def test_another_service_has_the_place_of_a_file(there: Hub) -> None:
    there.faults += [*LISTING, *[web_page] * hub.MAX_TRIES]
    refused(NetworkError, r"README.md: what comes is not what the hub lists")


def test_a_set_that_is_gone(there: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = "mozilla-foundation/common_voice_17_0"
    ways = (
        r"Common Voice left the hub in October 2025; take its archive \(download.source: "
        r"common_voice\) or Mozilla's \(data_collective\)"
    )
    refused(
        NetworkError,
        rf"not on the hub \(401\): gone, misspelt, or private \(then set HF_TOKEN\); {ways}",
        gone,
    )
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    there.token = TOKEN
    refused(NetworkError, rf"not on the hub \(404\): gone, misspelt; {ways}", gone)
    refused(
        NetworkError,
        rf"not on the hub \(404\): gone, misspelt; see {there.uri}/datasets/a/b",
        "a/b",
    )


def test_a_gated_set_says_where_its_terms_are(there: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    there.gated, there.token = {NAME}, TOKEN
    page = f"{there.uri}/datasets/{NAME}"
    refused(
        NetworkError,
        (
            rf"given to those who accept its terms; do so at {page}, then set HF_TOKEN to a "
            r"token of yours$"
        ),
    )
    monkeypatch.setenv("HF_TOKEN", f" {TOKEN}\n")
    assert listed(read()) == WHOLE
    huggingface.forget(NAME)
    there.barred = {NAME}
    refused(NetworkError, rf"do so at {page}, with the account that HF_TOKEN belongs to$")


def test_a_token_that_is_not_let_in(there: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    refused(
        NetworkError,
        (
            rf"{NAME}: the hub does not let HF_TOKEN in \(401\); renew it "
            rf"\({there.uri}/settings/tokens\)"
        ),
    )
    there.faults += [busy(403)]
    refused(NetworkError, r"the hub does not let HF_TOKEN in \(403\)")


def test_a_private_set_wants_a_token(there: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    there.private, there.token = {NAME}, TOKEN
    refused(NetworkError, r"or private \(then set HF_TOKEN\)")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert listed(read()) == WHOLE


def test_the_token_goes_to_the_hub_alone(
    there: Hub,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """Not to where the large files lie, nor into the manifest, the cache, the log or what is
    printed.
    """
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    there.token, there.gated = TOKEN, {NAME}
    there.cdn.faults += [cut(10), busy(429)]
    with caplog.at_level(logging.DEBUG):
        corpus = read()
        assert listed(corpus) == WHOLE
    assert all(headers["authorization"] == f"Bearer {TOKEN}" for _, _, headers in there.asked)
    assert not any(
        "authorization" in headers or TOKEN in path for _, path, headers in there.cdn.asked
    )
    assert len(there.cdn.asked) == 7
    printed = capfd.readouterr()
    assert TOKEN not in json.dumps(corpus.about) + caplog.text + printed.out + printed.err + repr(
        list(corpus.utterances)
    )
    assert not any(
        TOKEN.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()
    )


def test_a_token_that_somebody_left_on_the_machine_is_not_used(
    there: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    assert huggingface_hub.get_token() == TOKEN  # the client alone would
    read()
    assert not any("authorization" in headers for _, _, headers in there.asked)


def growth(there: Hub, count: int, keep: bool = False) -> int:
    """Bytes that are held when so many rows, sound and all, have been gone through."""
    numbers = range(count)
    audio = pa.array([{"bytes": b"no sound at all", "path": None}] * count, AUDIO)
    file = io.BytesIO()
    pq.write_table(
        pa.table(
            {"path": [f"{one}.wav" for one in numbers], "text": ["ett två"] * count, "audio": audio}
        ),
        file,
        row_group_size=500,
    )
    corpus = read(one_set(there, {"train.parquet": file.getvalue()}, f"someone/set-{count}"))
    del audio, file
    tracemalloc.start()
    before = held()
    kept = [one for one in corpus.utterances if (one.audio() and keep)]
    after = held()
    tracemalloc.stop()
    assert len(kept) == keep * count
    return after - before


def held() -> int:
    """Bytes in use by Python and Arrow, whatever their allocators have from the system."""
    return tracemalloc.get_traced_memory()[0] + pa.total_allocated_bytes()


def test_going_through_the_rows_takes_the_same_memory_for_many_as_for_few(there: Hub) -> None:
    growth(there, 100)
    assert growth(there, 10_000) < 2_000_000
    assert growth(there, 20_001, keep=True) > 4_000_000  # the control: a list of them would be seen
