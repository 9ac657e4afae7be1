"""What an epoch teaches, and that it is learnt: times of packed neighbours, silence that stays
silent, and the same bits after a stop.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from transformers import WhisperForConditionalGeneration

from asr import features
from asr.checks.training import checks_before
from asr.decoding import loading
from asr.decoding.recognizer import GREEDY
from asr.decoding.segments import split_at_timestamps
from asr.engines.engine import FP32, OPENVINO
from asr.errors import ModelError, Stopped
from asr.features import FeatureRows, input_features
from asr.model import greedy, loader, timestamps
from asr.model.start import start_model
from asr.params import reader, schema
from asr.preflight import refusals
from asr.storage import files, hashing
from asr.training import epochs, examples
from asr.training.batches import Collator
from asr.training.examples import TrainingRow
from asr.training.loop import Training
from stages import train
from support.model import TEXTS, noise, scratch, write_features
from support.repository import TINY, write_params

SECONDS = (0.83, 1.27, 1.06, 0.61, 1.4, 0.95) * 2
ALL_ON = {"train.timestamp_share": 0.6, "train.pack_to_window": True, "train.no_speech_share": 0.3}
PACKED = {
    **TINY,
    **ALL_ON,
    "model.window_seconds": 4,
    "model.scratch.max_target_positions": 64,
    "model.dropout": 0.1,
    "model.apply_spec_augment": True,
    "train.max_steps": 8,
    "train.gradient_accumulation_steps": 2,
}
LEARNS = {
    **PACKED,
    "model.dropout": 0.0,
    "model.apply_spec_augment": False,
    "model.scratch.d_model": 48,
    "train.gradient_accumulation_steps": 1,
    "train.timestamp_share": 1.0,
    "train.learning_rate": 3e-3,
    "train.warmup_steps": 10,
    "train.max_steps": 140,
    "train.eval_steps": 140,
    "train.save_steps": 140,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    rows = [
        {"id": f"t{n}", "text": TEXTS[n % 6], "seconds": SECONDS[n], "speaker": "abcd"[n // 3]}
        for n in range(12)
    ]
    write_features(root / "train", rows)
    write_features(
        root / "validation",
        [{"id": f"v{n}", "text": TEXTS[n], "seconds": 1.91 - n / 10} for n in range(2)],
    )
    return root


@pytest.fixture(scope="module")
def rows(data: Path) -> FeatureRows:
    return FeatureRows(data / "train")


def collator() -> Collator:
    start = scratch(window_seconds=4)
    timestamps.set_return_timestamps(start.model.generation_config, True)
    return Collator(start.model, start.tokenizer)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("pack", [False, True])
def test_every_row_comes_once_in_an_epoch_alone_or_packed(
    rows: FeatureRows, share: float, pack: bool
) -> None:
    made = collator()
    found = epochs.speech_examples(rows, made.choose(rows).rows, made, share, pack, 1)
    assert sorted(row for one in found for row in one.rows) == list(range(12))
    timed = [one for one in found if list(one.prompt) == made.prompt]
    assert all(one.text_ids[0] >= made.first_timestamp for one in timed)
    assert all(
        list(one.prompt) == made.plain_prompt and max(one.text_ids) < made.first_timestamp
        for one in found
        if one not in timed
    )
    assert (
        len([row for one in timed for row in one.rows])
        in {0.0: [0], 0.4: range(2, 9), 1.0: [12]}[share]
    )
    assert share == 0.4 or (max(len(one.rows) for one in found) > 1) == (pack and share == 1.0)
    assert all(
        one.num_frames <= made.frames and len(one.prompt) + len(one.text_ids) <= made.positions
        for one in found
    )
    assert [
        epochs.speech_examples(rows, made.choose(rows).rows, made, share, pack, seed) == found
        for seed in (1, 2)
    ] == [
        True,
        share != 0.4,
    ]


@pytest.mark.parametrize(("share", "pack"), [(0.0, False), (1.0, True)])
def test_a_row_of_more_weight_comes_more_often_and_never_beside_itself(
    rows: FeatureRows, share: float, pack: bool, monkeypatch: Any
) -> None:
    told = [
        '{"repeat": 3}' if row == 4 else '{"repeat": 2}' if row == 7 else '{"kind": "repeat"}'
        for row in range(12)
    ]
    column = rows.column
    monkeypatch.setattr(rows, "column", lambda name: told if name == "attributes" else column(name))
    made = collator()
    found = epochs.speech_examples(rows, made.choose(rows).rows, made, share, pack, 1)
    assert sorted(row for one in found for row in one.rows) == sorted([*range(12), 4, 4, 7])
    assert all(len(set(one.rows)) == len(one.rows) for one in found)


def test_times_of_a_label_are_the_durations_of_its_rows(rows: FeatureRows) -> None:
    made = collator()
    (first, *_) = epochs.speech_examples(rows, made.choose(rows).rows, made, 1.0, True, 1)
    told = split_at_timestamps(first.text_ids, made.first_timestamp, 4.0)
    assert [made.tokenizer.decode(words) for *_, words in told] == [
        f" {rows.text(row)}" for row in first.rows
    ]
    assert [end for _, end, _ in told] == pytest.approx(
        np.cumsum([rows.duration(row) for row in first.rows]), abs=0.011
    )


def test_without_any_of_it_a_window_is_a_row(rows: FeatureRows) -> None:
    start = scratch(window_seconds=4)
    made = Collator(start.model, start.tokenizer)
    found = epochs.speech_examples(rows, made.choose(rows).rows, made, 0.0, False, 1)
    assert [(one.rows, one.num_frames, one.text_ids) for one in found] == [
        ((one.index,), one.num_frames, one.text_ids) for one in made.choose(rows).rows
    ]
    assert epochs.silence_examples(12, made, 0.0, 0.0, 1) == []


def test_silence_is_such_a_share_of_the_windows_and_sounds_otherwise_at_each_step(
    rows: FeatureRows,
) -> None:
    made = collator()
    found = epochs.silence_examples(90, made, 0.5, 0.1, 1)
    assert len(found) == 10
    assert {tuple(one.text_ids) for one in found} == {(), (made.first_timestamp,)}
    assert len({one.num_frames for one in found}) > 5
    one = made.batch(rows, found, (1, 5))["input_features"]
    assert one.equal(made.batch(rows, found, (1, 5))["input_features"])
    assert made.batch(rows, found[3:], (1, 5))["input_features"].equal(one[3:]), (
        "whatever else is in the batch"
    )
    assert not one.equal(made.batch(rows, found, (1, 6))["input_features"])


def given(folder: Path, **changes: Any) -> schema.Params:
    return reader.load(write_params(folder / "changed.yaml", {**PACKED, **changes}))


@pytest.fixture
def training(data: Path, tmp_path: Path, in_process: None) -> Iterator[Callable[[], Training]]:  # noqa: ARG001
    """Trainings that are looked at before their first step."""

    def make() -> Training:
        chosen, rows = given(tmp_path), FeatureRows(data / "train")
        return Training(
            start_model(chosen, rows),
            rows,
            FeatureRows(data / "validation"),
            chosen.train,
            tmp_path,
            lambda *_, **__: None,
        )

    return make


def test_padding_is_told_before_and_after_packing(training: Callable[[], Training]) -> None:
    made = training()
    alone, packed = (
        1 - 12.24 / 12 / 4,
        1 - sum(one.num_frames for one in made.examples) / len(made.examples) / 400,
    )
    assert made.padding() == f"padding: {alone:.0%} of frames, packed {packed:.0%}"
    assert packed < alone


def _turned(patch: pytest.MonkeyPatch) -> None:
    join = examples.join
    patch.setattr(examples, "join", lambda clips: join(clips[::-1]))


def _clamped_apart(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        examples,
        "join",
        lambda clips: features.LogMel(
            np.concatenate([one.mel[:, :-2] for one in clips], 1), -2.0, None
        ),
    )


def _slow_clock(patch: pytest.MonkeyPatch) -> None:
    label = examples.timed_label
    patch.setattr(
        examples,
        "timed_label",
        lambda frames, texts, zero: label([2 * one for one in frames], texts, zero),
    )


def _unpaired(patch: pytest.MonkeyPatch) -> None:
    label = examples.timed_label
    patch.setattr(examples, "timed_label", lambda *given: label(*given)[:-1])


def _loud_silence(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        examples, "silence", lambda _, frames, bins: features.log_mel(noise(frames / 100), bins)
    )


def _words_in_silence(patch: pytest.MonkeyPatch) -> None:
    quiet = epochs.silence_examples
    patch.setattr(
        epochs,
        "silence_examples",
        lambda *given: [replace(one, text_ids=(*one.text_ids, 5)) for one in quiet(*given)],
    )


def _lost_row(patch: pytest.MonkeyPatch) -> None:
    neighbours = examples.pack_neighbors

    def shorter(*given: Any) -> Iterator[tuple[TrainingRow, ...]]:
        yield from (group[:2] for group in neighbours(*given))

    patch.setattr(examples, "pack_neighbors", shorter)


def _overfull(patch: pytest.MonkeyPatch) -> None:
    neighbours = examples.pack_neighbors
    patch.setattr(
        examples,
        "pack_neighbors",
        lambda found, speakers, *most: neighbours(
            found, [None] * len(speakers), *(2 * one for one in most)
        ),
    )


@pytest.mark.parametrize(
    ("plant", "name"),
    [
        (_turned, "batch"),
        (_clamped_apart, "batch"),
        (_slow_clock, "batch"),
        (_unpaired, "batch"),
        (_loud_silence, "batch"),
        (_words_in_silence, "batch"),
        (_lost_row, "order"),
        (_overfull, "order"),
        (lambda _: None, None),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_faults_of_packing_and_silence_are_caught_by_the_checks(
    plant: Callable[[pytest.MonkeyPatch], None], name: str | None, training: Callable[[], Training]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        plant(patch)
        patch.setitem(PACKED, "train.timestamp_share", 1.0)
        patch.setitem(PACKED, "train.per_device_train_batch_size", 8)
        found = {one.name for one in checks_before(training()) if not one.passed}
    assert (name in found) if name else not found


def test_a_tokenizer_without_times_is_refused(training: Callable[[], Training]) -> None:
    made = training()
    start = loader.Start(made.unwrapped, made.collator.tokenizer, "mine", None)
    refusals.refuse_other_tokens(start, TEXTS)
    refusals.refuse_other_prompt(start, "sv", "transcribe")
    start.model.generation_config.no_timestamps_token_id -= 1
    with pytest.raises(ModelError, match=r"<\|notimestamps\|> is token"):
        refusals.refuse_other_tokens(start, TEXTS)


def run(data: Path, root: Path, chosen: schema.Params) -> None:
    train.run(
        data / "train",
        data / "validation",
        root / "models/finetuned",
        root / "reports/train",
        chosen,
    )


def traces(root: Path) -> list[str]:
    last = max(root.glob(".cache/checkpoints/*/step-*"))
    return [
        hashing.sha256(path)
        for path in (
            root / "models/finetuned/model.safetensors",
            last / "optimizer.safetensors",
            root / "reports/train/steps.csv",
        )
    ]


@pytest.mark.usefixtures("in_process")
def test_a_stopped_training_with_all_of_it_ends_with_the_bits_of_one_never_stopped(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained(name: str, stop: int | None, **changes: Any) -> list[str]:
        root = tmp_path / name
        root.mkdir()
        monkeypatch.setenv("DVC_ROOT", str(root))
        step = Training.train_step

        def stopping(self: Training, parts: Any) -> None:
            step(self, parts)
            self.signals.received = signal.SIGTERM if self.state.step == stop else 0

        if stop:
            with monkeypatch.context() as patch:
                patch.setattr(Training, "train_step", stopping)
                with pytest.raises(Stopped):
                    run(data, root, given(root, **changes))
        run(data, root, given(root, **changes))
        return traces(root)

    whole = trained("whole", None)
    assert trained("stopped", 4) == whole
    assert not set(trained("other", None, **{"train.no_speech_share": 0.5})) & set(whole), (
        "the control: silence changes the bits"
    )


@pytest.fixture(scope="module")
def learnt(
    data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[float], SimpleNamespace]:
    """A model over-fitted on twelve rows in packed windows, with so large a share of silence."""
    known: dict[float, SimpleNamespace] = {}

    def train_once(share: float) -> SimpleNamespace:
        if share not in known:
            root = tmp_path_factory.mktemp("learnt")
            run(
                data,
                root,
                reader.load(
                    write_params(root / "params.yaml", {**LEARNS, "train.no_speech_share": share})
                ),
            )
            start = loader.load_saved(root / "models/finetuned")
            start.model.eval()
            known[share] = SimpleNamespace(
                root=root, start=start, checks=files.read_json(root / "reports/train/checks.json")
            )
        return known[share]

    return train_once


def joined(group: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Rows' sound, really joined, and the moments at which each starts and ends."""
    return np.concatenate([noise(SECONDS[row], row) for row in group]), np.cumsum(
        [0, *(SECONDS[row] for row in group)]
    )


@pytest.mark.usefixtures("in_process")
def test_times_that_were_taught_are_told(
    learnt: Callable[[float], SimpleNamespace],
) -> None:
    found = learnt(0.3)
    recognizer = loading.of_start(found.start, OPENVINO, FP32, GREEDY)
    known = recognizer.vocabulary
    tokens = known.prompt(None, None, timestamps=True)
    assert all(one["passed"] for one in found.checks.values()), found.checks
    for group in ([0, 1, 2], [3, 4, 5], [6, 7, 8]):
        samples, moments = joined(group)
        (heard,) = recognizer.hypotheses(
            [features.stored_log_mel(samples, 80)], [moments[-1]], [tokens], 444
        )
        starts, ends, ids = zip(
            *split_at_timestamps(heard.ids, known.first_timestamp, moments[-1]), strict=True
        )
        assert [recognizer.text(one) for one in ids] == [TEXTS[row % 6] for row in group]
        assert list(starts) == pytest.approx(moments[:-1], abs=0.1)
        assert list(ends) == pytest.approx(moments[1:], abs=0.1)


@pytest.mark.usefixtures("in_process")
def test_plain_transformers_tell_the_same_words_and_times(
    learnt: Callable[[float], SimpleNamespace],
) -> None:
    folder = learnt(0.3).root / "models/finetuned"
    plain = WhisperForConditionalGeneration.from_pretrained(folder)
    ours = loading.of_folder(folder, OPENVINO, FP32, GREEDY)
    tokens = ours.vocabulary.prompt(None, None, timestamps=True)
    for group in ([0, 1, 2], [3, 4, 5]):
        samples, moments = joined(group)
        clip = features.stored_log_mel(samples, 80)
        (heard,) = ours.hypotheses([clip], [moments[-1]], [tokens], 444)
        (told,) = plain.generate(input_features([clip], 400), return_segments=True)["segments"]
        first = ours.vocabulary.first_timestamp
        wanted = [
            (float(part["start"]), float(part["end"]), ours.text(part["tokens"].tolist()))
            for part in told
        ]
        found = split_at_timestamps(heard.ids, first, moments[-1])
        assert [ours.text(ids) for _, _, ids in found] == [text for _, _, text in wanted]
        for one, other in zip(found, wanted, strict=True):
            assert one[:2] == pytest.approx(other[:2], abs=0.011)


def quiet_texts(found: SimpleNamespace) -> list[str]:
    """What a model hears in silences that it was never taught."""
    clips = [
        examples.silence(np.random.default_rng([77, number]), 30 + 15 * number, 80)
        for number in range(16)
    ]
    model, tokenizer = found.start.model, found.start.tokenizer
    seconds = [0.3 + 0.15 * number for number in range(len(clips))]
    return greedy.transcribe(model, tokenizer, seconds, clips.__getitem__, 8, 444)


@pytest.mark.usefixtures("in_process")
def test_silence_stays_silent_after_training_on_silence_and_not_without(
    learnt: Callable[[float], SimpleNamespace],
) -> None:
    assert set(quiet_texts(learnt(0.3))) == {""}
    assert all(quiet_texts(learnt(0.0)))
