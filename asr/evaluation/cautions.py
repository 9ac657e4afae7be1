"""What a reader of the scores should know before believing a verdict, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from asr.evaluation.table import FINETUNED

BETTER = "better"
MUCH = 0.1  # a share of errors that is worth a sentence


def cautions(models: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Sentences on errors of form, on loops, and on rows that decide a verdict alone.

    Args:
        models: the scores of each model, as in metrics.json; older ones do not tell these things.
    """
    return [
        sentence
        for name, scores in models.items()
        if "form" in scores
        for one in (_form, _loops, _verdict_of_form, _verdict_of_rows)
        for sentence in one(name, scores)
    ]


def form_text(scores: Mapping[str, Any]) -> str:
    """The share of a model's word errors that is a matter of form, and of what."""
    return f"{_percent(scores['form']['share'])} ({_kinds(scores)})"


def _kinds(scores: Mapping[str, Any]) -> str:
    form = scores["form"]
    return f"numerals {form['numeral_errors']:,}, spacing {form['spacing_errors']:,}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _form(name: str, scores: Mapping[str, Any]) -> Iterator[str]:
    share = scores["form"]["share"]
    if share >= MUCH:
        yield (
            f"{name}: {_percent(share)} of its word errors are only a matter of how words are "
            f"written ({_kinds(scores)}); without them its WER is "
            f"{scores['wer_without_form']:.4f}."
        )


def _loops(name: str, scores: Mapping[str, Any]) -> Iterator[str]:
    loops = scores["loops"]
    if loops["share"] >= MUCH:
        share = _percent(loops["share"])
        rows = "1 utterance goes" if loops["rows"] == 1 else f"{loops['rows']:,} utterances go"
        yield f"{name}: {rows} round in circles, with {share} of its word errors."


def _verdict_of_form(name: str, scores: Mapping[str, Any]) -> Iterator[str]:
    verdicts = scores.get("verdicts")
    if not verdicts or verdicts["wer"]["verdict"] != BETTER:
        return
    without = verdicts["wer_without_form"]["verdict"]
    if without != BETTER:
        yield (
            "What training taught the model is how words are written: without errors of form "
            f"{FINETUNED} against {name} is {without}."
        )


def _verdict_of_rows(name: str, scores: Mapping[str, Any]) -> Iterator[str]:
    """Whether a few rows decide: another verdict where they are bounded, or left out."""
    verdicts = scores.get("verdicts", {})
    told = verdicts.get("wer", {}).get("verdict")
    for other, rows in (
        ("wer_without_loops", "without the utterances that go round in circles"),
        ("wer_bounded", "with no utterance counted as more errors than it has words"),
    ):
        found = verdicts.get(other, {}).get("verdict", told)
        if found != told:
            yield (
                f"A few utterances decide: by WER {FINETUNED} against {name} is {told}, "
                f"{rows} it is {found}."
            )
