"""What each check says of plain values: sound ones pass, and the smallest violation is caught."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from training_fixtures import given as given_params

from asr import wer
from asr.checks.check import Check, table
from asr.checks.data import batch_is_sound, order_is_whole, splits_are_apart
from asr.checks.decoding import (
    CUT_SHARE,
    GENERATED,
    JUMP,
    MAX_WRONG,
    loss_and_wer_agree,
    metric_is_sound,
    saved_model_is_the_best,
)
from asr.checks.loss import (
    LOSS_ERROR,
    MAX_DRAWS,
    loss_fell,
    loss_is_of_all_labels,
    noise_is_where_it_belongs,
    start_knows_its_tokens,
)
from asr.checks.weights import PEAK_ERROR, rate_followed, updates_were_made, weights_moved
from asr.features import TAIL, FeatureRows
from asr.model import greedy, loader, tokenization
from asr.model.loader import Start
from asr.model.start import start_model
from asr.training.batches import Collator
from asr.training.examples import TrainingExample
from asr.training.optimization import scheduled_rate
from asr.training.validation import Validation

Batch = dict[str, torch.Tensor]


def test_the_table_holds_what_was_seen_by_name() -> None:
    checks = [Check("a", True, "well"), Check("b", False, "ill")]
    assert table(checks) == {
        "a": {"passed": True, "detail": "well"},
        "b": {"passed": False, "detail": "ill"},
    }


# Batches


@pytest.fixture(scope="module")
def rows(tiny_data: Path) -> FeatureRows:
    return FeatureRows(tiny_data / "data/features/train")


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory, rows: FeatureRows) -> Start:
    return start_model(given_params(tmp_path_factory.mktemp("params")), rows)


@pytest.fixture(scope="module")
def collator(start: Start) -> Collator:
    return Collator(start.model, start.tokenizer)


@pytest.fixture(scope="module")
def windows(collator: Collator, rows: FeatureRows) -> list[TrainingExample]:
    """Two rows alone, the shorter text first, and a silence of half a second."""
    alone = [collator.example([row], timed=False) for row in collator.choose(rows).rows]
    silence = replace(collator.example([], timed=False), num_frames=50, number=1)
    alone.sort(key=lambda window: len(window.text_ids))
    return [alone[0], alone[-1], silence]


def test_a_batch_of_the_rows_themselves_is_sound(
    collator: Collator, rows: FeatureRows, windows: list[TrainingExample]
) -> None:
    check = batch_is_sound(collator, rows, [(collator.batch(rows, windows), windows)])
    assert check == Check("batch", True, "inputs, labels and padding are the rows' own")


Spoil = Callable[[Batch, TrainingExample, int], None]


def another_input(batch: Batch, window: TrainingExample, _: int) -> None:
    batch["decoder_input_ids"][0, len(window.prompt)] += 1


def another_label(batch: Batch, window: TrainingExample, _: int) -> None:
    batch["labels"][0, len(window.prompt) - 1] += 1


def a_label_in_the_prompt(batch: Batch, window: TrainingExample, _: int) -> None:
    batch["labels"][0, 0] = window.prompt[1]


def a_label_in_the_padding(batch: Batch, *_: Any) -> None:
    batch["labels"][0, -1] = 0


def another_frame(batch: Batch, _: TrainingExample, num_frames: int) -> None:
    batch["input_features"][0, 0, num_frames // 2] += 0.01


def a_louder_padding(batch: Batch, _: TrainingExample, num_frames: int) -> None:
    batch["input_features"][0, 0, num_frames + TAIL] += 0.01


def a_loud_silence(batch: Batch, *_: Any) -> None:
    batch["input_features"][2] += 3


@pytest.mark.parametrize(
    ("spoil", "detail"),
    [
        (another_input, "inputs are not prompt and text"),
        (another_label, "labels are not the inputs that come next"),
        (a_label_in_the_prompt, "labels are not the inputs that come next"),
        (a_label_in_the_padding, "labels are not the inputs that come next"),
        (another_frame, "features are not the row's"),
        (a_louder_padding, "padding is not the row's floor"),
        (a_loud_silence, "silence is loud"),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_one_wrong_value_of_a_batch_is_seen(
    spoil: Spoil,
    detail: str,
    collator: Collator,
    rows: FeatureRows,
    windows: list[TrainingExample],
) -> None:
    batch = collator.batch(rows, windows)
    spoil(batch, windows[0], windows[0].num_frames)
    check = batch_is_sound(collator, rows, [(batch, windows)])
    assert check == Check("batch", False, detail)


# Splits and order


@given(st.sets(st.binary(min_size=1, max_size=2)), st.sets(st.binary(min_size=1, max_size=2)))
def test_splits_share_no_sound(train: set[bytes], validation: set[bytes]) -> None:
    assert splits_are_apart(train, validation - train).passed
    shared = splits_are_apart(train | {b"abc"}, (validation - train) | {b"abc"})
    assert shared == Check("splits", False, "1 sounds were taught and judged by")


def window(*rows: int) -> TrainingExample:
    return TrainingExample(rows, num_frames=100, prompt=(), text_ids=())


DURATIONS = [1.0] * 40


def order_of(
    first: list[TrainingExample],
    second: list[TrainingExample],
    num_windows: int = 40,
    expected: list[int] | None = None,
) -> Check:
    rows = list(range(40)) if expected is None else expected
    return order_is_whole((first, second), rows, num_windows, DURATIONS, window_seconds=2.0)


ALONE = [window(row) for row in range(40)]
ALL = "40 of 40 rows in the first epoch, 40 of 40 in all"


@settings(deadline=None)
@given(st.permutations(range(40)), st.integers(1, 39))
def test_any_order_of_all_rows_is_whole_if_the_next_epoch_has_another(
    order: list[int], turned: int
) -> None:
    first = [ALONE[row] for row in order]
    second = first[turned:] + first[:turned]
    assert order_of(first, second) == Check("order", True, ALL)
    assert order_of(first, first) == Check(
        "order", False, f"{ALL}; the second epoch has the same order"
    )


def test_a_row_that_counts_twice_comes_twice() -> None:
    twice = [*ALONE, window(7)]
    expected = [*range(40), 7]
    sound = "40 of 40 rows in the first epoch, 41 of 41 in all"
    assert order_of(twice, ALONE, 41, expected) == Check("order", True, sound)


@pytest.mark.parametrize(
    ("first", "num_windows", "seen"),
    [
        (ALONE[1:], 39, "39 of 40 rows in the first epoch, 39 of 40 in all"),
        ([*ALONE[1:], ALONE[1]], 40, "39 of 40 rows in the first epoch, 40 of 40 in all"),
        ([*ALONE, ALONE[0]], 41, "40 of 40 rows in the first epoch, 41 of 40 in all"),
        (ALONE, 41, ALL),
    ],
    ids=["one is missing", "one in place of another", "one comes twice", "a silence is missing"],
)
def test_a_row_too_few_or_too_many_is_seen(
    first: list[TrainingExample], num_windows: int, seen: str
) -> None:
    check = order_of(first, ALONE[::-1], num_windows)
    assert check == Check("order", False, f"{seen}; not all, each as often as it counts")


def test_a_window_is_full_and_no_fuller() -> None:
    full = [window(0, 1), *(window(row) for row in range(2, 40))]
    assert order_of(full, full[::-1], 39).passed
    overfull = [window(0, 1, 2), *(window(row) for row in range(3, 40))]
    check = order_of(overfull, overfull[::-1], 38)
    assert check == Check("order", False, f"{ALL}; windows that are fuller than full")


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
    room = greedy.max_tokens(1.0)
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
def validation(tiny_data: Path, collator: Collator) -> Validation:
    rows = FeatureRows(tiny_data / "data/features/validation")
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


# The loss


@given(st.floats(0.01, 20), st.floats(0.01, 20), st.floats(-0.99, 0.99))
def test_losses_computed_in_two_ways_are_equal_but_for_rounding(
    labels: float, theirs: float, share: float
) -> None:
    check = loss_is_of_all_labels(
        labels * (1 + share * LOSS_ERROR), labels, theirs * (1 - share * LOSS_ERROR), theirs
    )
    sound = f"{labels:.4f} a label in the first step, {theirs:.4f} without noise"
    assert check == Check("loss", True, sound)


@pytest.mark.parametrize("share", [1.1, -1.1])
def test_a_loss_that_is_off_by_more_is_caught(share: float) -> None:
    off = 2 * (1 + share * LOSS_ERROR)
    step = loss_is_of_all_labels(off, 2.0, 3.0, 3.0)
    assert step == Check("loss", False, f"a step takes {off:.4f}, and its labels have 2.0000")
    evaluation = loss_is_of_all_labels(3.0, 3.0, off, 2.0)
    assert evaluation == Check(
        "loss", False, f"evaluation sums {off:.4f} a label, transformers 2.0000"
    )
    assert not loss_is_of_all_labels(math.nan, 2.0, 3.0, 3.0).passed


def test_a_start_is_better_than_chance() -> None:
    chance = math.log(300)
    assert start_knows_its_tokens("mine", math.nextafter(chance, 0), 300).passed
    check = start_knows_its_tokens("mine", chance, 300)
    assert check == Check("start", False, "loss of the start 5.70, by chance 5.70")
    scratch = start_knows_its_tokens(loader.SCRATCH, 2 * chance, 300)
    assert scratch == Check("start", True, "built from scratch")


def test_the_loss_of_the_fixed_batch_falls() -> None:
    assert loss_fell(2.0, math.nextafter(2.0, 0)).passed
    check = loss_fell(2.0, 2.0)
    assert check == Check("fixed_batch", False, "loss on one fixed batch: 2.0000 -> 2.0000")
    assert not loss_fell(2.0, math.nan).passed


Noise = Callable[[bool, int, int], float]


@pytest.mark.parametrize(
    ("loss", "asked", "detail"),
    [
        (
            lambda in_training, step, part: in_training * (step + part),
            True,
            "acts in training only",
        ),
        (
            lambda in_training, *moment: float(
                in_training and moment[0] + moment[1] == MAX_DRAWS - 1
            ),
            True,
            "acts in training only",
        ),  # a layer is dropped rarely
        (lambda *_: 2.0, False, "none asked for, none found"),
    ],
)
def test_noise_that_acts_where_it_is_asked_for_is_sound(
    loss: Noise, asked: bool, detail: str
) -> None:
    assert noise_is_where_it_belongs(loss, asked) == Check("dropout", True, detail)


SAME = "dropout is asked for and does nothing, or the same again and again"


@pytest.mark.parametrize(
    ("loss", "asked", "detail"),
    [
        (lambda *_: 2.0, True, SAME),
        (lambda in_training, step, _: in_training * step, True, SAME),
        (lambda in_training, _, part: in_training * part, True, SAME),
        (
            lambda in_training, step, _: in_training * step,
            False,
            "training is noisy, though params ask for no dropout",
        ),
        (
            lambda _, step, part: step + part,
            True,
            "evaluation is noisy: the model is in training mode",
        ),
        (
            lambda in_training, step, _: 0 if in_training else step,
            False,
            "evaluation is noisy: the model is in training mode",
        ),
    ],
    ids=["none", "parts alike", "steps alike", "unasked", "everywhere", "in evaluation"],
)
def test_noise_that_is_missing_or_elsewhere_is_caught(
    loss: Noise, asked: bool, detail: str
) -> None:
    assert noise_is_where_it_belongs(loss, asked) == Check("dropout", False, detail)


# Weights


def tensors(**values: float) -> Batch:
    return {name: torch.full((3, 4), value) for name, value in values.items()}


BEFORE = tensors(one=1.0, two=2.0, frozen=5.0)


def test_weights_move_but_for_those_that_are_frozen() -> None:
    check, facts = weights_moved(BEFORE, tensors(one=1.5, two=2.0001, frozen=5.0), {"frozen"})
    assert check == Check("weights", True, "all 2 tensors moved, by 22.4% in all")
    assert facts == {
        "weights_moved": pytest.approx(math.sqrt(0.25 / 5), rel=1e-3),
        "tensors": 2,
        "tensors_unmoved": 0,
    }


def test_a_single_value_that_moves_is_enough() -> None:
    after = tensors(one=1.0, two=3.0, frozen=5.0)
    after["one"][0, 0] += 1e-6
    assert weights_moved(BEFORE, after, {"frozen"})[0].passed


def test_a_tensor_that_stays_or_is_no_number_is_caught() -> None:
    said = "one stayed where it was, as did 0 others"
    for value in (1.0, math.nan):
        check, facts = weights_moved(BEFORE, tensors(one=value, two=3, frozen=5), {"frozen"})
        assert check == Check("weights", False, said)
        assert facts["tensors_unmoved"] == 1


def test_a_frozen_tensor_that_moves_in_its_last_bit_is_caught() -> None:
    after = tensors(one=2.0, two=3.0, frozen=5.0)
    after["frozen"][2, 3] = torch.nextafter(torch.tensor(5.0), torch.tensor(0.0))
    check, _ = weights_moved(BEFORE, after, {"frozen"})
    assert check == Check("weights", False, "frozen moved, though it is frozen")


def test_the_output_layer_is_not_counted_beside_the_embedding_that_it_is() -> None:
    before = BEFORE | tensors(**{"proj_out.weight": 1.0})
    after = tensors(one=2.0, two=3.0, frozen=5.0, **{"proj_out.weight": 1.0})
    check, facts = weights_moved(before, after, {"frozen"})
    assert (check.passed, facts["tensors"]) == (True, 2)


# The learning rate


KINDS = ["linear", "cosine", "constant_with_warmup", "polynomial"]


def schedule(kind: str, warmup: int, peak: float) -> Callable[[int], float]:
    return lambda updates: scheduled_rate(kind, peak, updates, warmup, max_steps=20)


def rate_check(rates: list[float], scheduled: Callable[[int], float], peak: float) -> Check:
    """The check of a training whose updates had these rates."""
    rows = [{"step": step, "learning_rate": rate} for step, rate in enumerate(rates, start=1)]
    rows.insert(0, {"step": 0})
    return rate_followed(rows, scheduled, peak, rates[0], max(rates))


@given(st.sampled_from(KINDS), st.integers(0, 19), st.floats(1e-6, 1e-2))
def test_rates_of_the_schedule_pass_whatever_it_is(kind: str, warmup: int, peak: float) -> None:
    scheduled = schedule(kind, warmup, peak)
    check = rate_check([scheduled(updates) for updates in range(20)], scheduled, peak)
    assert check == Check("learning_rate", True, f"peak {peak:.3g}")


@given(st.sampled_from(KINDS), st.integers(0, 19), st.sampled_from([-1, 1]))
def test_one_rate_that_is_off_is_caught(kind: str, step: int, sign: int) -> None:
    scheduled = schedule(kind, 5, 1e-3)
    rates = [scheduled(updates) for updates in range(20)]
    expected = rates[step]
    rates[step] += sign * 1.1 * PEAK_ERROR * 1e-3
    check = rate_check(rates, scheduled, 1e-3)
    off = f"at step {step + 1} it was {rates[step]:.3g}, and should have been {expected:.3g}"
    assert not check.passed
    assert off in check.detail


def test_a_rate_that_never_comes_to_its_peak_or_passes_it_is_caught() -> None:
    """Rows of steps.csv need not show it, for not every step has one."""
    scheduled = schedule("linear", 5, 1e-3)
    for highest in (0.98e-3, 1.02e-3):
        check = rate_followed([], scheduled, 1e-3, 0.0, highest)
        assert check == Check("learning_rate", False, f"peak 0.001; the highest was {highest:.3g}")


def test_a_rate_that_starts_at_its_peak_had_no_warmup() -> None:
    check = rate_followed([], schedule("linear", 5, 1e-3), 1e-3, 1e-3, 1e-3)
    assert check == Check("learning_rate", False, "peak 0.001; there was no warm-up")
    assert rate_followed([], schedule("linear", 0, 1e-3), 1e-3, 1e-3, 1e-3).passed


# Updates


@given(st.integers(1, 1000))
def test_there_are_as_many_updates_as_steps(steps: int) -> None:
    detail = f"{steps:,} updates in {steps:,} steps"
    assert updates_were_made(steps, steps, may_skip=False) == Check("updates", True, detail)
    for updates in (steps - 1, steps + 1):
        assert not updates_were_made(updates, steps, may_skip=False).passed


def test_half_precision_may_skip_half_of_the_steps() -> None:
    found = [updates_were_made(updates, 10, may_skip=True).passed for updates in range(12)]
    assert found == [5 <= updates <= 10 for updates in range(12)]
