"""The metric and the saved model: sound ones pass, and the smallest violation is caught."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr import stopping, wer
from asr.checks.check import Check
from asr.checks.decoding import (
    CUT_SHARE,
    GENERATED,
    JUMP,
    MAX_WRONG,
    loss_and_wer_agree,
    metric_is_sound,
    saved_model_is_the_best,
)
from asr.features import FeatureRows
from asr.model import greedy, tokenization
from asr.model.loader import Start
from asr.model.start import start_model
from asr.training.batches import Collator
from asr.training.validation import Validation
from support.training import given as given_params

Batch = dict[str, torch.Tensor]


# The metric


def metric_of(
    texts: list[str],
    references: list[str] | None = None,
    lengths: list[int] | None = None,
    num_rows: int | None = None,
) -> Check:
    return metric_is_sound(
        [wer.normalize(text) for text in texts] if references is None else references,
        texts,
        [3] * len(texts) if lengths is None else lengths,
        [1.0] * len(texts),
        len(texts) if num_rows is None else num_rows,
    )


WORDS = st.lists(st.sampled_from(["ett", "två", "tre", "fyra"]), min_size=1, max_size=4)


@settings(deadline=None)
@given(st.lists(WORDS.map(" ".join), min_size=1, max_size=6))
def test_the_metric_is_sound_for_any_texts(texts: list[str]) -> None:
    check = metric_of(texts)
    assert check.passed
    assert check.detail == (
        "itself 0.000, silence 1.000, said twice 1.000; 100% of words compared; "
        f"decoding has too little room for 0 of {len(texts)} texts, {len(texts)} were asked for"
    )


FIFTY = ["ett två tre"] * 50


def test_a_metric_of_half_the_words_is_caught() -> None:
    most = metric_of(FIFTY, references=["ett två"] * 50)
    half = metric_of(["ett två"] * 50, references=["ett"] * 50)
    assert most.passed
    assert not half.passed
    assert "; 50% of words compared; " in half.detail


def test_decoding_may_cut_one_text_of_fifty_and_no_more() -> None:
    room = stopping.max_tokens(1.0)
    assert CUT_SHARE * 50 == 1
    assert metric_of(FIFTY, lengths=[room] * 50).passed
    assert metric_of(FIFTY, lengths=[room + 1, *[room] * 49]).passed
    cut = metric_of(FIFTY, lengths=[room + 1, room + 1, *[room] * 48])
    assert not cut.passed
    assert "too little room for 2 of 50 texts" in cut.detail


def test_a_metric_of_fewer_rows_than_params_ask_for_is_caught() -> None:
    check = metric_of(FIFTY, num_rows=51)
    assert not check.passed
    assert check.detail.endswith("of 50 texts, 51 were asked for")


@pytest.mark.parametrize(
    ("rates", "seen"),
    [
        ((0.001, 1.0, 1.0), "itself 0.001, silence 1.000, said twice 1.000"),
        ((0.0, 0.999, 1.0), "itself 0.000, silence 0.999, said twice 1.000"),
        ((0.0, 1.0, 0.999), "itself 0.000, silence 1.000, said twice 0.999"),
    ],
)
def test_a_rate_that_is_off_by_a_thousandth_is_caught(
    rates: tuple[float, ...], seen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    coming: Iterator[float] = iter(rates)
    monkeypatch.setattr(wer, "error_rates", lambda *_: {"wer": next(coming)})
    check = metric_of(FIFTY)
    assert not check.passed
    assert check.detail.startswith(seen)


# Loss and WER together


def evaluations(*pairs: tuple[float | None, float]) -> list[dict[str, Any]]:
    return [
        {"step": step, "validation_loss": loss, "validation_wer": error_rate}
        for step, (loss, error_rate) in zip(count(), pairs, strict=False)
    ]


def never() -> list[tuple[str, str]]:
    raise AssertionError("decoded, though nothing failed")


@pytest.mark.parametrize(
    "pairs",
    [
        [],
        [(2.0, 1.0), (1.0, 0.5)],
        [(2.0, 0.5), (1.0, 0.5 + JUMP)],  # noise
        [(2.0, 0.5), (2.0, 0.9)],  # rose with the loss
        [(2.0, 0.5), (None, 0.9)],  # no row fits the window
        [(2.0, 1.2), (1.0, 1.9)],  # no best one yet
    ],
)
def test_the_error_rate_may_fall_or_rise_with_the_loss(
    pairs: list[tuple[float | None, float]],
) -> None:
    check = loss_and_wer_agree([{"step": 0, "train_loss": 3.0}, *evaluations(*pairs)], never, "<p>")
    assert check == Check("decoding", True, "the WER fell, or rose with the loss")


def test_an_error_rate_that_jumps_while_the_loss_falls_is_caught() -> None:
    rows = evaluations((3.0, 0.9), (2.0, 0.5), (1.999, 0.501 + JUMP))
    check = loss_and_wer_agree(rows, lambda: [("ett", "två")], "<p>")
    assert check == Check(
        "decoding",
        False,
        "step 2: loss 2.000 -> 1.999, WER 0.500 -> 0.601; after <p>: 'ett' was heard as 'två'",
    )


# The saved model


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> Start:
    rows = FeatureRows(tiny_data / "data/features/train")
    return start_model(given_params(tmp_path_factory.mktemp("params")), rows)


@pytest.fixture(scope="module")
def validation(tiny_data: Path, start: Start) -> Validation:
    rows = FeatureRows(tiny_data / "data/features/validation")
    collator = Collator(start.model, start.tokenizer)
    return Validation(rows, collator, count=GENERATED, seed=1, batch_size=4)


def saved_check(
    start: Start, validation: Validation, best: Batch, off: float = 0.0, **changes: Any
) -> Check:
    """The check of a model that has these weights, whose WER was measured as it is, or off."""
    texts = greedy.transcribe(
        start.model.eval(),
        start.tokenizer,
        validation.durations,
        lambda index: validation.rows.log_mel(validation.row_numbers[index]),
        validation.batch_size,
        validation.collator.positions,
    )
    measured = validation.scores(texts)["wer"] + off
    return saved_model_is_the_best(replace(start, **changes), best, [4], measured, validation)


def weights_of(start: Start) -> Batch:
    return {name: value.clone() for name, value in start.model.state_dict().items()}


def test_a_saved_model_is_sound_with_its_own_weights(start: Start, validation: Validation) -> None:
    check = saved_check(start, validation, weights_of(start))
    assert check.passed, check.detail
    assert check.detail.endswith(", as measured; generate() agrees")


def test_a_weight_that_differs_in_its_last_bit_is_seen(
    start: Start, validation: Validation
) -> None:
    best = weights_of(start)
    name = "model.decoder.layers.0.fc1.weight"
    best[name][0, 0] = torch.nextafter(best[name][0, 0], torch.tensor(math.inf))
    check = saved_check(start, validation, best)
    assert check == Check("saved_model", False, f"{name} is not that of step [4]")


def test_another_error_rate_than_was_measured_is_seen(start: Start, validation: Validation) -> None:
    check = saved_check(start, validation, weights_of(start), off=1e-4)
    assert not check.passed
    assert check.detail.endswith("was measured")


def test_another_tokenizer_is_seen(start: Start, validation: Validation) -> None:
    other = tokenization.from_texts(["ein zwei drei vier"], 300)
    check = saved_check(start, validation, weights_of(start), tokenizer=other)
    assert not check.passed
    assert "its tokenizer is another one" in check.detail


def test_generation_that_hears_something_else_is_seen(
    start: Start, validation: Validation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the rows that are generated, the first few are named."""
    (ids,) = tokenization.text_ids(start.tokenizer, ["something"])

    def generate(inputs: torch.Tensor, **_: Any) -> torch.Tensor:
        return torch.tensor([[*validation.collator.prompt, *ids]] * len(inputs))

    monkeypatch.setattr(start.model, "generate", generate)
    check = saved_check(start, validation, weights_of(start))
    assert not check.passed
    assert check.detail.count("generate() hears 'something', we '") == MAX_WRONG
