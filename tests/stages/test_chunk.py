"""Every row is kept whole or left out with its reason, the same way every time, and no split hears
another.
"""

import io
import json
import os
import subprocess
import sys
import unicodedata
import zlib
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
import soundfile
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.cleaning import measurements
from asr.errors import DataError, DiskError
from asr.sources.synthetic import speak
from asr.storage import shards
from stages import chunk
from support.data import encoded, load, row, sha256s, voice, write_rows
from support.repository import REPOSITORY

LIMITS = (0.3, 2.0)
SAID = "ett två tre fyra fem sex"
GOOD = encoded(voice(0.5))
FLAC = encoded(voice(1.0), format="FLAC")


def sound(seed: int, seconds: float = 0.4) -> bytes:
    return encoded(voice(seconds, 8_000, seed), 8_000)


PLANTED: dict[str, dict[str, Any]] = {
    "audio_missing": {"audio": None},
    "audio_undecodable": {"audio": b"text renamed to wav"},
    "audio_truncated": {"audio": sound(900, 0.8), "duration": 1.0},
    "text_not_utf8": {"text": "broken \ufffd"},
    "text_empty": {"text": " \t\n"},
    "too_short": {"audio": sound(901, 0.2)},
    "too_long": {"audio": sound(902, 2.1)},
}
DETAILS = {
    "audio_missing": "the corpus names a recording that is not there",
    "audio_undecodable": "not a recording we can read (InvalidDataError)",
    "audio_truncated": "0.80 s of 1.00 s",
    "text_not_utf8": "broken \ufffd",
    "text_empty": "no transcript",
    "too_short": "0.20 s, want at least 0.3 s",
    "too_long": "2.10 s, want at most 2.0 s",
    "id_duplicate": "an earlier row has this id",
}


def planted(code: str, id: str) -> dict[str, Any]:
    return {**row(id, sound(hash_of(id))), **PLANTED[code], "id": id}


def hash_of(id: str) -> int:
    return zlib.crc32(id.encode())


@pytest.fixture(autouse=True)
def alone(monkeypatch, request):
    """Recordings are decoded in this process, which saves a second a test, but in the tests of the
    real command.
    """
    monkeypatch.setenv("WORKERS", "1")
    if "apart" not in request.keywords:
        monkeypatch.setattr(
            measurements,
            "guarded",
            lambda function, jobs, *_: (one for _, given in jobs for one in function(*given, 0)),
        )


def corpus(**splits: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """These rows, and one good row in every split that has none."""
    return {
        split: splits.get(split) or [row(f"good-{split}", sound(hash_of(split)))]
        for split in shards.SPLITS
    }


def chunked(
    folder: Path,
    rows: dict[str, list[dict[str, Any]]],
    allow: list[str] | None = None,
    rows_per_chunk: int = 3,
) -> list[dict[str, str]]:
    """The rejects of a corpus that is chunked into folder/chunks."""
    raw = write_rows(folder / "raw", "part", rows)
    chunk.run(raw, folder / "chunks", folder / "reports", rows_per_chunk, LIMITS, allow or [])
    return pq.read_table(folder / "reports" / "rejects.parquet").to_pylist()


def kept(folder: Path, split: str) -> list[dict[str, Any]]:
    return list(shards.rows(folder / "chunks" / split))


@pytest.mark.parametrize("code", PLANTED)
def test_a_row_is_left_out_with_its_reason(tmp_path, code):
    good = row("good", GOOD)
    left_out = chunked(tmp_path, corpus(train=[planted(code, "bad"), good]))
    assert left_out == [
        {"id": "bad", "split": "train", "code": code, "detail": DETAILS[code], "source": ""}
    ]
    assert [one["id"] for one in kept(tmp_path, "train")] == ["good"]


def test_the_second_row_of_one_id_is_left_out(tmp_path):
    left_out = chunked(
        tmp_path, corpus(train=[row("a", sound(1), "first"), row("a", sound(2), "second")])
    )
    assert left_out == [
        {
            "id": "a",
            "split": "train",
            "code": "id_duplicate",
            "detail": DETAILS["id_duplicate"],
            "source": "",
        }
    ]
    assert [one["text"] for one in kept(tmp_path, "train")] == ["first"]


def test_an_id_is_taken_in_all_splits(tmp_path):
    left_out = chunked(
        tmp_path, corpus(train=[row("a", sound(1))], test=[row("a", sound(2)), row("b", sound(3))])
    )
    assert [(one["id"], one["split"], one["code"]) for one in left_out] == [
        ("a", "test", "id_duplicate")
    ]


def test_a_row_that_was_left_out_does_not_take_its_id(tmp_path):
    left_out = chunked(
        tmp_path, corpus(train=[planted("text_empty", "a"), row("a", sound(2), "second")])
    )
    assert [one["code"] for one in left_out] == ["text_empty"]
    assert [one["text"] for one in kept(tmp_path, "train")] == ["second"]


@pytest.mark.parametrize("split", ["validation", "test"])
def test_length_is_no_reason_outside_training(tmp_path, split):
    rows = [planted("too_short", "short"), planted("too_long", "long")]
    assert chunked(tmp_path, corpus(**{split: rows})) == []
    assert [one["id"] for one in kept(tmp_path, split)] == ["short", "long"]


@pytest.mark.parametrize(
    "code", ["audio_missing", "audio_undecodable", "audio_truncated", "text_not_utf8", "text_empty"]
)
def test_what_cannot_be_scored_is_left_out_of_the_test_too(tmp_path, code):
    left_out = chunked(tmp_path, corpus(test=[planted(code, "bad"), row("good", GOOD)]))
    assert [(one["split"], one["code"]) for one in left_out] == [("test", code)]


def test_a_test_recording_of_a_few_samples_has_features_or_a_reason(tmp_path):
    tiny = encoded(voice(1.0)[:2], 96_000)
    left_out = chunked(tmp_path, corpus(test=[row("tiny", tiny), row("good", GOOD)]))
    assert [one["id"] for one in left_out] == ["tiny"] or all(
        one["duration"] > 0 for one in kept(tmp_path, "test")
    )


@pytest.mark.parametrize(("format", "share"), [("WAV", 0.5), ("MP3", 0.5), ("FLAC", 0.5)])
def test_a_truncated_recording_is_left_out(tmp_path, format, share):
    content = encoded(voice(1.5), format=format)
    left_out = chunked(
        tmp_path,
        corpus(
            train=[
                row("cut", content[: int(len(content) * share)], duration=1.5),
                row("good", GOOD),
            ]
        ),
    )
    assert [
        (one["id"], one["code"] in ("audio_truncated", "audio_undecodable")) for one in left_out
    ] == [("cut", True)]


def test_limits_are_inclusive(tmp_path):
    rows = [row("least", sound(1, LIMITS[0])), row("most", sound(2, LIMITS[1]))]
    assert chunked(tmp_path, corpus(train=rows)) == []


@settings(max_examples=12)
@given(
    st.lists(
        st.tuples(st.sampled_from(shards.SPLITS), st.sampled_from(["good", "twice", *PLANTED])),
        max_size=25,
    ),
    st.integers(1, 7),
)
def test_every_row_is_accounted_for(tmp_path_factory, kinds, rows_per_chunk):
    folder = tmp_path_factory.mktemp("account")
    rows: dict[str, list[dict[str, Any]]] = {
        split: [row(f"first-{split}", sound(hash_of(split)))] for split in shards.SPLITS
    }
    for number, (split, kind) in enumerate(kinds):
        id = f"first-{split}" if kind == "twice" else f"row-{number}"
        good = row(id, sound(number), speaker=f"{split}-{number % 3}")
        rows[split].append(good if kind in ("good", "twice") else planted(kind, id))
    all_left_out = chunked(folder, rows, ["clip"], rows_per_chunk)
    summary = json.loads((folder / "reports" / "summary.json").read_text())["splits"]
    for split in shards.SPLITS:
        left_out = [one for one in all_left_out if one["split"] == split]
        assert (
            summary[split]["rows_in"]
            == len(rows[split])
            == len(kept(folder, split)) + len(left_out)
        )
        assert summary[split]["rows_kept"] == len(kept(folder, split))
        assert sum(summary[split]["rejects"].values()) == len(left_out)
        assert [
            one["rows"] for one in shards.manifest(folder / "chunks" / split)["files"][:-1]
        ] == [rows_per_chunk] * (-(-len(kept(folder, split)) // rows_per_chunk) - 1)


def test_kept_rows_are_as_delivered_with_their_measured_duration(tmp_path):
    given = {**row("a", FLAC, "tab\t שלום 👋\n", "anna", 1.05), "attributes": '{"age": "30"}'}
    chunked(tmp_path, corpus(train=[given]))
    assert kept(tmp_path, "train") == [{**given, "duration": 1.0}]


def test_every_chunk_opens_with_datasets(tmp_path):
    chunked(tmp_path, corpus(train=[row(str(number), sound(number)) for number in range(7)]))
    tables = [Dataset.from_file(str(path)) for path in shards.paths(tmp_path / "chunks" / "train")]
    assert [len(table) for table in tables] == [3, 3, 1]
    assert tables[0].column_names == ["id", "audio", "text", "speaker", "attributes", "duration"]
    assert [one["id"] for table in tables for one in table] == [str(number) for number in range(7)]


def refused(folder: Path, rows: dict[str, list[dict[str, Any]]], match: str) -> None:
    """The corpus is refused, and no chunks appear."""
    with pytest.raises(DataError, match=match) as caught:
        chunked(folder, rows)
    assert caught.value.exit_code == 3
    assert {path.name for path in folder.iterdir()} <= {"raw", "reports", ".cache"}


LEAKS = {
    "clip": corpus(train=[row("a", GOOD)], test=[row("b", GOOD)]),
    "speaker": corpus(
        train=[row("a", sound(1), speaker="anna")], validation=[row("b", sound(2), speaker="anna")]
    ),
}


@pytest.mark.parametrize("kind", LEAKS)
def test_what_stands_in_two_splits_fails_the_stage(tmp_path, kind):
    refused(
        tmp_path,
        LEAKS[kind],
        (
            rf"^1 {kind}s stand in two splits \(.*\), so the test is not honest; .* -S "
            rf"'chunk\.allow_shared=\[{kind}\]'$"
        ),
    )


@pytest.mark.parametrize("kind", LEAKS)
def test_what_stands_in_two_splits_may_be_allowed_by_name(tmp_path, kind):
    assert chunked(tmp_path, LEAKS[kind], [kind]) == []
    shared = json.loads((tmp_path / "reports" / "summary.json").read_text())["in_two_splits"]
    assert shared == {
        "speaker": int(kind == "speaker"),
        "clip": int(kind == "clip"),
        "sentence": 1,
        "copy": 0,
    }


@pytest.mark.parametrize(("kind", "other"), [("clip", "speaker"), ("speaker", "clip")])
def test_what_is_allowed_allows_nothing_else(tmp_path, kind, other):
    with pytest.raises(DataError, match=f"1 {kind}s stand in two splits"):
        chunked(tmp_path, LEAKS[kind], [other])


def test_the_same_clip_twice_in_one_split_is_no_leak(tmp_path):
    assert chunked(tmp_path, corpus(train=[row("a", GOOD), row("b", GOOD)])) == []


def test_the_page_is_there_to_be_read_though_a_leak_fails_the_stage(tmp_path):
    refused(tmp_path, LEAKS["clip"], "1 clips stand in two splits")
    assert "1 clip" in (tmp_path / "reports/page.html").read_text()


def test_a_row_that_stands_in_two_splits_fails_the_stage_though_its_id_is_a_duplicate(tmp_path):
    rows = corpus(
        train=[row("a", GOOD, speaker="anna")],
        test=[row("a", GOOD, speaker="anna"), row("b", sound(7))],
    )
    refused(
        tmp_path,
        rows,
        (
            r"^1 clips stand in two splits \(a of train in a of test\); 1 speakers stand in "
            r".* \(anna in train and test\)"
        ),
    )
    assert chunked(tmp_path / "allowed", rows, ["clip", "speaker"])[0]["code"] == "id_duplicate"


def test_all_rows_of_a_leak_are_named_in_a_table(tmp_path):
    sounds = [sound(20 + number, 0.5) for number in range(9)]
    train, test = (
        [row(f"{split}-{number}", one) for number, one in enumerate(sounds)]
        for split in ("train", "test")
    )
    refused(tmp_path, corpus(train=train, test=test), r"^9 clips stand in two splits")
    lines = (tmp_path / "reports/shared.csv").read_text().splitlines()
    assert sorted(line.split(",")[-1] for line in lines[1:]) == sorted(
        one["id"] for one in train + test
    )


def test_a_name_is_one_however_its_accents_are_encoded(tmp_path):
    rows = corpus(
        train=[row("a", sound(1), speaker="Åsa")],
        test=[row("b", sound(2), speaker=unicodedata.normalize("NFD", "Åsa"))],
    )
    refused(tmp_path, rows, "1 speakers stand in two splits")


def test_rows_that_are_left_out_leak_nothing(tmp_path):
    rows = corpus(
        train=[row("a", GOOD, "", "anna"), row("c", sound(5))],
        test=[row("b", GOOD, "text", "anna")],
    )
    assert [one["id"] for one in chunked(tmp_path, rows)] == ["a"]


@pytest.mark.parametrize(
    ("speakers", "unknown"), [("abc", None), ("a c", 1), ("   ", 3)], ids=["all", "some", "none"]
)
def test_rows_without_a_speaker_are_counted_beside_the_speakers_in_two_splits(
    tmp_path, speakers, unknown
):
    rows = {
        split: [row(split, sound(hash_of(split)), split, speaker.strip() or None)]
        for split, speaker in zip(shards.SPLITS, speakers, strict=True)
    }
    chunked(tmp_path, rows)
    summary = json.loads((tmp_path / "reports/summary.json").read_text())
    assert (summary["in_two_splits"]["speaker"], summary.get("rows_without_speaker")) == (
        0,
        unknown,
    )
    said = "speakers are not known" in (tmp_path / "reports/page.html").read_text()
    assert said == (unknown == 3)


def test_repeated_sentences_are_counted(tmp_path):
    rows = {
        split: [row(f"{split}-{text}", sound(hash_of(split + text)), text) for text in texts]
        for split, texts in SENTENCES.items()
    }
    chunked(tmp_path, rows)
    assert json.loads((tmp_path / "reports" / "summary.json").read_text())["in_two_splits"] == {
        "speaker": 0,
        "clip": 0,
        "sentence": 2,
        "copy": 0,
    }


SENTENCES = {
    "train": ["one", "two", "three"],
    "validation": ["one", "four"],
    "test": ["one", "two", "five"],
}


def test_a_split_with_no_row_left_is_refused_with_the_reasons(tmp_path):
    rows = corpus(
        validation=[
            planted("text_empty", "a"),
            planted("text_empty", "b"),
            planted("audio_missing", "c"),
        ]
    )
    want = (
        r"^validation: no row is left: 2 text_empty \(a: no transcript\), 1 audio_missing "
        r"\(c: the corpus names .*\)$"
    )
    refused(tmp_path, rows, want)


def test_the_example_is_of_the_split_that_is_told_of_and_fit_for_a_terminal(tmp_path):
    hostile = planted("text_empty", "\x1b[31m\n" + "b" * 10_000)
    rows = corpus(
        train=[*(planted("text_empty", f"a{number}") for number in range(5)), row("c", GOOD)],
        validation=[hostile],
    )
    refused(
        tmp_path,
        rows,
        r"^validation: no row is left: 1 text_empty \(\\x1b\[31m\\nb{70,80}: no transcript\)$",
    )


def test_raw_files_that_do_not_match_their_manifest_are_refused(tmp_path):
    raw = write_rows(
        tmp_path / "raw", "part", corpus(train=[row("a", sound(1)), row("b", sound(2))])
    )
    manifest = json.loads((raw / "train" / "manifest.json").read_text())
    (raw / "train" / "manifest.json").write_text(json.dumps({**manifest, "rows": 3}))
    with pytest.raises(
        DataError,
        match=(
            r"train: in 3, kept and left out \{'': 2\}; the raw files are not those of their "
            r"manifest"
        ),
    ):
        chunk.run(raw, tmp_path / "chunks", tmp_path / "reports", 3, LIMITS, [])


def test_a_raw_folder_that_was_never_finished_is_refused(tmp_path):
    with pytest.raises(
        DataError, match=r"manifest\.json: not there; run the stage that makes it \(dvc repro\)"
    ):
        chunk.run(tmp_path / "raw", tmp_path / "chunks", tmp_path / "reports", 3, LIMITS, [])


def test_reasons_are_told_with_an_example(tmp_path, capsys):
    chunked(
        tmp_path,
        corpus(train=[planted("text_empty", "a"), planted("text_empty", "b"), row("c", GOOD)]),
    )
    assert "chunk: 2 rows left out, text_empty (a: no transcript)" in capsys.readouterr().out


@pytest.fixture(scope="session")
def many(tmp_path_factory) -> Path:
    """Three record batches of training rows, some bad, and a params.yaml beside them."""
    folder = tmp_path_factory.mktemp("many")
    good = [
        row(f"row-{number}", sound(number, 0.31), f"text {number}", f"speaker-{number % 9}")
        for number in range(210)
    ]
    bad = [planted(code, f"bad-{code}") for code in PLANTED]
    write_rows(folder / "raw", "part", corpus(train=[*good[:120], *bad, *good[120:]]))
    load(folder, chunk__rows_per_chunk="50", chunk__max_seconds="2")
    return folder


def command(many: Path, out: Path, **environment: str) -> dict[str, str]:
    """Hashes of all that the command writes in this environment."""
    subprocess.run(
        [
            sys.executable,
            "-m",
            "stages.chunk",
            str(many / "raw"),
            str(out / "chunks"),
            str(out / "reports"),
        ],
        cwd=many,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "DVC_ROOT": str(out), **environment},
        check=True,
        capture_output=True,
    )
    return sha256s(out, "timing.json")


def test_the_command_gives_the_same_bytes_in_any_environment(many, tmp_path):
    one = command(many, tmp_path / "one", WORKERS="1", TZ="UTC", PYTHONHASHSEED="1")
    other = command(
        many,
        tmp_path / "two" / "deeper",
        WORKERS="2",
        TZ="Asia/Tokyo",
        HOME=str(tmp_path),
        PYTHONHASHSEED="2",
        LC_ALL="C",
    )
    assert one == other
    assert sum(name.startswith("chunks/") and name.endswith(".arrow") for name in one) == 5 + 2
    assert {"chunks/manifest.json", "reports/rejects.parquet", "reports/summary.json"} <= set(one)


def marked(source: str, *names: str) -> list[dict[str, Any]]:
    return [
        {
            **row(f"{source}-{name}", sound(hash_of(source + name))),
            "attributes": json.dumps({"source": source}),
        }
        for name in names
    ]


def test_each_source_is_accounted_for_and_begins_a_new_chunk(tmp_path):
    bad = {**marked("b", "bad")[0], "text": ""}
    chunked(
        tmp_path, corpus(train=[*marked("a", *"12345"), *marked("b", "1"), bad, *marked("b", "2")])
    )
    assert [one["rows"] for one in shards.manifest(tmp_path / "chunks/train")["files"]] == [3, 2, 2]
    told = json.loads((tmp_path / "reports/summary.json").read_text())["sources"]["train"]
    assert told == {
        "a": {"rows_in": 5, "rows_kept": 5, "rejects": {}},
        "b": {"rows_in": 3, "rows_kept": 2, "rejects": {"text_empty": 1}},
    }


def test_a_source_that_lost_a_row_on_the_way_is_noticed(tmp_path):
    raw = write_rows(
        tmp_path / "raw", "part", corpus(train=[*marked("a", *"12"), *marked("b", "1")])
    )
    manifest = json.loads((raw / "manifest.json").read_text())
    told = [{"name": "a", "rows": {"train": 1}}, {"name": "b", "rows": {"train": 2}}]
    (raw / "manifest.json").write_text(json.dumps({**manifest, "sources": told}))
    with pytest.raises(
        DataError, match=r"train: in \{'a': 1, 'b': 2\}, kept and left out \{'a': 2, 'b': 1\}"
    ):
        chunk.run(raw, tmp_path / "chunks", tmp_path / "reports", 3, LIMITS, [])


def made(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts what is computed from now on: recordings decoded, chunks written."""
    counts: Counter[str] = Counter()
    listen, write = measurements.measure_audio, chunk.Chunk.write
    monkeypatch.setattr(
        measurements, "measure_audio", lambda *given: counts.update(["decoded"]) or listen(*given)
    )
    monkeypatch.setattr(
        chunk.Chunk, "write", lambda *given: counts.update(["written"]) or write(*given)
    )
    monkeypatch.setattr(shards, "BATCH_ROWS", 4)
    return counts


def test_rows_at_the_end_of_a_source_cost_the_last_and_the_new_chunks_alone(tmp_path, monkeypatch):
    before = marked("a", *map(str, range(8))), marked("b", *map(str, range(5)))
    counts = made(monkeypatch)
    chunked(tmp_path, corpus(train=[*before[0], *before[1]]))
    assert counts == {"decoded": 15, "written": 7}
    counts.clear()
    chunked(tmp_path / "again", corpus(train=[*before[0], *before[1]]))
    assert counts == {}
    grown = marked("a", *map(str, range(9)))
    chunked(tmp_path, {**corpus(train=[*grown, *before[1]])})
    assert counts["written"] == 1, (
        "the last chunk of a, now full; those of b are where they were, by another number"
    )
    assert sha256s(tmp_path / "chunks") == fresh(
        tmp_path / "fresh", corpus(train=[*grown, *before[1]]), monkeypatch
    )


def test_a_source_that_is_removed_takes_its_rows_and_costs_nothing(tmp_path, monkeypatch):
    one, two = marked("a", *map(str, range(8))), marked("b", *map(str, range(5)))
    counts = made(monkeypatch)
    chunked(tmp_path, corpus(train=[*one, *two]))
    counts.clear()
    chunked(tmp_path, corpus(train=two))
    assert counts["written"] == 0
    assert [row["id"] for row in kept(tmp_path, "train")] == [row["id"] for row in two]


def fresh(
    folder: Path, rows: dict[str, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """What a run without anything kept gives."""
    with monkeypatch.context() as patch:
        patch.setenv("DVC_ROOT", str(folder / "nothing kept"))
        chunked(folder, rows)
    return sha256s(folder / "chunks")


@pytest.mark.parametrize("kind", ["heard/*.arrow", "shards/*.arrow", "shards/*.json"])
@pytest.mark.parametrize("damage", ["cut", "turned", "emptied"])
def test_what_was_kept_and_is_damaged_is_made_anew(tmp_path, kind, damage):
    rows = corpus(train=[row(str(number), sound(number)) for number in range(5)])
    chunked(tmp_path, rows)
    whole = sha256s(tmp_path / "chunks")
    for path in (tmp_path / ".cache").glob(kind):
        content = path.read_bytes()
        path.unlink()  # it has other names
        path.write_bytes(
            {
                "cut": content[:-3],
                "turned": content[:40] + bytes([content[40] ^ 1]) + content[41:],
                "emptied": b"",
            }[damage]
        )
    chunked(tmp_path, rows)
    assert sha256s(tmp_path / "chunks") == whole


def test_a_corpus_that_will_not_fit_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(
        DiskError, match=r"chunk will take 0\.\d MB, and 0\.\d MB are free; make room"
    ) as caught:
        chunked(tmp_path, corpus(train=[row("a", FLAC)]))
    assert caught.value.exit_code == 7
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


@pytest.mark.parametrize(
    ("speaker", "people"), [("1", 2), ("f" * 40, 1), ("0123456789abcdef" * 4, 1), ("F" * 40, 2)]
)
def test_a_name_is_its_sources_own_and_a_hash_is_one_person_everywhere(speaker, people):
    rows = [SimpleNamespace(values={"speaker": speaker}, source=source) for source in ("a", "b")]
    assert len({chunk.speaker_of(one) for one in rows}) == people


def test_speakers_of_one_name_in_two_sources_are_no_leak(tmp_path):
    one, two = marked("a", "1")[0], marked("b", "1")[0]
    assert (
        chunked(tmp_path, corpus(train=[{**one, "speaker": "1"}], test=[{**two, "speaker": "1"}]))
        == []
    )
    with pytest.raises(DataError, match="1 speakers stand in two splits"):
        chunked(
            tmp_path,
            corpus(train=[{**one, "speaker": "ab" * 20}], test=[{**two, "speaker": "ab" * 20}]),
        )


def test_a_copy_in_another_split_fails_the_stage_and_is_named(tmp_path):
    rows = corpus(train=[row("a", speak(SAID, "sv+m1", 260, 50))], test=[row("b", altered())])
    refused(tmp_path, rows, r"1 clips stand in two splits \(a of train in b of test\)")
    assert "The same sound in two splits" in (tmp_path / "reports/page.html").read_text()
    assert len(list((tmp_path / "reports/sounds").glob("copy-*"))) == 2


def test_the_refusal_names_a_pair_with_both_texts(tmp_path):
    spoken = row("a", speak(SAID, "sv+m1", 260, 50), SAID)
    rows = corpus(train=[spoken], test=[row("b", altered(), f"{SAID}!")])
    refused(tmp_path, rows, rf'a says "{SAID}"; b says "{SAID}!"; reports/chunk/shared\.csv')
    assert f"{SAID}!" in (tmp_path / "reports/page.html").read_text()


def like_voices() -> dict[str, list[dict[str, Any]]]:
    """Other words, whose fingerprints agree."""
    longer, shorter = "fünfzig fünfundvierzig", "fünfzig vier"
    return corpus(
        train=[row("a", speak(longer, "de+fast", 167, 65), longer)],
        test=[row("b", speak(shorter, "de+m6", 172, 65), shorter)],
    )


def test_other_words_in_a_like_voice_are_no_copies(tmp_path):
    assert chunked(tmp_path, like_voices()) == []


def test_without_the_second_look_other_words_would_be_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(chunk, "is_copy", lambda *_: True)
    refused(tmp_path, like_voices(), 'a says "fünfzig fünfundvierzig"; b says "fünfzig vier"; ')


SPOKEN = speak(SAID, "sv+m1", 260, 50)
ALLOWED: dict[str, tuple[bytes, bytes, list[str]]] = {
    "the same bytes": (SPOKEN, SPOKEN, ["b"]),
    "the same samples": (SPOKEN, encoded(*soundfile.read(io.BytesIO(SPOKEN))), ["b"]),
    "the same noise": (GOOD, GOOD, ["b"]),
    "a copy": (SPOKEN, encoded(0.5 * soundfile.read(io.BytesIO(SPOKEN))[0], 22_050, "MP3"), []),
    "another sound": (SPOKEN, sound(3), []),
}


@pytest.mark.parametrize("other", ["validation", "test"])
@pytest.mark.parametrize("kind", ALLOWED)
def test_clips_that_are_allowed_are_allowed_in_any_two_splits(tmp_path, kind, other):
    """What training would refuse is left out of it: the very sound of a validation row."""
    one, two, left_out = ALLOWED[kind]
    rows = corpus(train=[row("b", one), row("c", sound(4))], **{other: [row("a", two)]})
    rejects = chunked(tmp_path, rows, ["clip"])
    wanted = left_out if other == "validation" else []
    assert [(one["id"], one["code"]) for one in rejects] == [
        (id, "clip_in_validation") for id in wanted
    ]
    assert [one["id"] for one in kept(tmp_path, "train")] == [
        id for id in ("b", "c") if id not in wanted
    ]
    assert [one["id"] for one in kept(tmp_path, other)] == ["a"]


def test_the_copy_to_listen_to_is_the_row_that_was_kept(tmp_path):
    spoken = speak(SAID, "sv+m1", 260, 50)
    rows = corpus(train=[row("a", b"broken"), row("a", spoken)], test=[row("b", altered())])
    refused(tmp_path, rows, r"a of train in b of test")
    assert spoken in [path.read_bytes() for path in (tmp_path / "reports/sounds").glob("copy-*")]


def altered() -> bytes:
    """The same utterance, cut at its beginning, half as loud, and as mp3."""
    samples, rate = soundfile.read(io.BytesIO(speak(SAID, "sv+m1", 260, 50)))
    return encoded(0.5 * samples[1000:], rate, "MP3")
