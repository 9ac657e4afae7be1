"""Durations, the price of windows and label lengths, against numbers worked out by hand."""

import csv
import json
from pathlib import Path

import pytest
from data_fixtures import encoded, encoded_by_av, load, row, sha256s, voice, write_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.faults import BadData
from asr.params import Params
from stages import stats

SECONDS = {"train": [1.0, 2.0, 3.0, 5.0, 9.0], "validation": [2.0, 4.0], "test": [6.0]}
TEXTS = ["a", "ab", "å", "one two", "x" * 20]


@pytest.fixture(scope="session")
def raw(tmp_path_factory) -> Path:
    """Rows whose durations and texts are known; nothing of them is decoded."""
    rows = {
        split: [row(f"{split}-{index}", b"not decoded", TEXTS[index], duration=one) for index, one in enumerate(lengths)]
        for split, lengths in SECONDS.items()
    }
    return write_rows(tmp_path_factory.mktemp("raw"), "part", rows, 2)


@pytest.fixture(scope="session")
def given_params(tmp_path_factory) -> Params:
    return load(
        tmp_path_factory.mktemp("params"),
        stats__window_candidates_seconds="[3, 5, 30]",
        model__scratch__vocab_size="257",
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
    small = {key: value for key, value in told["windows"]["3"].items() if key != "compute_against_30s"}
    assert small == {
        "window_seconds": 3,
        "rows_fit": 3,
        "share_fit": 0.6,
        "padding_share": pytest.approx(1 - 6 / 9),
        "feature_bytes": 6 * 100 * 80 * 12 // 8,
        "padded_float32_bytes": 3 * 300 * 80 * 4,
    }
    assert told["windows"]["5"]["rows_fit"] == 4
    assert told["windows"]["30"]["padding_share"] == pytest.approx(1 - 20 / 150)
    assert told["windows"]["30"]["compute_against_30s"] == 1


def test_labels_are_counted_in_the_tokens_of_the_model(told):
    assert told["labels"] == {
        "mean_tokens": pytest.approx((1 + 2 + 2 + 7 + 20) / 5),
        "median_tokens": 2.0,
        "q95_tokens": pytest.approx(20 - 0.2 * 13),
        "max_tokens": 20,
    }


def test_the_table_of_windows_is_the_same_as_the_json(reports, told):
    rows = list(csv.DictReader((reports / "windows.csv").read_text().splitlines()))
    assert [{key: float(value) for key, value in one.items()} for one in rows] == list(told["windows"].values())


def test_the_histogram_counts_every_recording_once(reports):
    rows = list(csv.DictReader((reports / "durations.csv").read_text().splitlines()))
    for split, lengths in SECONDS.items():
        mine = [one for one in rows if one["split"] == split]
        assert sum(int(one["count"]) for one in mine) == len(lengths)
        assert float(mine[-1]["share"]) == 1
        assert float(mine[-1]["seconds"]) == 9.0
        for one in mine:
            expected = sum(length < float(one["seconds"]) + 1e-9 for length in lengths) / len(lengths)
            touching = sum(abs(length - float(one["seconds"])) < 1e-3 for length in lengths) / len(lengths)
            assert abs(float(one["share"]) - expected) <= touching + 1e-6


def test_outputs_repeat_bit_for_bit(raw, given_params, reports, tmp_path):
    stats.run(raw, tmp_path / "elsewhere", given_params)
    assert sha256s(tmp_path / "elsewhere") == sha256s(reports)
    assert set(sha256s(reports)) == {"stats.json", "windows.csv", "durations.csv", "durations.svg"}


def test_the_picture_is_an_svg_with_every_split(reports):
    picture = (reports / "durations.svg").read_text()
    assert picture.startswith("<?xml")
    for split in SECONDS:
        assert f"<!-- {split} -->" in picture


def test_the_table_is_printed(raw, given_params, tmp_path, capsys):
    stats.run(raw, tmp_path, given_params)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "train: 5 recordings, 0.01 h, median 3.00 s, longest 9.00 s"
    assert [line.split()[:4] for line in printed[-4:-1]] == [["3", "s", "3", "60.0%"], ["5", "s", "4", "80.0%"], ["30", "s", "5", "100.0%"]]
    assert printed[-1] == "labels: median 2 tokens, longest 20"


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0.1, 60), max_size=30), st.floats(0.5, 30))
def test_rows_that_fit_are_those_no_longer_than_the_window(seconds, window):
    price = stats.window_price(window, seconds, 80)
    assert price["rows_fit"] == sum(one <= window for one in seconds)
    assert 0 <= price["padding_share"] <= 1
    assert price["feature_bytes"] <= price["padded_float32_bytes"] * 3 / 8 + 1


@settings(deadline=None, max_examples=30)
@given(st.floats(1, 29), st.floats(0.5, 1))
def test_a_smaller_window_costs_less_but_more_than_its_share_of_nothing(window, less):
    assert 0 < stats.training_flops(window * less) <= stats.training_flops(window) < stats.training_flops(30)


@pytest.mark.parametrize("window", [5, 30])
def test_the_price_is_the_one_that_torch_counts(window):
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    config = WhisperConfig(
        d_model=768,
        encoder_layers=12,
        decoder_layers=12,
        encoder_attention_heads=12,
        decoder_attention_heads=12,
        encoder_ffn_dim=3072,
        decoder_ffn_dim=3072,
        max_source_positions=50 * window,
        use_cache=False,
    )
    with torch.device("meta"):
        model = WhisperForConditionalGeneration._from_config(config, attn_implementation="eager")
        clip, tokens, mask = (
            torch.zeros(1, 80, 100 * window),
            torch.zeros(1, stats.LABEL_TOKENS, dtype=torch.long),
            torch.ones(1, stats.LABEL_TOKENS),
        )
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_features=clip, decoder_input_ids=tokens, decoder_attention_mask=mask)
    assert stats.training_flops(window) == pytest.approx(3 * counter.get_total_flops(), rel=0.01)


def test_durations_that_no_header_tells_are_measured_and_what_has_none_is_counted(tmp_path, given_params):
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


def test_a_corpus_without_one_readable_recording_is_told_or_refused_not_a_crash(tmp_path, given_params):
    raw = write_rows(tmp_path / "raw", "part", {split: [row(split, b"text", "a")] for split in SECONDS})
    try:
        stats.run(raw, tmp_path / "reports", given_params)
    except BadData:
        return
    told = json.loads((tmp_path / "reports" / "stats.json").read_text())
    assert told["durations"]["train"] == {"count": 0, "unknown": 1}
