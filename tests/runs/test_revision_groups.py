"""Which revisions make one row, and when what is published gives way."""

from __future__ import annotations

from typing import Any

import pytest

from asr.runs.revision_groups import Facts, by_test, by_training, name_of, row_facts
from asr.runs.revisions import EXPERIMENT, HERE, PUBLISHED, RESULT, Revision

NOW: dict[str, Any] = {"test_hash": "t", "wer": 0.1, "cer": 0.05}
OTHER = {**NOW, "test_hash": "u"}
LOGGED = {"wer": 0.1, "cer": 0.05}


def facts(scores: dict[str, Any], **told: Any) -> Facts:
    return {"scores": scores, "untested": "" if scores else "not tested yet", **told}


def revision(kind: str, name: str = "") -> Revision:
    return Revision(name or kind, kind, kind)


KEPT = (revision(PUBLISHED, "kept"), facts(NOW))


@pytest.mark.parametrize(
    ("known", "logged", "groups"),
    [
        ([KEPT], None, [["kept"]]),  # nothing is known here
        ([KEPT], LOGGED, [["kept"]]),  # MLflow has the same numbers, and no utterances
        ([KEPT], {}, []),  # trained here, not tested
        ([KEPT], {"wer": 0.2, "cer": 0.1}, []),  # tested here, with other numbers
        ([(revision(RESULT), facts(NOW)), KEPT], None, [["result", "kept"]]),
        ([(revision(RESULT), facts(OTHER)), KEPT], LOGGED, [["result"]]),
        ([(HERE, facts({})), KEPT], None, [["workspace"]]),
        ([(HERE, facts({})), KEPT], LOGGED, [["kept", "workspace"]]),
    ],
)
def test_what_is_published_gives_way_to_what_is_known_here(
    known: Any, logged: Any, groups: list[list[str]]
) -> None:
    found = by_test(known, logged)
    assert [[revision.name for revision, _ in group] for group in found] == groups


def test_a_revision_that_was_not_tested_lends_a_row_no_utterances() -> None:
    """The workspace holds the table of another; the kept result holds its own."""
    kept = revision(RESULT)
    (group,) = by_test([(HERE, facts({})), (kept, facts(NOW))], None)
    row = row_facts(group, {})
    assert (row["revisions"], row["results"]) == ((kept, HERE), (kept,))
    assert (row["scores"], row["untested"]) == (NOW, "")
    alone = row_facts([(HERE, facts({}))], {})
    assert (alone["results"], alone["scores"], alone["untested"]) == ((), {}, "not tested yet")
    assert row_facts([], {})["untested"] == "not tested yet"
    assert row_facts([], LOGGED)["untested"] == ""


def test_a_published_run_is_joined_by_the_hash_of_its_run_json() -> None:
    head = (revision(PUBLISHED, "head"), facts(NOW, run="r"))
    here = (revision(EXPERIMENT), facts(NOW, run="r"))
    known, apart = by_training([(here[0], "f", here[1]), (head[0], None, head[1])])
    assert (dict(known), apart) == ({"f": [here, head]}, [])
    here[1]["run"] = "another"
    known, apart = by_training([(here[0], "f", here[1]), (head[0], None, head[1])])
    assert (dict(known), apart) == ({"f": [here]}, [head])
    known, apart = by_training([(head[0], None, {})])
    assert (dict(known), apart) == ({}, []), "a commit without results"


def test_damaged_scores_make_a_row_of_their_own_and_no_error() -> None:
    odd = facts({"test_hash": ["t"], "wer": {}, "cer": None})
    assert len(by_test([(HERE, facts(NOW)), (revision(RESULT), odd)], None)) == 2


def test_a_training_keeps_the_name_it_was_given() -> None:
    group = [(HERE, facts(NOW)), (revision(RESULT, "tense-vega"), facts(NOW))]
    assert name_of(group) == "tense-vega"
    assert name_of(group[:1]) == "workspace"
