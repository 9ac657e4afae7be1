"""Checks against lying to oneself: that training trains, on what it says it trains, and that what is saved is what was measured.

Told at the end, in reports/train/checks.json, in MLflow and in the last lines printed. None knows a particular fault: each looks at
the result from outside, by another way than the one that made it. Together they cost one more evaluation of the validation rows, and
a few passes of one batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, count, islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from asr import features, wer
from asr.features import FeatureRows, input_features
from asr.model import greedy, loader, lora, regularization, tokenization
from asr.training import batches, epochs, memory, optimization
from asr.training.examples import Window
from asr.whisper import FRAMES_PER_SECOND

if TYPE_CHECKING:
    from transformers import WhisperForConditionalGeneration, WhisperTokenizer

    from asr.training.loop import Training
    from asr.training.validation import Validation

CUT_SHARE = 0.02  # of validation rows may have more tokens than decoding has room for
SCALED_SHARE = 0.5  # of fp16's steps must be updates
MOST_DRAWS, FEW_DRAWS = 64, 3  # of noise, for layers are rarely dropped; looked at until two differ
SHUFFLED = 32  # windows that cannot come in the same order twice by chance
JUMP = 0.1  # a validation WER that rises by so much while the loss falls is no noise
GENERATED = 4  # rows that plain `generate()` must hear as we do
SHOWN = 10
QUIET = 0.5  # no silence is louder than this in any mel bin; speech has a hundred times that power
FRAME_ERROR = 1e-6  # of sums of durations
LOSS_ERROR = 0.01  # of a loss that is computed in two ways, in bf16
LOWEST = -1.5  # of Whisper's features: of 1e-10, where it stops
FLOOR_ERROR = 0.01


@dataclass(frozen=True)
class Check:
    """One question, whether it was answered well, and with what."""

    name: str
    passed: bool
    detail: str


def table(checks: Iterable[Check]) -> dict[str, Any]:
    """For checks.json: by name."""
    return {one.name: {key: value for key, value in asdict(one).items() if key != "name"} for one in checks}


def batch_is_sound(training: Training) -> Check:
    """In batches as the model gets them: the rows' own texts between prompt and end, each label the next input, silence the floor.

    Looks at the first batch of two steps, and at one window of each kind: by number of rows, with times and without, silence.
    """
    kinds = list({(len(one.rows), one.prompt): one for one in training.windows}.values())
    mine = training.my_parts()[0]
    steps = [(training.micro_batches(step)[0], training.step_examples(step)[mine]) for step in (0, 1)]
    wrong: set[str] = set()
    for batch, windows in (*steps, (training.collator.batch(training.train, kinds), kinds)):
        for row, window in enumerate(windows):
            wrong |= _wrong_label(training, window, batch["decoder_input_ids"][row].tolist(), batch["labels"][row].tolist())
            wrong |= _wrong_sound(training.train, window, batch["input_features"][row].numpy())
    return Check("batch", not wrong, "; ".join(sorted(wrong)) or "inputs, labels and padding are the rows' own")


def _wrong_label(training: Training, window: Window, given: list[int], labels: list[int]) -> set[str]:
    """What is wrong with a window's inputs and labels."""
    prompt, said = _as_taught(training, window, given)
    wanted, start = [*prompt, *said, training.collator.end], len(prompt) - 1
    learnt, rest = [batches.IGNORED] * start + wanted[start + 1 :], set(labels[len(wanted) - 1 :])
    wrong = set() if given[: len(wanted) - 1] == wanted[:-1] else {"inputs are not prompt and text"}
    return wrong | (
        set() if labels[: len(wanted) - 1] == learnt and rest <= {batches.IGNORED} else {"labels are not the inputs that come next"}
    )


def _as_taught(training: Training, window: Window, given: list[int]) -> tuple[list[int], list[int]]:
    """Prompt and text as a window must have them: spelt anew from the rows' texts, with times from their durations."""
    made, collator, rows = training.collator.made, training.collator, training.train
    texts = tokenization.text_ids(made, [collator.lead + text if (text := rows.text(row)) else "" for row in window.rows])
    if not collator.timed or given[: len(collator.plain_prompt)] == collator.plain_prompt:
        return collator.plain_prompt, [token for text in texts for token in text]
    frames = np.cumsum([0, *(math.ceil(rows.duration(row) * FRAMES_PER_SECOND - FRAME_ERROR) for row in window.rows)])
    times = made.convert_tokens_to_ids([f"<|{math.floor(end / 2 + 0.5) / 50:.2f}|>" for end in frames])
    pairs = zip(texts, pairwise(times), strict=True)
    return collator.prompt, [token for text, (first, last) in pairs if text for token in (first, *text, last)] or times[:1]


def _wrong_sound(rows: FeatureRows, window: Window, heard: np.ndarray) -> set[str]:
    """What is wrong with a window's features: each row stands at its place, raised to the highest floor, which comes after the last."""
    if not window.rows:
        return {"silence is loud"} if heard.max() > QUIET else set()
    clips = [rows.log_mel(row) for row in window.rows]
    floor, at, wrong = np.float32(max(clip.floor for clip in clips)), 0, set[str]()
    for clip in clips:
        if abs(max(clip.mel.max() - features.RANGE, LOWEST) - clip.floor) > FLOOR_ERROR:
            wrong.add("features do not span what Whisper's do")
        own = clip.mel[:, : -features.TAIL]
        there = heard[:, at : at + own.shape[1]]
        same = there.shape == own.shape and np.array_equal(
            there[:, :-1], np.maximum(own, floor)[:, :-1]
        )  # a full window's end is reflected
        wrong |= set() if same else {"features are not the row's"}
        at += own.shape[1]
    if not (heard[:, at + features.TAIL :] == floor).all():
        wrong.add("padding is not the row's floor")
    return wrong


def loss_is_of_all_labels(training: Training) -> Check:
    """A step's loss is the mean over all its labels; and the loss of an evaluation is what transformers says, without noise."""
    given, world, rank = training.given, training.accelerator.num_processes, training.accelerator.process_index
    taken = float(training.gradients(training.micro_batches(0)))
    training.optimizer.zero_grad(set_to_none=True)
    parts = [training.collator.batch(training.train, part, (given.seed, 0)) for part in training.step_examples(0)]
    mine = range(rank, given.gradient_accumulation_steps * world, world)
    wanted = sum(_taught_loss(training, number, parts[number]) for number in mine) / sum(map(batches.num_labels, parts))
    found, told = _judged_losses(training, next(memory.parts(parts[rank], training.micro_batch_rows())))
    wrong = [] if abs(taken - wanted) <= LOSS_ERROR * wanted else [f"a step takes {taken:.4f}, and its labels have {wanted:.4f}"]
    wrong += [] if abs(found - told) <= LOSS_ERROR * told else [f"evaluation sums {found:.4f} a label, transformers {told:.4f}"]
    return Check("loss", not wrong, "; ".join(wrong) or f"{wanted:.4f} a label in the first step, {told:.4f} without noise")


def _judged_losses(training: Training, batch: dict[str, torch.Tensor]) -> tuple[float, float]:
    """The loss per label in evaluation, by our sum and by that of transformers."""
    training.model.eval()
    with torch.no_grad():
        found = float(training.loss(batch)) / batches.num_labels(batch)
        told = training.model(**{key: value.to(training.accelerator.device) for key, value in batch.items()}).loss
    return found, float(told)


def _taught_loss(training: Training, number: int, batch: dict[str, torch.Tensor]) -> float:
    """The loss of one micro-batch of the first step, with the noise that the step has."""
    training.model.train()
    total = 0.0
    for place, part in enumerate(memory.parts(batch, training.micro_batch_rows())):
        regularization.seed(training.given.seed, 0, (number << training.state.halvings) + place)
        with torch.no_grad():
            total += float(training.loss(part))
    return total


def splits_are_apart(train: set[bytes], validation: set[bytes]) -> Check:
    """No sound that was taught is among those that the training was judged by."""
    return Check("splits", not train & validation, f"{len(train & validation):,} sounds were taught and judged by")


def order_is_whole(training: Training) -> Check:
    """An epoch takes every row that fits as often as it counts; the next one in another order; no window is fuller than full."""
    first, second = _epochs(training)
    counts = epochs.repeats(training.train)
    rows = [row for one in first for row in one.rows]
    wanted = [one.index for one in training.choice.examples for _ in range(counts[one.index])]
    durations, window = training.train.column("duration"), training.collator.frames / FRAMES_PER_SECOND
    wrong = []
    if len(first) != len(training.windows) or sorted(rows) != sorted(wanted):
        wrong.append("not all, each as often as it counts")
    if len(first) > SHUFFLED and first == second:
        wrong.append("the second epoch has the same order")
    if any(sum(durations[row] for row in one.rows) > window + FRAME_ERROR for one in training.windows):
        wrong.append("windows that are fuller than full")
    detail = f"{len(set(rows)):,} of {len(set(wanted)):,} rows in the first epoch, {len(rows):,} of {len(wanted):,} in all"
    return Check("order", not wrong, "; ".join([detail, *wrong]))


def _epochs(training: Training) -> tuple[list[Window], list[Window]]:
    """What the first two epochs teach, in the order of the steps."""
    num_parts = -(-len(training.windows) // training.given.per_device_train_batch_size)
    parts = chain.from_iterable(map(training.step_examples, count()))
    first, second = ([one for part in islice(parts, num_parts) for one in part] for _ in range(2))
    return first, second


def metric_is_sound(training: Training) -> Check:
    """The WER of a text against itself is 0, of silence 1, of each text said twice 1; and decoding has room for what was said."""
    references = training.validation.references
    same, silent = wer.error_rates(references, references)["wer"], wer.error_rates(references, [""] * len(references))["wer"]
    other = wer.error_rates(references, [f"{text} {text}" for text in references])["wer"]
    texts = [training.validation.rows.text(row) for row in training.validation.chosen]
    words = sum(len(text.split()) for text in references) / max(sum(len(text.split()) for text in texts), 1)
    lengths = map(len, tokenization.text_ids(training.collator.made, texts))
    cut = sum(length > greedy.most_tokens(seconds) for length, seconds in zip(lengths, training.validation.durations, strict=True))
    rows = min(training.given.eval_rows, len(training.validation.rows))
    passed = same == 0 and silent == 1 and other == 1 and words > 0.5 and cut <= CUT_SHARE * len(texts) and len(texts) == rows
    detail = f"itself {same:.3f}, silence {silent:.3f}, said twice {other:.3f}; {words:.0%} of words compared"
    return Check("metric", passed, f"{detail}; decoding has too little room for {cut} of {len(texts)} texts, {rows} were asked for")


def start_knows_its_tokens(training: Training, start: str) -> Check:
    """A model that was trained before guesses the labels better than by chance, or its tokens are not those of the tokenizer."""
    loss, chance = training.state.fixed_loss or 0.0, math.log(training.bare.config.vocab_size)
    passed = start == loader.SCRATCH or loss < chance
    return Check(
        "start", passed, "built from scratch" if start == loader.SCRATCH else f"loss of the start {loss:.2f}, by chance {chance:.2f}"
    )


def noise_is_where_it_belongs(training: Training) -> Check:
    """Dropout and masks act in training if params ask for them, otherwise in each step and part; and never in evaluation."""
    batch = training.micro_batches(0)[0]

    def losses(prepare: Any, moments: Iterable[tuple[int, int]]) -> Iterator[float]:
        for moment in moments:
            prepare()
            regularization.seed(training.given.seed, *moment)
            with torch.no_grad():
                yield float(training.loss(batch))

    steps, parts = [(number, 0) for number in range(MOST_DRAWS)], [(0, number) for number in range(MOST_DRAWS)]
    asked = any(getattr(training.bare.config, name) for name in regularization.DROPOUTS)
    wrong = []
    if asked and not all(_varies(losses(training.model.train, moments)) for moments in (steps, parts)):
        wrong.append("dropout is asked for and does nothing, or the same again and again")
    if not asked and _varies(losses(training.model.train, steps[:FEW_DRAWS])):
        wrong.append("training is noisy, though params ask for no dropout")
    if _varies(losses(training.model.eval, steps[:FEW_DRAWS])):
        wrong.append("evaluation is noisy: the model is in training mode")
    return Check("dropout", not wrong, "; ".join(wrong) or ("acts in training only" if asked else "none asked for, none found"))


def _varies(values: Iterator[float]) -> bool:
    first = next(values)
    return any(value != first for value in values)


def weights_moved(
    before: dict[str, torch.Tensor], training: Training, freeze_encoder: int | str, rank: int | None
) -> tuple[Check, dict[str, Any]]:
    """Every tensor that params do not freeze moved; also how far they went, as a share of where they were."""
    after = training.bare.state_dict()
    still = regularization.frozen(training.bare, freeze_encoder, rank) | {loader.POSITIONS, "proj_out.weight"}
    names = [name for name in before if name not in still]
    squares = [(float((after[name] - before[name]).square().sum()), float(before[name].square().sum())) for name in names]
    stayed = [name for name, (moved, _) in zip(names, squares, strict=True) if not moved > 0.0]
    freed = [name for name in sorted(still & set(before)) if name != "proj_out.weight" and not torch.equal(after[name], before[name])]
    share = math.sqrt(sum(moved for moved, _ in squares) / max(sum(size for _, size in squares), 1e-30))
    wrong = [f"{stayed[0]} stayed where it was, as did {len(stayed) - 1} others"] if stayed else []
    wrong += [f"{freed[0]} moved, though it is frozen"] if freed else []
    facts = {"weights_moved": share, "tensors": len(names), "tensors_unmoved": len(stayed)}
    return Check("weights", not wrong, "; ".join(wrong) or f"all {len(names)} tensors moved, by {share:.1%} in all"), facts


def loss_fell(before: float, after: float) -> Check:
    """On one batch of training rows, in evaluation mode."""
    return Check("fixed_batch", after < before, f"loss on one fixed batch: {before:.4f} -> {after:.4f}")


def rate_followed(training: Training) -> Check:
    """The learning rate, as the optimiser had it at each step, climbed where it should, came to its peak, and kept to its schedule."""
    given, state, peak = training.given, training.state, training.learning_rate
    wrong = []
    if not 0.99 * peak <= state.highest_rate <= 1.01 * peak:
        wrong.append(f"the highest was {state.highest_rate:.3g}")
    if given.warmup_steps and state.first_rate is not None and not state.first_rate < 0.99 * peak:
        wrong.append("there was no warm-up")
    for row in [row for row in state.rows if "learning_rate" in row]:
        wanted = optimization.scheduled_rate(given.lr_scheduler_type, peak, row["step"] - 1, given.warmup_steps, given.max_steps)
        if abs(row["learning_rate"] - wanted) > 0.01 * peak:
            wrong.append(f"at step {row['step']} it was {row['learning_rate']:.3g}, and should have been {wanted:.3g}")
    return Check("learning_rate", not wrong, "; ".join([f"peak {peak:.3g}", *wrong[:3]]))


def updates_were_made(training: Training) -> Check:
    """AdamW counted as many updates as there were steps; with fp16 some are left out on purpose, where gradients overflow."""
    done, steps = max((int(one["step"]) for one in training.optimizer.state.values()), default=0), training.state.step
    passed = done == steps or (training.given.precision == "fp16" and SCALED_SHARE * steps <= done < steps)
    return Check("updates", passed, f"{done:,} updates in {steps:,} steps")


def loss_and_wer_agree(rows: Sequence[dict[str, Any]], worst: Callable[[], Sequence[tuple[str, str]]], prefix: str) -> Check:
    """A validation loss that falls while the WER jumps is a fault of decoding: shows what was heard, after which tokens.

    A model that still hears less than nothing (WER of 1 and more, as at the start from scratch) may jump as it likes.
    """
    jumps: list[str] = []
    best: dict[str, Any] | None = None
    for row in rows:
        if row.get("validation_loss") is None or "validation_wer" not in row:
            continue
        if best and row["validation_loss"] < best["validation_loss"] and row["validation_wer"] > best["validation_wer"] + JUMP:
            jumps.append(
                f"step {row['step']}: loss {best['validation_loss']:.3f} -> {row['validation_loss']:.3f}, "
                f"WER {best['validation_wer']:.3f} -> {row['validation_wer']:.3f}"
            )
        if row["validation_wer"] < (best["validation_wer"] if best else 1.0):
            best = row
    if not jumps:
        return Check("decoding", True, "the WER fell, or rose with the loss")
    said = [f"{reference!r} was heard as {heard!r}" for reference, heard in worst()]
    return Check("decoding", False, f"{'; '.join(jumps)}; after {prefix}: {'; '.join(said)}")


def saved_model_is_the_best(folder: Path, training: Training, steps: list[int]) -> Check:
    """The model as it was saved, loaded anew, has the best weights and the WER that was measured; plain `generate()` hears the same."""
    saved = loader.load_saved(folder)
    wer_told = training.state.best_wer or 0.0
    best, found_there = lora.plain_weights(training.bare, training.best_weights(steps)), saved.model.state_dict()
    others = [name for name, value in best.items() if not torch.equal(value.cpu(), found_there[name])]
    saved.model.to(training.accelerator.device).eval()
    validation = training.validation
    texts = greedy.transcribe(
        saved.model,
        saved.tokenizer,
        validation.durations,
        lambda place: validation.rows.log_mel(validation.chosen[place]),
        validation.batch_size,
        training.collator.positions,
    )
    found = wer.error_rates(validation.references, [wer.normalise(text) for text in texts])["wer"]
    wrong = [f"{others[0]} is not that of step {steps}"] if others else []
    wrong += [] if saved.tokenizer.get_vocab() == training.collator.made.get_vocab() else ["its tokenizer is another one"]
    wrong += [] if found == wer_told else [f"WER {found:.4f}, but {wer_told:.4f} was measured"]
    heard = _generated(saved.model, saved.tokenizer, training.validation, training.collator.prompt)
    wrong += [f"generate() hears {plain!r}, we {texts[place]!r}" for place, plain in heard.items() if plain != texts[place]]
    return Check("saved_model", not wrong, "; ".join(wrong[:3]) or f"loaded anew: WER {found:.4f}, as measured; generate() agrees")


def _generated(
    whisper: WhisperForConditionalGeneration, made: WhisperTokenizer, validation: Validation, prompt: list[int]
) -> dict[int, str]:
    """What plain `generate()` hears in a few of the validation rows that fit the window, up to our limit of tokens per second."""
    frames = loader.window_seconds(whisper) * FRAMES_PER_SECOND
    places = [place for place, seconds in enumerate(validation.durations) if seconds * FRAMES_PER_SECOND <= frames][:GENERATED]
    if not places:
        return {}
    stretches = [greedy.cut(validation.rows.log_mel(validation.chosen[place]), frames)[0] for place in places]
    with loader.quiet(), torch.inference_mode():
        inputs = input_features([one.features for one in stretches], frames).to(whisper.device)
        told = whisper.generate(inputs, do_sample=False, force_unique_generate_call=True)  # or it hears the end of a window anew
    said = [ids[len(prompt) :] if ids[: len(prompt)] == prompt else ids for ids in told.tolist()]
    kept = [ids[: greedy.most_tokens(one.duration)] for ids, one in zip(said, stretches, strict=True)]
    return {place: made.decode(ids, skip_special_tokens=True).strip() for place, ids in zip(places, kept, strict=True)}
