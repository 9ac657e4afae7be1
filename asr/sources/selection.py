"""Which utterances of a source are taken, into which split, and how often: decided for each row by
itself, so growth moves nobody.

Goes through a source's listing twice: once to count, once to hand on. Holds 8 bytes a row, and that
only under `max_rows`.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from asr.errors import ParamsError
from asr.sources.utterances import Utterance, UtteranceIterable
from asr.storage.hashing import fraction_of, split_of
from asr.storage.shards import HOLDOUT

MAIN, TRAIN = "main", "train"
NOTES = (
    "source",
    "repeat",
    "language",
)  # attributes that we give; a source's own of these names are shown as their_source ...
SAMPLED = 128  # utterances, evenly spread, that stand for all of a source in a forecast


@dataclass(frozen=True)
class Selection:
    """What is wanted of one source.

    name: as rows show it.
    role: main (its splits are ours), train (all it has for training trains) or holdout (all it has
        for testing, never trained on).
    share: of its rows, chosen by a hash of the id.
    rules: of `download.where`.
    max_rows: of each split, chosen by a hash of the id; None for all.
    language: that a held-out source is in, where it is another than ours.
    """

    name: str
    role: str
    share: float
    rules: Sequence[Mapping[str, Any]]
    max_rows: int | None
    seed: int
    language: str | None = None


@dataclass
class SelectionCounts:
    """What a first pass over a source's listing found."""

    rows: Counter[str] = field(default_factory=Counter)  # by split
    left_out: Counter[str] = field(default_factory=Counter)  # by reason
    fields: set[str] = field(default_factory=set)  # that some row has
    sample: list[Utterance] = field(default_factory=list)
    thresholds: dict[str, float] = field(
        default_factory=dict
    )  # of the hash, by split, above which `max_rows` leaves out


def survey(listing: UtteranceIterable, wanted: Selection) -> SelectionCounts:
    """Count what a selection takes."""
    found = SelectionCounts()
    places: dict[str, array[float]] = defaultdict(lambda: array("d"))
    stride = 1
    for number, one in enumerate(listing):
        found.fields |= _attributes(one).keys()
        if number % stride == 0:
            found.sample.append(one)
            if len(found.sample) == SAMPLED:
                found.sample, stride = found.sample[::2], 2 * stride
        split, reason = assign_split(one, wanted)
        (found.left_out if reason else found.rows)[reason or split] += 1
        if wanted.max_rows and not reason:
            places[split].append(_place_in_queue(one, wanted.seed))
    for split, queue in places.items():
        if wanted.max_rows and len(queue) > wanted.max_rows:
            found.thresholds[split] = float(
                np.partition(np.frombuffer(queue), wanted.max_rows - 1)[wanted.max_rows - 1]
            )
            found.left_out["max_rows_per_split"] += len(queue) - wanted.max_rows
            found.rows[split] = wanted.max_rows
    return found


def selected(
    listing: UtteranceIterable, wanted: Selection, found: SelectionCounts
) -> Iterator[Utterance]:
    """The utterances that a selection takes, in the source's order, each with its split and, if it
    comes more than once, how often.
    """
    left = Counter(found.rows)  # rows that share an id share a threshold too
    for one in listing:
        split, reason = assign_split(one, wanted)
        within = split not in found.thresholds or (
            left[split] > 0 and _place_in_queue(one, wanted.seed) <= found.thresholds[split]
        )
        if not reason and within:
            left[split] -= 1
            yield replace(
                one,
                id=_id(one, wanted),
                split=split,
                attributes={**_attributes(one), **_notes(one, wanted, split)},
            )


def assign_split(one: Utterance, wanted: Selection) -> tuple[str, str]:
    """The split in which an utterance counts, and why it is left out, or nothing."""
    split = _split(one, wanted.role)
    if not split:
        return "", "other_split"
    if fraction_of(f"{wanted.seed}:share:{one.id}") >= wanted.share:
        return split, "share"
    return split, "" if repeats(one, wanted, split) else "where"


def _split(one: Utterance, role: str) -> str | None:
    if role == MAIN:
        return one.split or split_of(one.speaker or one.id)
    if role == TRAIN:
        return TRAIN if one.split in (None, TRAIN) else None
    return HOLDOUT if one.split in (None, "test") else None


def repeats(one: Utterance, wanted: Selection, split: str) -> int:
    """How often a row counts: of a weight's fraction a hash decides. Rows that are tested on count
    once, or not at all.
    """
    known = {**_attributes(one), "source": wanted.name, "speaker": one.speaker}
    weight = float(
        np.prod([rule["weight" if matches(known, rule) else "otherwise"] for rule in wanted.rules])
    )
    if split != TRAIN:
        return int(weight > 0)
    return int(weight) + (fraction_of(f"{wanted.seed}:where:{one.id}") < weight % 1)


def matches(known: Mapping[str, Any], rule: Mapping[str, Any]) -> bool:
    """Whether what is known of a row satisfies a rule; several values in one, such as accents, may
    each do.
    """
    value = "" if known.get(rule["field"]) is None else str(known[rule["field"]]).casefold()
    if rule["any_of"] is not None:
        return bool(
            {value, *(part.strip() for part in re.split(r"[|,;]", value))}
            & {one.casefold() for one in rule["any_of"]}
        )
    try:
        return (rule["min"] is None or float(value) >= rule["min"]) and (
            rule["max"] is None or float(value) <= rule["max"]
        )
    except ValueError:
        return False


def check_fields(rules: Sequence[Mapping[str, Any]], fields: set[str]) -> None:
    """Refuse a rule about what no row has: it would leave out all rows, or none, without a word.

    Raises:
        BadParams: naming the fields that there are.
    """
    known = {*fields, "source", "speaker"}
    for rule in rules:
        if rule["field"] not in known:
            raise ParamsError(
                f"download.where: no row has {rule['field']}; rows have {', '.join(sorted(known))}"
            )


def _place_in_queue(one: Utterance, seed: int) -> float:
    return fraction_of(f"{seed}:{one.id}")


def _id(one: Utterance, wanted: Selection) -> str:
    return one.id if wanted.role == MAIN else f"{wanted.name}//{one.id}"


def _attributes(one: Utterance) -> dict[str, Any]:
    return {
        f"their_{name}" if name in NOTES else name: value for name, value in one.attributes.items()
    }


def _notes(one: Utterance, wanted: Selection, split: str) -> dict[str, Any]:
    count = repeats(one, wanted, split)
    told = {"repeat": count if count > 1 else None, "language": wanted.language}
    return {"source": wanted.name, **{key: value for key, value in told.items() if value}}
