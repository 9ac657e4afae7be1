"""Checks of decoding: the metric, the validation WER, and the model as it was saved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from asr import stopping, wer, windows
from asr.checks.check import Check
from asr.features import input_features
from asr.model import greedy, loader, timestamps
from asr.model.loader import Start
from asr.whisper import FRAMES_PER_SECOND

if TYPE_CHECKING:
    from asr.training.validation import Validation

CUT_SHARE = 0.02  # of validation rows may have more tokens than decoding has room for
JUMP = 0.1  # a validation WER that rises by so much while the loss falls is no noise
GENERATED = 4  # rows that are decoded by plain `generate()` too
MAX_SHOWN = 10  # rows named in the detail of a failed check
MAX_WRONG = 3  # faults named there
MIN_WORDS_SHARE = 0.5  # of the texts' words that normalized references must have


def metric_is_sound(
    references: list[str],
    texts: Sequence[str],
    lengths: Sequence[int],
    durations: Sequence[float],
    num_rows: int,
) -> Check:
    """The WER of a text against itself is 0, of silence 1, of each text said twice 1.

    Also: normalizing leaves most words, decoding has room for the texts, and as many rows are
    validated as params say.

    Args:
        references: the texts, normalized.
        texts: of the validation rows, as written.
        lengths: tokens of each text.
        durations: seconds of each row.
        num_rows: that should be validated.
    """
    same = wer.error_rates(references, references)["wer"]
    silent = wer.error_rates(references, [""] * len(references))["wer"]
    twice = wer.error_rates(references, [f"{text} {text}" for text in references])["wer"]

    words_share = _num_words(references) / max(_num_words(texts), 1)
    num_cut = sum(
        length > stopping.max_tokens(seconds)
        for length, seconds in zip(lengths, durations, strict=True)
    )

    rates_are_right = same == 0 and silent == 1 and twice == 1
    texts_are_whole = words_share > MIN_WORDS_SHARE and num_cut <= CUT_SHARE * len(texts)
    passed = rates_are_right and texts_are_whole and len(texts) == num_rows
    detail = (
        f"itself {same:.3f}, silence {silent:.3f}, said twice {twice:.3f}; "
        f"{words_share:.0%} of words compared; decoding has too little room for {num_cut} of "
        f"{len(texts)} texts, {num_rows} were asked for"
    )
    return Check("metric", passed, detail)


def _num_words(texts: Sequence[str]) -> int:
    return sum(len(text.split()) for text in texts)


def loss_and_wer_agree(
    rows: Sequence[dict[str, Any]], worst: Callable[[], Sequence[tuple[str, str]]], prompt: str
) -> Check:
    """The validation WER does not jump while the validation loss falls: that is a decoding fault.

    Args:
        rows: of steps.csv.
        worst: decodes the validation rows; gives reference and hypothesis of the worst. Called
            only if the check fails.
        prompt: the tokens that decoding starts with, as text.
    """
    jumps = _jumps(rows)
    if not jumps:
        return Check("decoding", True, "the WER fell, or rose with the loss")
    pairs = [f"{reference!r} was heard as {hypothesis!r}" for reference, hypothesis in worst()]
    return Check("decoding", False, f"{'; '.join(jumps)}; after {prompt}: {'; '.join(pairs)}")


def _jumps(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The steps at which the WER jumped while the loss fell, against the best step before.

    A WER of 1 or more, as at the start from scratch, is no best one: it may jump freely.
    """
    jumps: list[str] = []
    best: dict[str, Any] | None = None
    for row in rows:
        if row.get("validation_loss") is None or "validation_wer" not in row:
            continue
        loss, error_rate = row["validation_loss"], row["validation_wer"]
        if best is not None:
            best_loss, best_wer = best["validation_loss"], best["validation_wer"]
            if loss < best_loss and error_rate > best_wer + JUMP:
                jumps.append(
                    f"step {row['step']}: loss {best_loss:.3f} -> {loss:.3f}, "
                    f"WER {best_wer:.3f} -> {error_rate:.3f}"
                )
        if error_rate < (best["validation_wer"] if best else 1.0):
            best = row
    return jumps


def saved_model_is_the_best(
    saved: Start,
    best: dict[str, torch.Tensor],
    steps: Sequence[int],
    measured: float,
    validation: Validation,
) -> Check:
    """A saved model, loaded anew, has the best weights and gives the WER that was measured.

    Plain `generate()` gives the same texts as our decoding. Costs one decoding of the validation
    rows.

    Args:
        best: the best weights, those of the plain model.
        steps: whose weights, or the mean of whose weights, these are.
        measured: the WER that training measured with them.
    """
    weights = saved.model.state_dict()
    other_weights = [
        name for name, value in best.items() if not torch.equal(value.cpu(), weights[name].cpu())
    ]
    hypotheses = _decoded(saved, validation)
    normalized = [wer.normalize(text) for text in hypotheses]
    error_rate = wer.error_rates(validation.references, normalized)["wer"]

    wrong = []
    if other_weights:
        wrong.append(f"{other_weights[0]} is not that of step {steps}")
    if saved.tokenizer.get_vocab() != validation.collator.tokenizer.get_vocab():
        wrong.append("its tokenizer is another one")
    if error_rate != measured:
        wrong.append(f"WER {error_rate:.4f}, but {measured:.4f} was measured")
    wrong += [
        f"generate() hears {text!r}, we {hypotheses[index]!r}"
        for index, text in _generated(saved, validation).items()
        if text != hypotheses[index]
    ]
    sound = f"loaded anew: WER {error_rate:.4f}, as measured; generate() agrees"
    return Check("saved_model", not wrong, "; ".join(wrong[:MAX_WRONG]) or sound)


def _decoded(saved: Start, validation: Validation) -> list[str]:
    """Hypotheses of a saved model for the validation rows, decoded as in the training."""
    saved.model.eval()
    return greedy.transcribe(
        saved.model,
        saved.tokenizer,
        validation.durations,
        lambda index: validation.rows.log_mel(validation.row_numbers[index]),
        validation.batch_size,
        validation.collator.positions,
    )


def _generated(saved: Start, validation: Validation) -> dict[int, str]:
    """Texts that plain `generate()` gives for a few validation rows, by the row's index there.

    Only rows that fit the window are taken; texts are stopped as ours are: at the limit of tokens
    for their length, and where they loop.
    """
    frames = loader.window_seconds(saved.model) * FRAMES_PER_SECOND
    fitting = [
        index
        for index, seconds in enumerate(validation.durations)
        if seconds * FRAMES_PER_SECOND <= frames
    ][:GENERATED]
    if not fitting:
        return {}
    segments = [
        windows.cut(validation.rows.log_mel(validation.row_numbers[index]), frames)[0]
        for index in fitting
    ]
    prompt = validation.collator.prompt
    zero = timestamps.first_timestamp(saved.model.generation_config)
    longest = max(stopping.max_tokens(segment.duration) for segment in segments)
    with loader.quiet(), torch.inference_mode():
        clips = [segment.features for segment in segments]
        output = saved.model.generate(
            input_features(clips, frames).to(saved.model.device),
            do_sample=False,
            force_unique_generate_call=True,  # or it decodes the end of a window again
            max_new_tokens=min(longest, validation.collator.positions - len(prompt)),
        )
    texts = {}
    for index, segment, ids in zip(fitting, segments, output.tolist(), strict=True):
        after_prompt = ids[len(prompt) :] if ids[: len(prompt)] == prompt else ids
        tokens = after_prompt[: stopping.max_tokens(segment.duration)]
        tokens = stopping.without_loop(tokens, zero)
        texts[index] = saved.tokenizer.decode(tokens, skip_special_tokens=True).strip()
    return texts
