"""Durations, the price of windows, label lengths and what looks wrong, against numbers worked out
by hand.
"""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from asr.errors import DataError
from asr.features import FeatureRows
from asr.model.start import start_model
from asr.params.schema import Params
from asr.preflight import trial
from asr.stats import report
from asr.storage.shards import SPLITS
from asr.training.batches import Collator
from stages import stats
from support.data import encoded, encoded_by_av, load, row, sha256s, voice, write_rows
from support.model import hub_folder, write_features

SECONDS = {"train": [1.0, 2.0, 3.0, 5.0, 9.0], "validation": [2.0, 4.0], "test": [6.0]}
TEXTS = ["a", "ab", "å", "one two", "x" * 20]


@pytest.fixture(scope="session")
def raw(tmp_path_factory) -> Path:
    """Rows whose durations and texts are known; nothing of them is decoded."""
    rows = {
        split: [
            row(f"{split}-{index}", b"not decoded", TEXTS[index], duration=one)
            for index, one in enumerate(lengths)
        ]
        for split, lengths in SECONDS.items()
    }
    return write_rows(tmp_path_factory.mktemp("raw"), "part", rows, 2)


@pytest.fixture(scope="session")
def given_params(tmp_path_factory) -> Params:
    return load(
        tmp_path_factory.mktemp("params"),
        stats__window_candidates_seconds="[3, 5, 30]",
        model__scratch__vocab_size="257",
        model__scratch__max_target_positions="24",
        model__scratch__d_model="32",
        model__name="scratch",
        featurize__num_mel_bins="80",
    )


@pytest.fixture(scope="session")
def reports(tmp_path_factory, raw, given_params) -> Path:
    folder = tmp_path_factory.mktemp("stats")
    stats.run(raw, folder, given_params)
    return folder


@pytest.fixture(scope="session")
def told(reports) -> dict:
    return json.loads((reports / "stats.json").read_text())


def test_durations_are_summed_up_by_split(told):
    assert told["durations"]["train"] == {
        "count": 5,
        "hours": 20 / 3600,
        "mean_seconds": 4.0,
        "q25_seconds": 2.0,
        "median_seconds": 3.0,
        "q75_seconds": 5.0,
        "max_seconds": 9.0,
        "unknown": 0,
    }
    assert told["durations"]["validation"]["median_seconds"] == 3.0
    assert told["durations"]["test"]["hours"] == pytest.approx(6 / 3600)


def test_a_window_costs_what_its_rows_cost(told):
    small = {
        key: value for key, value in told["windows"]["3"].items() if key != "compute_against_30s"
    }
    assert small == {
        "window_seconds": 3,
        "rows_fit": 3,
        "share_fit": 0.6,
        "padding_share": pytest.approx(1 - 6 / 9),
        "feature_bytes": 6 * 100 * 80 * 12 // 8,
        "padded_float32_bytes": 3 * 300 * 80 * 4,
    }
    assert told["windows"]["5"]["rows_fit"] == 4
    assert told["windows"]["9"]["rows_fit"] == 5
    assert told["windows"]["30"]["padding_share"] == pytest.approx(1 - 20 / 150)
    assert told["windows"]["30"]["compute_against_30s"] == 1


def test_labels_are_counted_in_the_tokens_of_the_model(told):
    assert told["labels"] == {
        "mean_tokens": pytest.approx((1 + 2 + 2 + 7 + 20) / 5),
        "median_tokens": 2.0,
        "q95_tokens": pytest.approx(20 - 0.2 * 13),
        "max_tokens": 20,
        "prompt_tokens": 4,
        "max_target_positions": 24,
        "over_limit": 0,
        "near_limit": 1,
        "examples": [{"id": "train-4", "tokens": 24}],
    }


def test_the_table_of_windows_is_the_same_as_the_json(reports, told):
    rows = list(csv.DictReader((reports / "windows.csv").read_text().splitlines()))
    assert [{key: float(value) for key, value in one.items()} for one in rows] == list(
        told["windows"].values()
    )


def test_the_histogram_counts_every_recording_once(reports):
    rows = list(csv.DictReader((reports / "durations.csv").read_text().splitlines()))
    for split, lengths in SECONDS.items():
        mine = [one for one in rows if one["split"] == split]
        assert sum(int(one["count"]) for one in mine) == len(lengths)
        assert float(mine[-1]["share"]) == 1
        assert float(mine[-1]["seconds"]) == 9.0
        for one in mine:
            expected = sum(length < float(one["seconds"]) + 1e-9 for length in lengths) / len(
                lengths
            )
            touching = sum(abs(length - float(one["seconds"])) < 1e-3 for length in lengths) / len(
                lengths
            )
            assert abs(float(one["share"]) - expected) <= touching + 1e-6


def test_outputs_repeat_bit_for_bit(raw, given_params, reports, tmp_path):
    stats.run(raw, tmp_path / "elsewhere", given_params)
    assert sha256s(tmp_path / "elsewhere") == sha256s(reports)
    assert set(sha256s(reports)) == {
        "stats.json",
        "report.md",
        "windows.csv",
        "durations.csv",
        "durations.svg",
    }


def test_the_picture_is_an_svg_with_every_split_and_both_windows(reports):
    picture = (reports / "durations.svg").read_text()
    assert picture.startswith("<?xml")
    for label in (*SECONDS, "recommended window, 9 s", "window in params, 3 s", "other candidates"):
        assert f"<!-- {label} -->" in picture


def test_nothing_of_the_picture_lies_outside_it(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        Figure, "savefig", lambda self, path, **_: (path.touch(), drawn.append(self))
    )
    seconds = np.linspace(1, 15, 50, dtype=np.float32)
    bins = report.histogram(dict.fromkeys((*SPLITS, "holdout"), seconds))
    report.draw(bins, [3, 5, 10], 15, 3, tmp_path / "picture.svg")
    (figure,) = drawn
    figure.canvas.draw()
    (legend,) = figure.legends
    box, whole = legend.get_window_extent(), figure.bbox
    assert whole.x0 <= box.x0 < box.x1 <= whole.x1
    assert len(legend.get_texts()) == 7


def test_a_picture_of_many_recordings_is_no_larger(tmp_path):
    sizes = []
    for count in (100, 500_000):
        seconds = np.random.default_rng(1).gamma(6, 0.8, count).astype(np.float32)
        bins = report.histogram({"train": seconds, "test": seconds[:50], "holdout": seconds[:0]})
        assert sum(row["count"] for row in bins if row["split"] == "train") == count
        report.draw(bins, [5, 10], 12, 3, tmp_path / "picture.svg")
        sizes.append((tmp_path / "picture.svg").stat().st_size)
    assert max(sizes) < 200_000
    assert sizes[1] < 1.2 * sizes[0]


def test_what_is_far_longer_than_all_others_is_in_the_last_bin():
    bins = report.histogram({"train": np.array([1, 2, 3, 3000], np.float32)})
    assert (bins[-1]["seconds"], bins[-1]["count"], bins[-1]["share"]) == (report.LONGEST, 1, 1)


def test_the_gist_is_printed(raw, given_params, tmp_path, capsys):
    stats.run(raw, tmp_path, given_params)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "train: 5 recordings, 0.01 h, median 3.00 s, longest 9.00 s"
    assert [line.split()[:4] for line in printed[4:8]] == [
        ["3", "s", "3", "60.00%"],
        ["5", "s", "4", "80.00%"],
        ["9", "s", "5", "100.00%"],
        ["30", "s", "5", "100.00%"],
    ]
    assert printed[8].startswith(
        "recommended window: 9 s: it holds all training recordings, with 56 % of padding. Rule: "
    )
    assert (
        "model.scratch.window_seconds is 3: it holds 2 fewer of the training recordings, "
        "and each takes "
    ) in printed[8]
    assert printed[9] == "labels: median 2 tokens, longest 20; 0 do not fit the decoder, 1 nearly"


def test_labels_that_do_not_fit_are_those_that_training_leaves_out(tmp_path, given_params):
    texts = ["x" * length for length in (1, 19, 20, 21, 40)]
    rows = {
        "train": [
            row(f"t{number}", encoded(voice(0.5)), text, duration=0.5)
            for number, text in enumerate(texts)
        ]
    }
    raw = write_rows(tmp_path / "raw", "part", rows)
    stats.run(raw, tmp_path / "reports", given_params)
    told = json.loads((tmp_path / "reports/stats.json").read_text())["labels"]
    kept = write_features(
        tmp_path / "features",
        [{"id": one["id"], "text": one["text"], "seconds": 0.5} for one in rows["train"]],
    )
    start = start_model(given_params, FeatureRows(kept))
    chosen = Collator(start.model, start.tokenizer).choose(FeatureRows(kept))
    assert chosen.left_out["label_too_long"] == told["over_limit"] == 2
    assert [one["id"] for one in told["examples"]] == ["t4", "t3", "t2", "t1"]


def test_a_lower_share_makes_a_shorter_window_do(raw, given_params, tmp_path):
    changed = given_params.model_copy(
        update={"stats": given_params.stats.model_copy(update={"min_share_kept": 0.8})}
    )
    stats.run(raw, tmp_path, changed)
    assert json.loads((tmp_path / "stats.json").read_text())["recommended"]["window_seconds"] == 5


def test_hostile_texts_are_text_in_the_report(tmp_path, given_params):
    wicked = "| # <script>alert(1)</script>\n| a | `b` | ![x](y) " + "w" * 500
    rows = [
        row(f"r{number}", b"", "some ten letters", duration=1.0 + number % 7 / 10)
        for number in range(40)
    ]
    raw = write_rows(
        tmp_path / "raw", "part", {"train": [*rows, row("|<b>|", b"", wicked, duration=1.0)]}
    )
    stats.run(raw, tmp_path / "reports", given_params)
    told = (tmp_path / "reports/report.md").read_text()
    (line,) = [line for line in told.splitlines() if "alert" in line]
    assert "&lt;script&gt;" in line
    assert len(re.findall(r"(?<!\\)\|", line)) == 6  # the table's own
    assert "<script>" not in told
    assert "![x]" not in told


def test_the_time_of_a_row_is_told_by_a_trial_and_stands_in_no_other_file(
    raw, given_params, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(trial, "ALL_SECONDS", 0.0)
    rows = {
        "train": [
            row(f"r{number}", encoded(voice(1.0, seed=number)), "one two", duration=1.0)
            for number in range(3)
        ],
        "test": [],
    }
    timed = {}
    stats.run(write_rows(tmp_path / "raw", "part", rows), tmp_path / "timed", given_params, timed)
    assert set(timed["windows"]) == {"1", "3", "5", "30"}
    assert timed["windows"]["3"]["epoch_seconds"] == 3 * timed["windows"]["3"]["row_seconds"] > 0
    assert timed["windows"]["1"]["measured"]
    assert "an epoch would take about" in capsys.readouterr().out
    stats.run(tmp_path / "raw", tmp_path / "untimed", given_params)
    assert sha256s(tmp_path / "timed") == sha256s(tmp_path / "untimed")
    monkeypatch.setattr(stats, "forecast_apart", stats.forecast)  # nothing is there to crash of
    nothing = {}
    stats.run(raw, tmp_path / "undecodable", given_params, nothing)
    assert nothing["windows"] == {}
    assert "no trial was possible" in capsys.readouterr().out


def test_a_checkpoint_has_its_own_window_and_its_own_positions(raw, given_params, tmp_path):
    folder = hub_folder(tmp_path / "whisper")
    given = given_params.model_copy(
        update={"model": given_params.model.model_copy(update={"name": str(folder)})}
    )
    stats.run(raw, tmp_path / "reports", given)
    told = json.loads((tmp_path / "reports/stats.json").read_text())
    assert told["recommended"]["window_seconds"] == 9
    assert told["recommended"]["present_window_seconds"] == 30
    assert (
        "the start model's own, is 30: it holds as many of the training recordings"
        in told["recommended"]["reason"]
    )
    assert told["labels"]["max_target_positions"] == 64


def test_durations_that_no_header_tells_are_measured_and_what_has_none_is_counted(
    tmp_path, given_params
):
    rows = {
        "train": [
            row("a", encoded_by_av(voice(2.0), 16_000, "mp4", "aac"), "a"),
            row("b", b"text", "b"),
            row("c", None, "c"),
            row("d", b"x", "d", duration=3.0),
        ],
        "validation": [row("e", encoded(voice(1.5)), "e", duration=1.5)],
        "test": [row("f", b"text", "f")],
    }
    stats.run(write_rows(tmp_path / "raw", "part", rows), tmp_path / "reports", given_params)
    told = json.loads((tmp_path / "reports" / "stats.json").read_text())["durations"]
    assert (told["train"]["count"], told["train"]["unknown"]) == (2, 2)
    assert told["train"]["hours"] * 3600 == pytest.approx(5.0, abs=0.1)
    assert told["test"] == {"count": 0, "unknown": 1}


def test_a_corpus_without_one_readable_recording_is_told_or_refused_not_a_crash(
    tmp_path, given_params
):
    raw = write_rows(
        tmp_path / "raw", "part", {split: [row(split, b"text", "a")] for split in SECONDS}
    )
    try:
        stats.run(raw, tmp_path / "reports", given_params)
    except DataError:
        return
    told = json.loads((tmp_path / "reports" / "stats.json").read_text())
    assert told["durations"]["train"] == {"count": 0, "unknown": 1}
