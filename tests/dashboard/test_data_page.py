"""The data page: its tables are the reports', every reason has examples to hear, hostile texts stay
text, damaged stores give a message.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import streamlit as st
import yaml
from streamlit.testing.v1 import AppTest

from asr import augmentation, paths
from asr.cleaning.rejects import REJECT
from asr.dvc_hashes import of_file as md5_of
from asr.errors import DataError
from asr.params import reader
from asr.storage import files, hashing, shards
from dashboard import workspace
from dashboard.data import durations, left_by_training
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
    "reports/train/summary.json",
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
    trained = {"rows_trained": 6, "rows_left_out": {"longer_than_window": 2, "label_too_long": 0}}
    files.write_json(root / paths.SUMMARY, {**trained, "window_seconds": 3})
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


# Of which corpus


def write_lock(root: Path, **changed: str) -> None:
    """A dvc.lock of the stages that were run on this corpus.

    Args:
        changed: other hashes that stages read: `raw_by_stats`, `raw_by_chunk`, `chunks`,
            `features`, `manifest`, or of what `download` wrote last, `raw`.
    """
    names = ("raw", "chunks", "features")
    hashes = {name: dvc_hash(root / "data" / name) for name in names}
    given = {
        "raw_by_stats": hashes["raw"],
        "raw_by_chunk": hashes["raw"],
        "chunks_by_featurize": hashes["chunks"],
        "features_by_train": hashes["features"],
        **hashes,
        **changed,
    }
    stages = {
        "download": ({}, {"data/raw": given["raw"]}),
        "stats": ({"data/raw": given["raw_by_stats"]}, {paths.STATS: md5_of(root / paths.STATS)}),
        "chunk": (
            {"data/raw": given["raw_by_chunk"]},
            {
                "data/chunks": given["chunks"],
                paths.CHUNK_SUMMARY: given.get("summary", md5_of(root / paths.CHUNK_SUMMARY)),
            },
        ),
        "featurize": (
            {"data/chunks": given["chunks_by_featurize"]},
            {"data/features": given["features"]},
        ),
        "train": (
            {"data/features": given["features_by_train"]},
            {paths.SUMMARY: md5_of(root / paths.SUMMARY)},
        ),
    }
    lock = {
        stage: {
            kind: [{"path": path, "md5": hash} for path, hash in told.items()]
            for kind, told in (("deps", deps), ("outs", outs))
        }
        for stage, (deps, outs) in stages.items()
    }
    files.write_text(root / "dvc.lock", yaml.safe_dump({"stages": lock}))


def dvc_hash(folder: Path) -> str:
    """Any hash that is a folder's own."""
    return f"{hashing.hash_of(str(folder))[:32]}.dir"


@pytest.fixture
def measured(results: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The corpus, and a training of it, with a dvc.lock that ties all of it together."""
    monkeypatch.setenv("DVC_ROOT", str(results.root))
    write_lock(results.root)
    yield results.root
    (results.root / "dvc.lock").unlink()


def drawn() -> AppTest:
    at = AppTest.from_function(page, default_timeout=120).run()
    check(at)
    return at


def text(at: AppTest) -> str:
    told = [*at.caption, *at.info, *at.warning, *at.markdown]
    return "\n".join(str(one.value) for one in told).replace("\\", "")


NOT_MADE = "Not made yet for this corpus."


@pytest.mark.parametrize(
    ("changed", "parts", "command"),
    [
        ({}, 0, None),
        ({"raw": "1.dir"}, 6, "dvc repro stats chunk"),  # another corpus was brought
        ({"raw_by_stats": "1.dir"}, 3, "dvc repro stats"),
        ({"raw_by_chunk": "1.dir"}, 3, "dvc repro chunk"),
        ({"summary": "1"}, 3, "dvc repro chunk"),  # a report that was changed by hand
    ],
)
def test_what_was_measured_of_another_corpus_is_not_shown_as_of_this_one(
    measured: Path, changed: dict[str, str], parts: int, command: str | None
) -> None:
    write_lock(measured, **changed)
    at = drawn()
    assert [one.value for one in at.caption].count(NOT_MADE) == parts
    assert [one.value for one in at.code] == ([command] if command else [])
    assert (len(at.dataframe) == 0) == (parts == 6)
    assert "a corpus" in said(at), "the heading is that of the corpus"
    assert len(at.subheader) == 6


def test_while_dvc_makes_a_part_its_command_is_not_advised(
    measured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is of another corpus, and what is not there; the control is DVC at rest."""
    write_lock(measured, raw="1.dir")
    for works in (True, False):
        monkeypatch.setattr(workspace, "is_being_made", lambda works=works: works)
        at = drawn()
        assert ("Being made now." in text(at)) == works
        assert (NOT_MADE in text(at)) != works
        assert bool(at.code) != works
    write_lock(measured)
    (measured / paths.DURATIONS).rename(measured / "durations")
    try:
        for works in (True, False):
            monkeypatch.setattr(workspace, "is_being_made", lambda works=works: works)
            at = drawn()
            assert ("Being made now." in text(at)) == works
            assert bool(at.warning) != works
    finally:
        (measured / "durations").rename(measured / paths.DURATIONS)


@pytest.mark.usefixtures("measured")
def test_what_training_left_out_is_told_beside_what_chunk_left_out() -> None:
    told = text(drawn())
    assert "The training left out 2 more (25.0 %): 2 longer than the window of 3 s." in told
    assert "In all 9 of 15 training recordings (60.0 %) are unused." in told


@pytest.mark.parametrize(
    "changed",
    [
        {"raw": "1.dir", "raw_by_chunk": "1.dir"},
        {"chunks": "1.dir"},
        {"chunks_by_featurize": "1.dir"},
        {"features_by_train": "1.dir"},
    ],
)
def test_what_a_training_of_other_data_left_out_is_not_told(
    measured: Path, changed: dict[str, str]
) -> None:
    write_lock(measured, **changed)
    told = text(drawn())
    is_control = set(changed) == {"raw", "raw_by_chunk"}
    assert ("left out 2 more" in told) == is_control
    assert (left_by_training.NO_TRAINING in told) != is_control


def test_where_it_is_not_known_whether_a_training_is_of_this_corpus_that_is_said(
    measured: Path,
) -> None:
    """It read a folder inside an out, and DVC's cache lacks the list of that out's files."""
    assert "is not known" not in text(drawn()), "the control"
    lock = yaml.safe_load((measured / "dvc.lock").read_text())
    lock["stages"]["train"]["deps"][0]["path"] = "data/features/train"
    (measured / "dvc.lock").write_text(yaml.safe_dump(lock))
    told = text(drawn())
    assert "left out 2 more" in told
    assert "whether data/features/train is as train read it is not known" in told


@pytest.mark.parametrize(
    ("left_out", "trained", "window", "told"),
    [
        ({}, 9, 3, "The training left out none of its 9 recordings."),
        ({"longer_than_window": 0}, 9, 3, "The training left out none of its 9 recordings."),
        (
            {"longer_than_window": 808},
            3191,
            2,
            "The training left out 808 more (20.2 %): 808 longer than the window of 2 s.",
        ),
        (
            {"longer_than_window": 1, "label_too_long": 1500},
            2499,
            None,
            "The training left out 1,501 more (37.5 %): 1,500 with a text longer than the model"
            " can write, 1 longer than the window.",
        ),
        ({"a new <reason>": 1}, 0, 3, "The training left out 1 more (100.0 %): 1 a new <reason>."),
        ({"{window.x}": 1}, 1, 3, "The training left out 1 more (50.0 %): 1 {window.x}."),
    ],
)
def test_a_training_says_how_many_recordings_it_left_out_and_why(
    left_out: dict[str, int], trained: int, window: int | None, told: str
) -> None:
    assert left_by_training.sentence({"window_seconds": window}, left_out, trained) == told


@pytest.mark.parametrize(
    ("copies", "told"),
    [
        (0, "Your params make 0 copies: training hears none of these."),
        (1, "Your params make 1 copy of each training recording, which sound like these."),
        (3, "Your params make 3 copies of each training recording, which sound like these."),
    ],
)
def test_copies_are_played_as_what_training_hears_only_if_params_make_some(
    results: SimpleNamespace, at: AppTest, copies: int, told: str
) -> None:
    path = results.root / "params.yaml"
    before = path.read_text()
    given = re.sub(r"(?m)^    copies: \d+", f"    copies: {copies}", before)
    try:
        path.write_text(given)
        at.run()
        check(at)
        assert told in [one.value for one in at.caption]
    finally:
        path.write_text(before)


def test_what_is_chosen_on_data_is_in_the_address(at: AppTest) -> None:
    at.selectbox(key="data_reason").set_value(("train", "audio_missing")).run()
    at.selectbox(key="data_split").set_value("test").run()
    at.selectbox(key="data_copied").set_value("train-3").run()
    linked = AppTest.from_function(page, default_timeout=120)
    linked.query_params.update(at.query_params)
    linked.run()
    check(linked)
    for key in ("data_reason", "data_split", "data_copied"):
        assert linked.selectbox(key=key).value == at.selectbox(key=key).value
    for told in ({"data_reason": ["x"]}, {"data_split": "y"}, {"data_page": "0"}):
        odd = AppTest.from_function(page, default_timeout=120)
        odd.query_params.update(told)
        odd.run()
        check(odd)


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
            told = bool(at.warning) or left_by_training.NO_TRAINING in text(at)
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
