"""Trainings beside each other: a verdict only where there can be one, and commands that say what
they mean to the shell and to DVC.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from asr import paths, wer
from asr.errors import DataError
from asr.evaluation import slices
from asr.evaluation import table as counts_table
from asr.params import reader
from asr.runs import comparison, revision_facts, states
from asr.runs.revisions import HERE, Revision
from asr.runs.run_rows import RunRow
from asr.runs.states import State
from asr.storage import hashing
from support.repository import SHIPPED
from support.runs import utterances


def row(name: str, table: pa.Table | None, test_hash: str | None = "t1", **params: Any) -> RunRow:
    """A row whose utterance table was fetched from a revision of its own."""
    sha = hashing.hash_of(name)[:40]
    if table is not None:
        target = paths.cache(
            "revisions", sha, hashing.hash_of(paths.UTTERANCES)[:16], "utterances.parquet"
        )
        target.parent.mkdir(parents=True)
        pq.write_table(table, target)
    scores = {"test_hash": test_hash} if test_hash else {}
    known = {
        "run_id": None,
        "fingerprint": None,
        "state": State(states.FINISHED),
        "start": None,
        "end": None,
        "tags": {},
        "metrics": {},
    }
    return RunRow(
        key=name,
        name=name,
        params=params,
        revisions=(Revision(name, sha, "experiment"),),
        results=(Revision(name, sha, "experiment"),),
        scores=scores,
        **known,
    )


def errors(seed: int, mean: float) -> list[int]:
    return [int(min(count, 5)) for count in np.random.default_rng(seed).poisson(mean, 300)]


@pytest.mark.parametrize(
    ("theirs", "verdict"), [(2.5, "better"), (0.4, "worse"), (1.0, "not distinguishable")]
)
def test_the_verdict_is_that_of_the_paired_bootstrap(theirs: float, verdict: str) -> None:
    speakers: list[str | None] = [f"s{number % 12}" for number in range(300)]
    one, other = errors(1, 1.0), errors(2, theirs)
    found = comparison.paired(
        row("one", utterances(one, speakers)), row("other", utterances(other, speakers))
    )
    assert (found.verdict, found.unit) == (verdict, "speaker")
    assert found.difference == pytest.approx((sum(one) - sum(other)) / 1500)
    assert found.low < found.difference < found.high


def test_utterances_are_aligned_by_id_and_not_by_place() -> None:
    table, other = (
        utterances(errors(1, 1.0), [None] * 300),
        utterances(errors(2, 1.1), [None] * 300),
    )
    shuffled = other.take(np.random.default_rng(0).permutation(300))
    first = comparison.paired(row("a", table), row("b", other))
    assert comparison.paired(row("c", table), row("d", shuffled)) == first
    assert first.unit == "utterance"
    back = comparison.paired(row("e", other), row("f", table))
    assert (back.difference, back.low, back.high) == pytest.approx(
        (-first.difference, -first.high, -first.low)
    )


def test_only_the_fine_tuned_model_is_compared() -> None:
    table = utterances([1] * 20, [None] * 20)
    start = table.set_column(1, "model", pa.array(["start"] * 20)).set_column(
        3, "substitutions", pa.array([5] * 20)
    )
    assert (
        comparison.paired(row("a", pa.concat_tables([table, start])), row("b", table)).difference
        == 0
    )


def test_other_recordings_are_refused_with_a_clear_word() -> None:
    table = utterances([1] * 20, [None] * 20)
    other_words = utterances([1] * 20, [None] * 20, words=6)
    for ours, theirs, word in (
        (row("a", table, "t1"), row("b", table, "t2"), "tested on other recordings"),
        (row("c", table, None), row("d", table), "c has no test scores"),
        (row("e", table), row("f", table.slice(1)), "hold other recordings"),
        (row("g", table), row("h", other_words), "hold other recordings"),
        (row("i", table), row("j", None), "j: no utterance table"),
    ):
        with pytest.raises(DataError, match=word):
            comparison.paired(ours, theirs)


def test_a_damaged_table_is_passed_over_for_one_of_another_revision(tmp_path: Path) -> None:
    whole = row("a", utterances([1, 2], [None, None]))
    (tmp_path / paths.UTTERANCES).parent.mkdir(parents=True)
    (tmp_path / paths.UTTERANCES).write_bytes(b"PAR1 no")
    both = RunRow(**{**whole.__dict__, "results": (HERE, *whole.results)})
    assert comparison.errors_of(both) == {"u0": (1, 5, None), "u1": (2, 5, None)}


def test_params_that_differ() -> None:
    rows = [row("a", None, x=1, y=2), row("b", None, x=1, y=3), row("c", None, x=1, y=2, z=None)]
    assert comparison.differing_params(rows) == ["y", "z"]
    assert comparison.differing_params(rows[:1]) == comparison.differing_params([]) == []


def test_the_command_names_what_differs_from_the_workspace() -> None:
    here = {
        "train.seed": 1,
        "train.learning_rate": "auto",
        "model.revision": None,
        "chunk.allow_shared": [],
    }
    known = {
        "train.seed": 2,
        "train.learning_rate": 3e-4,
        "model.revision": None,
        "chunk.allow_shared": ["speaker"],
        "old.key": 1,
    }
    told, unknown = comparison.reproduce_commands(row("tidy-newt", None, **known), here)
    assert told.splitlines() == [
        "# its files, from DVC's cache or remote",
        "dvc exp apply tidy-newt",
        "# or from the workspace as it is, anew",
        (
            "dvc exp run -S 'chunk.allow_shared=[speaker]' -S train.learning_rate=0.0003 -S "
            "train.seed=2"
        ),
    ]
    assert unknown == ["old.key"]


def test_hostile_names_stay_one_word_of_the_command() -> None:
    name = "$(touch ran);'\"`b`"
    told, _ = comparison.reproduce_commands(row(name, None), {})
    assert shlex.split(told.splitlines()[1]) == ["dvc", "exp", "apply", name]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False, allow_infinity=False, width=32)
    | st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n"), max_size=20)
    | st.sampled_from([
        "null", "True", "1e5", "a'b", "a\\'b", "\\", "\\\\'", "${x}", "a,b", "[x]", "{a: b}",
        "k=v", " ", "no",
    ]),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)  # fmt: skip


@given(VALUES)
def test_dvc_reads_back_the_value_that_was_written(value: Any) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    line = f"dvc exp run -S {shlex.quote(f'key={comparison.override_text(value)}')}"
    override = shlex.split(line)[-1]
    read = OverridesParser.create().parse_override(override).value()
    assert plain(read) == value


def plain(value: Any) -> Any:
    if isinstance(value, list):
        return [plain(one) for one in value]
    return getattr(value, "text", value)


@pytest.mark.parametrize(
    ("params", "draws"),
    [
        ({}, (slices.RESAMPLES, slices.SEED)),
        ({"evaluate.bootstrap_resamples": 300, "evaluate.seed": 7}, (300, 7)),
    ],
)
def test_the_interval_is_drawn_as_that_of_the_evaluation(params, draws) -> None:
    """Compared with `wer.paired` called by hand."""
    ours, theirs = errors(3, 1.0), errors(4, 1.2)
    table, other = (utterances(counts, [None] * 300) for counts in (ours, theirs))
    words = [counts_table.words(line) for line in table.to_pylist()]
    by_hand = wer.paired(ours, theirs, words, [None] * 300, *draws)
    assert comparison.paired(row("a", table, **params), row("b", other)) == by_hand


def test_draws_of_a_report_are_those_of_its_lock(tmp_path: Path) -> None:
    shipped = reader.load(SHIPPED).evaluate
    assert (shipped.bootstrap_resamples, shipped.seed) == (slices.RESAMPLES, slices.SEED)
    assert revision_facts.bootstrap_params(HERE) == (slices.RESAMPLES, slices.SEED)
    values = {"evaluate": {"bootstrap_resamples": 300, "seed": 7}}
    lock = {"stages": {"evaluate": {"params": {"params.yaml": values}}}}
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump(lock))
    assert revision_facts.bootstrap_params(HERE) == (300, 7)
    (tmp_path / "dvc.lock").write_text("stages: [evaluate]")
    assert revision_facts.bootstrap_params(HERE) == (slices.RESAMPLES, slices.SEED)
