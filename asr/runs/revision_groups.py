"""The revisions that hold one training, grouped by the test whose scores they have.

A row of the table of runs is such a group. What the repository publishes gives way where the same
training is known here: its own results say more. Imports nothing slow.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from asr.runs import tested
from asr.runs.revisions import PUBLISHED, RESULT, Revision

Facts = dict[str, Any]  # of a revision, as `revision_facts.read` gives them
RevisionFacts = tuple[Revision, Facts]


def by_training(
    listed: Iterable[tuple[Revision, str | None, Facts]],
) -> tuple[dict[str, list[RevisionFacts]], list[RevisionFacts]]:
    """Sort revisions by their training.

    Args:
        listed: revisions with the fingerprint of their training, if it is known, and their facts.
    Returns:
        those with a fingerprint, by it; and those that are published without one, which joins them
        to a training only through the hash of its run.json.
    """
    known: dict[str, list[RevisionFacts]] = defaultdict(list)
    without: list[RevisionFacts] = []
    for revision, fingerprint, facts in listed:
        if fingerprint:
            known[fingerprint].append((revision, facts))
        elif facts:
            without.append((revision, facts))
    by_run = {
        facts["run"]: fingerprint
        for fingerprint, group in known.items()
        for _, facts in group
        if facts.get("run")
    }
    apart = []
    for revision, facts in without:
        if facts.get("run") in by_run:
            known[by_run[facts["run"]]].append((revision, facts))
        else:
            apart.append((revision, facts))
    return known, apart


def by_test(
    known: list[RevisionFacts], logged: dict[str, float] | None
) -> list[list[RevisionFacts]]:
    """Group the revisions of one training by the result of its test.

    Those without scores go to the first group that has some. What is published joins the group of
    the same result; else it stands alone where nothing else is known of the training.

    Args:
        logged: the scores that MLflow holds; None if it does not know the training.
    """
    own = [(revision, facts) for revision, facts in known if revision.kind != PUBLISHED]
    groups: dict[tuple[str, ...], list[RevisionFacts]] = defaultdict(list)
    for revision, facts in own:
        if facts["scores"]:
            groups[_result(facts["scores"])].append((revision, facts))
    is_known = bool(own) or logged is not None
    for revision, facts in known:
        if revision.kind == PUBLISHED:
            result = _result(facts["scores"])
            as_logged = not groups and logged and _result(logged)[1:] == result[1:]
            if result in groups or as_logged or not is_known:
                groups[result].append((revision, facts))
    untested = [(revision, facts) for revision, facts in own if not facts["scores"]]
    first, *others = [*groups.values()] or [[]]
    return [group for group in ([*first, *untested], *others) if group]


def _result(scores: dict[str, Any]) -> tuple[str, ...]:
    """What tells one test's result from another's, as text: a damaged report may hold anything."""
    return tuple(str(scores.get(key)) for key in ("test_hash", "wer", "cer"))


def name_of(group: list[RevisionFacts]) -> str:
    """The name of a training that MLflow does not know: the one it was given, if that was kept."""
    given = [revision.name for revision, _ in group if revision.kind == RESULT]
    return next(iter(given), group[0][0].name)


def row_facts(group: list[RevisionFacts], logged: dict[str, float]) -> dict[str, Any]:
    """What the revisions of a group tell of the row that they make; the first that has scores.

    Args:
        logged: the scores that MLflow holds, which stand where no revision has any.
    """
    facts = group[0][1] if group else {}
    scores = facts.get("scores") or logged
    return {
        "revisions": tuple(revision for revision, _ in group),
        "results": tuple(revision for revision, told in group if told["scores"]),
        "scores": scores,
        "untested": "" if scores else facts.get("untested") or tested.NOT_TESTED,
        "best_wer": facts.get("best_wer"),
        "best_step": facts.get("best_step"),
        "parameters": facts.get("parameters"),
        "left_out": facts.get("left_out"),
        "utterances_hash": facts.get("utterances"),
    }
