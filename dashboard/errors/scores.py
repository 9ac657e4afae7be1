"""The scores of the utterances that are shown, with the interval of the report where all are."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pandas as pd
import streamlit as st

from asr import paths, wer
from asr.errors import UserError
from asr.evaluation import slices
from asr.evaluation.cautions import cautions
from asr.evaluation.slices import Utterances
from asr.evaluation.table import COUNTS, FINETUNED
from asr.runs import reports, revision_facts, revisions
from asr.runs.revisions import Revision
from asr.runtime import formatting
from asr.storage import hashing
from dashboard import widgets
from dashboard.errors.result_picker import ResultSource

PREFIXES = ("", "other_")  # of the columns of each model
Score = tuple[float, wer.Interval]


def show(utterances: Utterances, mask: np.ndarray, text: str, sources: list[ResultSource]) -> None:
    """Show how many utterances match, and the scores of each model on them.

    Args:
        mask: (rows,) bool, the utterances that match.
        text: COUNTED or WRITTEN, which is the prefix of the columns of counts.
    """
    rows = utterances.rows[mask]
    key = f"{utterances.key}{hashing.hash_of(np.packbits(mask).tobytes().hex())}"
    line = st.container(horizontal=True, gap="medium")
    _metric(line, "Utterances", f"{len(rows):,}", f"of {len(utterances):,}")
    num_words = int(slices.words(rows, text).sum())
    duration = formatting.duration_text(float(np.nansum(rows["duration"])))
    _metric(line, "Reference words", f"{num_words:,}", f"in {duration}")
    for source, prefix in zip(sources, PREFIXES, strict=False):
        share, interval = score(key, rows, source, f"{prefix}{text}")
        _metric(line, f"WER of {source.name}", formatting.percent(share), _told(interval, rows))
    if mask.all():
        _show_cautions(sources)
    if utterances.two:
        draws = _draws(sources[0].revision)
        _show_difference(_difference(key, rows, text, *draws))
    else:
        _show_errors(line, rows, text)


def score(key: str, rows: pd.DataFrame, source: ResultSource, prefix: str) -> Score:
    """WER and interval of these rows: those of the report, where it is of just these.

    Args:
        key: names the rows, for the cache.
    """
    reported = None
    if prefix in PREFIXES:  # the report has no interval of the text as written
        reported = of_report(source, counts(rows, prefix))
    if reported:
        return reported
    return _computed(key, rows, prefix, *_draws(source.revision))


def counts(rows: pd.DataFrame, prefix: str) -> dict[str, int]:
    """What must agree with a report that is of these rows."""
    sums = {name: int(rows[f"{prefix}{name}"].sum()) for name in COUNTS[1:]}
    return {"rows": len(rows), "words": int(slices.words(rows, prefix).sum()), **sums}


def of_report(source: ResultSource, wanted: dict[str, int]) -> Score | None:
    """WER and interval that `evaluate` reported; None where the report is of other rows."""
    try:
        metrics = reports.read_json(revisions.fetch(source.revision, paths.METRICS))
        model = source.results.model
        told = metrics if model == FINETUNED else metrics["models"][model]
        if any(told[name] != count for name, count in wanted.items()):
            return None
        interval = wer.Interval(
            float(told["wer_low"]), float(told["wer_high"]), str(told["ci_unit"])
        )
        return float(told["wer"]), interval
    except (UserError, KeyError, TypeError, ValueError):
        return None


def _show_cautions(sources: list[ResultSource]) -> None:
    """Say what `evaluate` reported that may mislead, such as errors that are a matter of form."""
    told: dict[str, None] = {}  # as a set, in order
    for source in sources:
        with suppress(UserError, KeyError, TypeError, ValueError):  # an older or damaged report
            metrics = reports.read_json(revisions.fetch(source.revision, paths.METRICS))
            told |= dict.fromkeys(cautions(metrics["models"]))
    if told:
        with st.expander("What may mislead", icon=":material/info:"):
            st.markdown("\n".join(f"- {widgets.plain(sentence)}" for sentence in told))


def _told(interval: wer.Interval, rows: pd.DataFrame) -> str:
    drawn = rows["speaker"].nunique() if interval.unit == "speaker" else len(rows)
    bounds = formatting.percent_interval(interval.low, interval.high)
    return f"95 %: {bounds}, over {drawn:,} {interval.unit}{'s' * (drawn != 1)}"


def _show_errors(box: st.delta_generator.DeltaGenerator, rows: pd.DataFrame, text: str) -> None:
    """Show the errors of the only model, by kind."""
    substitutions, deletions, insertions = (int(rows[f"{text}{kind}"].sum()) for kind in COUNTS[1:])
    total = substitutions + deletions + insertions
    kinds = f"{substitutions:,} wrong, {deletions:,} missed, {insertions:,} added"
    _metric(box, "Errors", f"{total:,}", kinds)


def _show_difference(gap: wer.Difference) -> None:
    """Show whether the second model is better or worse than the first."""
    points = f"{100 * gap.difference:+.1f} points"
    bounds = f"95 % interval {100 * gap.low:+.1f} to {100 * gap.high:+.1f}, by {gap.unit}"
    st.markdown(
        f"On these utterances the second model is **{gap.verdict}**: "
        f"{widgets.plain(f'{points}, {bounds}')}."
    )


def _metric(box: st.delta_generator.DeltaGenerator, label: str, value: str, below: str) -> None:
    """Show a value with a label above and a remark below."""
    box.metric(
        widgets.plain(label),
        value,
        widgets.plain(below),
        delta_color="off",
        delta_arrow="off",
        width="content",
    )


# Streamlit does not hash arguments that begin with an underscore: `key` names the rows.
@st.cache_data(max_entries=200, show_spinner=False)
def _computed(
    key: str,  # noqa: ARG001
    _rows: pd.DataFrame,
    prefix: str,
    resamples: int,
    seed: int,
) -> Score:
    return slices.score(_rows, prefix, resamples, seed)


@st.cache_data(max_entries=200, show_spinner=False)
def _difference(
    key: str,  # noqa: ARG001
    _rows: pd.DataFrame,
    text: str,
    resamples: int,
    seed: int,
) -> wer.Difference:
    return slices.difference(_rows, text, resamples, seed)


def _draws(revision: Revision) -> tuple[int, int]:
    """Resamples and seed of a revision's report."""
    lock = paths.root() / "dvc.lock"
    modified = lock.stat().st_mtime_ns if lock.is_file() else 0
    return _bootstrap_params(revision, modified)


@st.cache_data(max_entries=50, show_spinner=False)
def _bootstrap_params(revision: Revision, modified: int) -> tuple[int, int]:  # noqa: ARG001
    return revision_facts.bootstrap_params(revision)
