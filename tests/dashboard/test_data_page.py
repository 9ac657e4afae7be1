"""The data page: its tables are the reports', every reason has examples to hear, hostile texts stay
text, damaged stores give a message.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from asr import augmentation
from asr.cleaning.rejects import REJECT
from asr.errors import DataError
from asr.params import reader
from asr.storage import files, shards
from dashboard.data import durations
from dashboard.data import rejects as reject_page
from stages import chunk, stats
from support.data import encoded, load, row, voice, write_rows
from support.repository import SHIPPED
from support.store import HOSTILE, check, damaged, raise_bug, said

FILES = (
    "reports/stats/stats.json",
    "reports/stats/durations.csv",
    "reports/stats/windows.csv",
    "reports/chunk/summary.json",
    "reports/chunk/rejects.parquet",
    "data/raw/manifest.json",
    "data/raw/train/manifest.json",
    "data/raw/train/part-00000.arrow",
    "data/chunks/manifest.json",
    "data/chunks/train/manifest.json",
    "data/chunks/train/chunk-00000.arrow",
)
SOUND = encoded(voice(0.5))


def page() -> None:
    from dashboard.data import page as data

    data.page()


def spoken(id: str, seconds: float, speaker: str | None = None, **rest: object) -> dict:
    return {
        **row(id, encoded(voice(seconds, seed=sum(id.encode()))), f"words of {id}", speaker),
        **rest,
    }


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A corpus with a row for most reasons to be left out, taken through the real stages."""
    root = tmp_path_factory.mktemp("data")
    train = [
        spoken(f"train-{number}", 0.5 + 0.25 * number, f"s{number % 3}") for number in range(8)
    ]
    train += [
        spoken("short", 0.1),
        spoken("silent", 0.5, text="  "),
        spoken("train-0", 0.7, text="said before"),
        row("gone", None, "no sound came"),
        row("text", b"this is a text", "no sound in it"),
        row("cut", SOUND[: len(SOUND) // 2], "half of it"),
        spoken("promised", 0.5, duration=9.0),
    ]
    rows = {
        "train": train,
        "validation": [spoken("v", 1.0, "v")],
        "test": [spoken("t", 1.5, "t"), spoken("u", 1.0, text="слова")],
    }
    write_rows(root / "data/raw", "part", rows)
    about = files.read_json(root / "data/raw/manifest.json")
    files.write_json(
        root / "data/raw/manifest.json", {**about, "name": "a corpus", "licence": "CC0-1.0"}
    )
    given = load(
        root,
        stats__window_candidates_seconds="[1, 2, 30]",
        model__scratch__vocab_size="257",
        model__name="scratch",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", str(root))
        stats.run(root / "data/raw", root / "reports/stats", given)
        chunk.run(
            root / "data/raw", root / "data/chunks", root / "reports/chunk", 100, (0.3, 30.0), []
        )
    return SimpleNamespace(root=root, train=train)


@pytest.fixture
def at(results: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> AppTest:
    monkeypatch.setenv("DVC_ROOT", str(results.root))
    return AppTest.from_function(page, default_timeout=120).run()


def test_tables_are_the_reports(at: AppTest, results: SimpleNamespace) -> None:
    check(at)
    assert not at.warning
    durations, windows, odd, speakers, rejects = (frame.value for frame in at.dataframe)
    stats_told = files.read_json(results.root / "reports/stats/stats.json")
    told = stats_told["durations"]
    assert (
        durations.set_index("split").loc["train", "median_seconds"]
        == told["train"]["median_seconds"]
    )
    assert durations["split"].tolist() == ["train", "validation", "test"]
    assert windows["window_seconds"].tolist() == [
        1,
        2,
        3,
        9,
        30,
    ]  # candidates, what params have, and what is recommended
    assert at.info[0].value.startswith("Recommended\\: 9 s")
    assert stats_told["recommended"]["window_seconds"] == 9
    assert odd[["why", "split", "id", "text"]].values.tolist() == [
        ["written in CYRILLIC", "test", "u", "слова"]
    ]
    assert windows["epoch"].tolist() == ["–"] * 5  # nothing was timed here
    assert (windows["share_fit"] <= 100).all()
    kept = list(shards.rows(results.root / "data/chunks/train", ["speaker", "duration"]))
    train = speakers.set_index("split").loc["train"]
    assert train["hours"] == pytest.approx(sum(one["duration"] for one in kept) / 3600)
    assert (train["recordings"], train["speakers"]) == (len(kept), 3)
    assert speakers["unnamed"].tolist() == [0, 0, 1]
    assert rejects["rows_in"].tolist() == [len(results.train), 1, 2]
    assert (rejects["rows_in"] == rejects["rows_kept"] + rejects["rejected"]).all()
    assert "licence: CC0-1.0" in said(at)
    assert len(at.get("vega_lite_chart")) == 3


def test_every_reason_has_its_examples(at: AppTest, results: SimpleNamespace) -> None:
    rejects = pq.read_table(results.root / "reports/chunk/rejects.parquet").to_pylist()
    assert len({one["code"] for one in rejects}) >= 6
    heard = {}
    for one in rejects:
        at.selectbox(key="data_reason").set_value((one["split"], one["code"])).run()
        check(at)
        assert not at.warning
        assert one["detail"] in said(at)
        heard[one["id"]] = (
            len(at.get("audio")),
            " ".join(text.value for text in (*at.text, *at.caption)),
        )
    assert heard["short"][0] == 1
    assert heard["train-0"][0] == 2  # the one kept, and the one that came later
    assert "said before" in heard["train-0"][1]
    assert heard["gone"][0] == 0
    assert "No recording is there" in heard["gone"][1]
    undecodable = next(
        told for id, told in heard.items() if id in ("text", "cut") and "browsers play" in told[1]
    )
    assert "this is a text" not in undecodable[1]
    assert "(no transcript)" in heard["silent"][1]


def test_speakers_of_another_split(at: AppTest) -> None:
    at.selectbox(key="data_split").set_value("test").run()
    check(at)
    assert len(at.get("vega_lite_chart")) == 3


def test_a_row_and_its_copies_are_heard(at: AppTest, results: SimpleNamespace) -> None:
    at.selectbox(key="data_reason").set_value(("train", "audio_missing")).run()
    assert not at.get("audio")
    at.selectbox(key="data_copied").set_value("train-3").run()
    assert not at.get("audio"), "nothing is computed before it is asked for"
    at.button(key="data_make_copies").click().run()
    check(at)
    assert not at.warning
    assert len(at.get("audio")) == 4
    told = [one.value.replace("\\", "") for one in at.caption if one.value.startswith("copy")]
    assert [line.partition(": speed ")[0] for line in told] == [
        "copy-1.wav",
        "copy-2.wav",
        "copy-3.wav",
    ]
    given = reader.load(results.root / "params.yaml").featurize.augment
    rows = augmentation.encoded_recordings(results.root / "data/chunks/train/chunk-00000.arrow")
    own = [one["id"] for one in shards.rows(results.root / "data/chunks/train", ["id"])].index(
        "train-3"
    )
    noises, responses = (
        augmentation.noises_of(given, None, rows, own),
        augmentation.responses_of(given, None),
    )
    drawn = [
        augmentation.augmented(voice(0.5), "train-3", copy, given, noises, responses)[1].text()
        for copy in (1, 2, 3)
    ]
    assert [line.partition(": ")[2] for line in told] == drawn
    at.selectbox(key="data_copied").set_value("train-4").run()
    assert not at.get("audio"), "those of another row are not shown"


def test_copies_that_cannot_be_made_say_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    write_rows(
        tmp_path / "data/chunks", "chunk", {"train": [row("a", b"no sound"), row("a\0b", SOUND)]}
    )
    (tmp_path / "params.yaml").write_text(SHIPPED.read_text())
    at = AppTest.from_function(page, default_timeout=120).run()
    for id, said_of in (("a", "not a recording"), ("a\0b", "cannot be handed to a command")):
        at.selectbox(key="data_copied").set_value(id).run()
        at.button(key="data_make_copies").click().run()
        check(at)
        assert said_of in at.warning[-1].value
    (tmp_path / "params.yaml").unlink()
    at.run()
    check(at)
    assert "cannot be read" in at.warning[-1].value


def test_nothing_there_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    at = AppTest.from_function(page, default_timeout=120).run()
    check(at)
    assert at.info
    assert "dvc repro" in at.code[0].value


def test_each_part_stands_without_the_others(
    results: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports/stats").symlink_to(results.root / "reports/stats")
    at = AppTest.from_function(page, default_timeout=120).run()
    check(at)
    assert len(at.dataframe) == 3
    assert len(at.warning) == 4  # the corpus, its speakers, what was left out, rows to copy
    assert all("dvc repro" in one.value or "dvc" in one.value for one in at.warning)


def test_hostile_texts_are_shown_as_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of the corpus, splits, speakers, ids, transcripts, codes and details."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    raw = [
        row(f"{text}{number}", SOUND, text, speaker=text, duration=1.0)
        for number, text in enumerate(HOSTILE)
    ]
    for folder, stem in (("raw", "part"), ("chunks", "chunk")):
        write_rows(tmp_path / "data" / folder, stem, {"train": raw})
    told = files.read_json(tmp_path / "data/raw/manifest.json")
    rejects = [
        {"id": one["id"], "split": "train", "code": HOSTILE[number // 40], "detail": one["text"]}
        for number, one in enumerate(raw)
    ]
    counts = Counter(one["code"] for one in rejects)
    summary = {
        "splits": {"train": {"rows_in": 200, "rows_kept": 0, "rejects": counts}, HOSTILE[0]: {}},
        "in_two_splits": {},
    }
    files.write_json(tmp_path / "reports/chunk/summary.json", summary)
    pq.write_table(
        pa.Table.from_pylist(rejects, schema=REJECT),
        tmp_path / "reports/chunk/rejects.parquet",
    )
    at = AppTest.from_function(page, default_timeout=120)
    for number in range(0, 200, 25):
        files.write_json(
            tmp_path / "data/raw/manifest.json",
            {**told, "name": HOSTILE[number], "licence": HOSTILE[number + 1]},
        )
        at.run()
        check(at)
        assert HOSTILE[number] in said(at)
        at.selectbox(key="data_reason").set_value(("train", HOSTILE[number // 40])).run()
        at.pagination[0].set_value(1 + number % 8).run()
        check(at)
        assert len(at.get("audio")) == 5


def test_damaged_stores_give_a_message(
    at: AppTest, results: SimpleNamespace, capsys: pytest.CaptureFixture
) -> None:
    hit: Counter[str] = Counter()
    for seed in range(4 * len(FILES)):
        name = FILES[seed % len(FILES)]
        with damaged(results.root / name, seed) as way:
            st.cache_resource.clear()  # else what was read before is not read again
            at.run()
            check(at)
            assert len(at.subheader) == 6
            told = bool(at.warning)
            unread = (
                "data/raw/train" in name
                and not at.get("audio")
                and at.selectbox(key="data_reason").value is None
            )
            assert told or unread or way in ("flipped", "shape", "cut"), (seed, name, way)
        hit[f"{way}, {'told' if told else 'harmless'}"] += 1
    at.run()
    assert not at.warning
    assert sum(count for what, count in hit.items() if what.endswith("told")) >= 2 * len(FILES)
    with capsys.disabled():
        print(f"\n{4 * len(FILES)} damaged stores: {dict(hit)}")


def test_a_fault_that_is_none_of_ours_would_be_seen(
    at: AppTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durations, "rows_of", raise_bug)
    at.run()
    with pytest.raises(AssertionError, match="encountered an error"):
        check(at)


def test_a_summary_of_no_split_is_a_fault(tmp_path):
    files.write_json(tmp_path / "reports/chunk/summary.json", {"splits": {}, "in_two_splits": {}})
    with pytest.raises(DataError, match=r"summary\.json: tells of no split"):
        reject_page.show(tmp_path)
