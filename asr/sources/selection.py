"""Which utterances of a source are taken, into which split, and how often each row counts.

A hash of the id decides for each row by itself, so a corpus that grows moves no row to another
split; but of few speakers the smallest move where a split would stay empty. Goes through a source's
utterances twice: once to count them, once to hand them on. Holds 8 bytes a row, and that only under
`max_rows`.
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
from asr.sources.speakers import Voices
from asr.sources.utterances import Utterance, UtteranceIterable
from asr.storage.hashing import fraction_of, split_of
from asr.storage.shards import HOLDOUT, SPLITS

MAIN = "main"  # a role
TRAIN = "train"  # a role, and a split
# Attributes that we add. A source's own of the same name becomes `their_source`, ...
OUR_ATTRIBUTES = ("source", "repeat", "language")
FEW = 200  # speakers; of more, a hash leaves no split empty
SAMPLED = 128  # utterances, evenly spread, that stand for all of a source in a forecast


@dataclass(frozen=True)
class Selection:
    """Which rows of one source to take.

    Attributes:
        name: of the source, as rows show it.
        role: main (its splits are ours), train (all that it has for training is trained on) or
            holdout (all that it has for testing, never trained on).
        share: the share of its rows to take, chosen by a hash of the id.
        rules: of `download.where`.
        max_rows: rows of each split to take, chosen by a hash of the id; None for all.
        seed: of the hashes for share, weights and max_rows.
        language: the language of a held-out source, where it differs from ours.
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
    """What a first pass over a source's utterances counted.

    Attributes:
        rows: how many are taken, by split.
        left_out: how many are not, by reason.
        fields: the names of attributes that some row has.
        sample: utterances, evenly spread over the source.
        voices: whose of the rows that we split we know.
        thresholds: by split, the hash above which `max_rows` leaves a row out.
        speakers: rows of each speaker whose rows we split, FEW of them and one more; a row without
            a speaker counts as a speaker of its own.
        moved: split by speaker, of those that fill a split which their hash leaves empty.
    """

    rows: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    fields: set[str] = field(default_factory=set)
    sample: list[Utterance] = field(default_factory=list)
    voices: Voices = field(default_factory=Voices)
    thresholds: dict[str, float] = field(default_factory=dict)
    speakers: Counter[str] = field(default_factory=Counter)
    moved: dict[str, str] = field(default_factory=dict)


def survey(utterances: UtteranceIterable, selection: Selection) -> SelectionCounts:
    """Count what a selection takes and leaves out, and fill empty splits."""
    counts = _survey(utterances, selection, {})
    empty = [split for split in SPLITS if not counts.rows[split]]
    moved = fill(empty, counts.speakers) if empty else {}
    return _survey(utterances, selection, moved) if moved else counts


def fill(empty: Sequence[str], speakers: Mapping[str, int]) -> dict[str, str]:
    """The speakers to move, with their new splits, so that no split is empty.

    A split that has one speaker gives none away. The one with the fewest rows goes to validation or
    test, the one with the most to training.

    Args:
        empty: the splits that are empty.
        speakers: rows by speaker; nobody moves where there are more than FEW.
    """
    splits = {speaker: split_of(speaker) for speaker in speakers}
    moved: dict[str, str] = {}
    for split in empty if len(speakers) <= FEW else ():
        sizes = Counter(splits.values())
        givers = [speaker for speaker in speakers if sizes[splits[speaker]] > 1]
        if givers:
            sign = -1 if split == TRAIN else 1
            chosen = min(givers, key=lambda one: (sign * speakers[one], fraction_of(one)))
            splits[chosen] = moved[chosen] = split
    return moved


def _survey(
    utterances: UtteranceIterable, selection: Selection, moved: Mapping[str, str]
) -> SelectionCounts:
    counts = SelectionCounts(moved=dict(moved))
    ranks: dict[str, array[float]] = defaultdict(lambda: array("d"))
    stride = 1
    for number, utterance in enumerate(utterances):
        counts.fields |= _attributes(utterance).keys()
        if number % stride == 0:
            counts.sample.append(utterance)
            # A full sample is thinned by half, and from here on half as many are added.
            if len(counts.sample) == SAMPLED:
                counts.sample = counts.sample[::2]
                stride *= 2
        split, reason = assign_split(utterance, selection, moved)
        if reason:
            counts.left_out[reason] += 1
            continue
        counts.rows[split] += 1
        if selection.role == MAIN:
            counts.voices.add(utterance)
            _count_speaker(counts.speakers, utterance)
        if selection.max_rows:
            ranks[split].append(_rank(utterance, selection.seed))
    if selection.max_rows:
        _apply_max_rows(counts, ranks, selection.max_rows)
    return counts


def _count_speaker(speakers: Counter[str], utterance: Utterance) -> None:
    if not utterance.split and (len(speakers) <= FEW or _speaker(utterance) in speakers):
        speakers[_speaker(utterance)] += 1


def _speaker(utterance: Utterance) -> str:
    """What decides the split of a row that has none of its own."""
    return utterance.speaker or utterance.id


def _apply_max_rows(
    counts: SelectionCounts, ranks: Mapping[str, array[float]], max_rows: int
) -> None:
    """Keep the `max_rows` rows of lowest rank in each split."""
    for split, split_ranks in ranks.items():
        if len(split_ranks) > max_rows:
            last = max_rows - 1
            counts.thresholds[split] = float(np.partition(np.frombuffer(split_ranks), last)[last])
            counts.left_out["max_rows_per_split"] += len(split_ranks) - max_rows
            counts.rows[split] = max_rows


def select(
    utterances: UtteranceIterable, selection: Selection, counts: SelectionCounts
) -> Iterator[Utterance]:
    """Yield the utterances that a selection takes, in the source's order.

    Each has its split, and among its attributes the source and, if more than once, how often it
    counts.

    Args:
        counts: of `survey` for the same utterances and selection.
    """
    # Rows that share an id have the same rank, so the threshold alone could let too many pass.
    remaining = Counter(counts.rows)
    for utterance in utterances:
        split, reason = assign_split(utterance, selection, counts.moved)
        if reason:
            continue
        if split in counts.thresholds:
            rank = _rank(utterance, selection.seed)
            if remaining[split] <= 0 or rank > counts.thresholds[split]:
                continue
        remaining[split] -= 1
        yield replace(
            utterance,
            id=_id(utterance, selection),
            split=split,
            attributes={**_attributes(utterance), **_added(utterance, selection, split)},
        )


def assign_split(
    utterance: Utterance, selection: Selection, moved: Mapping[str, str]
) -> tuple[str, str]:
    """Return the split of an utterance, and why it is left out, or an empty reason.

    Args:
        moved: as in `SelectionCounts`.
    """
    split = _split(utterance, selection.role, moved)
    if not split:
        return "", "other_split"
    if fraction_of(f"{selection.seed}:share:{utterance.id}") >= selection.share:
        return split, "share"
    if not repeats(utterance, selection, split):
        return split, "where"
    return split, ""


def _split(utterance: Utterance, role: str, moved: Mapping[str, str]) -> str | None:
    if role == MAIN:
        speaker = _speaker(utterance)
        return utterance.split or moved.get(speaker) or split_of(speaker)
    if role == TRAIN:
        return TRAIN if utterance.split in (None, TRAIN) else None
    return HOLDOUT if utterance.split in (None, "test") else None


def repeats(utterance: Utterance, selection: Selection, split: str) -> int:
    """Return how often a row counts: the product of the weights that the rules give it.

    A hash decides about the fraction: of rows with weight 1.5 one half counts twice. Rows that are
    not trained on count once, or not at all.
    """
    values = {
        **_attributes(utterance),
        "source": selection.name,
        "speaker": utterance.speaker,
    }
    weights = [
        rule["weight"] if matches(values, rule) else rule["otherwise"] for rule in selection.rules
    ]
    weight = float(np.prod(weights))
    if split != TRAIN:
        return int(weight > 0)
    once_more = fraction_of(f"{selection.seed}:where:{utterance.id}") < weight % 1
    return int(weight) + once_more


def matches(values: Mapping[str, Any], rule: Mapping[str, Any]) -> bool:
    """Whether a row satisfies a rule.

    A value may hold several, such as accents, separated by `|`, `,` or `;`: one must fit.
    """
    value = values.get(rule["field"])
    text = "" if value is None else str(value).casefold()
    if rule["any_of"] is not None:
        alternatives = {text, *(part.strip() for part in re.split(r"[|,;]", text))}
        return not alternatives.isdisjoint(option.casefold() for option in rule["any_of"])
    try:
        return (rule["min"] is None or float(text) >= rule["min"]) and (
            rule["max"] is None or float(text) <= rule["max"]
        )
    except ValueError:
        return False


def check_fields(rules: Sequence[Mapping[str, Any]], fields: set[str]) -> None:
    """Refuse a rule about a field that no row has: it would silently leave out all rows, or none.

    Raises:
        ParamsError: naming the fields that there are.
    """
    available = {*fields, "source", "speaker"}
    for rule in rules:
        if rule["field"] not in available:
            names = ", ".join(sorted(available))
            raise ParamsError(f"download.where: no row has {rule['field']}; rows have {names}")


def _rank(utterance: Utterance, seed: int) -> float:
    """A number in [0, 1); `max_rows` takes the rows of lowest rank."""
    return fraction_of(f"{seed}:{utterance.id}")


def _id(utterance: Utterance, selection: Selection) -> str:
    if selection.role == MAIN:
        return utterance.id
    return f"{selection.name}//{utterance.id}"


def _attributes(utterance: Utterance) -> dict[str, Any]:
    """The source's own attributes, renamed where they would hide ours."""
    return {
        f"their_{name}" if name in OUR_ATTRIBUTES else name: value
        for name, value in utterance.attributes.items()
    }


def _added(utterance: Utterance, selection: Selection, split: str) -> dict[str, Any]:
    """The attributes that we add, where they say something."""
    added: dict[str, Any] = {"source": selection.name}
    count = repeats(utterance, selection, split)
    if count > 1:
        added["repeat"] = count
    if selection.language:
        added["language"] = selection.language
    return added
