"""Checks of what is heard: the metric, the decoding of validation, and the model as it was saved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from asr import wer
from asr.checks.check import Check
from asr.features import input_features
from asr.model import greedy, loader, lora, tokenization
from asr.whisper import FRAMES_PER_SECOND

if TYPE_CHECKING:
    from transformers import WhisperForConditionalGeneration, WhisperTokenizer

    from asr.training.loop import Training
    from asr.training.validation import Validation

CUT_SHARE = 0.02  # of validation rows may have more tokens than decoding has room for
JUMP = 0.1  # a validation WER that rises by so much while the loss falls is no noise
GENERATED = 4  # rows that plain `generate()` must hear as we do
MAX_SHOWN = 10


def metric_is_sound(training: Training) -> Check:
    """The WER of a text against itself is 0, of silence 1, of each text said twice 1; and decoding
    has room for what was said.
    """
    references = training.validation.references
    same, silent = (
        wer.error_rates(references, references)["wer"],
        wer.error_rates(references, [""] * len(references))["wer"],
    )
    other = wer.error_rates(references, [f"{text} {text}" for text in references])["wer"]
    texts = [training.validation.rows.text(row) for row in training.validation.chosen]
    words = sum(len(text.split()) for text in references) / max(
        sum(len(text.split()) for text in texts), 1
    )
    lengths = map(len, tokenization.text_ids(training.collator.made, texts))
    cut = sum(
        length > greedy.max_tokens(seconds)
        for length, seconds in zip(lengths, training.validation.durations, strict=True)
    )
    rows = min(training.given.eval_rows, len(training.validation.rows))
    passed = (
        same == 0
        and silent == 1
        and other == 1
        and words > 0.5
        and cut <= CUT_SHARE * len(texts)
        and len(texts) == rows
    )
    detail = f"itself {same:.3f}, silence {silent:.3f}, said twice {other:.3f}; {words:.0%} of words compared"
    return Check(
        "metric",
        passed,
        f"{detail}; decoding has too little room for {cut} of {len(texts)} texts, {rows} were asked for",
    )


def loss_and_wer_agree(
    rows: Sequence[dict[str, Any]], worst: Callable[[], Sequence[tuple[str, str]]], prefix: str
) -> Check:
    """A validation loss that falls while the WER jumps is a fault of decoding: shows what was
    heard, after which tokens.

    A model that still hears less than nothing (WER of 1 and more, as at the start from scratch) may
    jump as it likes.
    """
    jumps: list[str] = []
    best: dict[str, Any] | None = None
    for row in rows:
        if row.get("validation_loss") is None or "validation_wer" not in row:
            continue
        if (
            best
            and row["validation_loss"] < best["validation_loss"]
            and row["validation_wer"] > best["validation_wer"] + JUMP
        ):
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
    """The model as it was saved, loaded anew, has the best weights and the WER that was measured;
    plain `generate()` hears the same.
    """
    saved = loader.load_saved(folder)
    wer_told = training.state.best_wer or 0.0
    best, found_there = (
        lora.plain_weights(training.bare, training.best_weights(steps)),
        saved.model.state_dict(),
    )
    others = [
        name for name, value in best.items() if not torch.equal(value.cpu(), found_there[name])
    ]
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
    found = wer.error_rates(validation.references, [wer.normalize(text) for text in texts])["wer"]
    wrong = [f"{others[0]} is not that of step {steps}"] if others else []
    wrong += (
        []
        if saved.tokenizer.get_vocab() == training.collator.made.get_vocab()
        else ["its tokenizer is another one"]
    )
    wrong += [] if found == wer_told else [f"WER {found:.4f}, but {wer_told:.4f} was measured"]
    heard = _generated(saved.model, saved.tokenizer, training.validation, training.collator.prompt)
    wrong += [
        f"generate() hears {plain!r}, we {texts[place]!r}"
        for place, plain in heard.items()
        if plain != texts[place]
    ]
    return Check(
        "saved_model",
        not wrong,
        "; ".join(wrong[:3]) or f"loaded anew: WER {found:.4f}, as measured; generate() agrees",
    )


def _generated(
    whisper: WhisperForConditionalGeneration,
    made: WhisperTokenizer,
    validation: Validation,
    prompt: list[int],
) -> dict[int, str]:
    """What plain `generate()` hears in a few of the validation rows that fit the window, up to our
    limit of tokens per second.
    """
    frames = loader.window_seconds(whisper) * FRAMES_PER_SECOND
    places = [
        place
        for place, seconds in enumerate(validation.durations)
        if seconds * FRAMES_PER_SECOND <= frames
    ][:GENERATED]
    if not places:
        return {}
    stretches = [
        greedy.cut(validation.rows.log_mel(validation.chosen[place]), frames)[0] for place in places
    ]
    with loader.quiet(), torch.inference_mode():
        inputs = input_features([one.features for one in stretches], frames).to(whisper.device)
        told = whisper.generate(
            inputs, do_sample=False, force_unique_generate_call=True
        )  # or it hears the end of a window anew
    said = [ids[len(prompt) :] if ids[: len(prompt)] == prompt else ids for ids in told.tolist()]
    kept = [
        ids[: greedy.max_tokens(one.duration)] for ids, one in zip(said, stretches, strict=True)
    ]
    return {
        place: made.decode(ids, skip_special_tokens=True).strip()
        for place, ids in zip(places, kept, strict=True)
    }
