"""Values of params.yaml that are right by themselves and contradict each other. Costs microseconds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from asr import paths
from asr.whisper import WHISPER_LANGUAGES

STAGE_OUTS = (paths.RAW, paths.CHUNKS, paths.FEATURES, paths.MODEL, paths.REPORTS)


def contradictions(given: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What is wrong between two values, told by dotted key, in whatever parts of the file can be
    compared.

    Args:
        given: values by dotted key.
    """
    made = "download.synthetic"
    yield from _ordered(given, "chunk", "min_seconds", "max_seconds")
    yield from _ordered(given, "download.digits", "min_digits", "max_digits")
    for what in ("numbers", "words_per_minute", "pitch"):
        yield from _ordered(given, made, f"min_{what}", f"max_{what}")
    yield from _augmentation(given)
    for warmup, steps in _numbers(given, "train.warmup_steps", "train.max_steps"):
        if 1 <= steps <= warmup:
            yield "train.warmup_steps", f"got {warmup}, want fewer than max_steps ({steps})"
    if given.get("train.pack_to_window") is True and given.get("train.timestamp_share") == 0:
        yield (
            "train.pack_to_window",
            "got true, want train.timestamp_share above 0: rows are packed with their times, or not at all",
        )
    sides = ("model.scratch.encoder_attention_heads", "model.scratch.decoder_attention_heads")
    for width, heads in {
        pair: None for side in sides for pair in _numbers(given, "model.scratch.d_model", side)
    }:
        if heads > 0 and (width % heads or width % 2):
            yield (
                "model.scratch.d_model",
                f"got {width}, want an even multiple of the attention heads ({heads})",
            )
    source = given.get("download.source")
    if source != "synthetic" and "download.path" in given and not given["download.path"]:
        yield "download.path", f"got nothing, want where the {source} corpus lies"
    for number, rule in enumerate(_items(given, "download.where")):
        yield from _rule(f"download.where.{number}", rule)
    for number, entry in enumerate(_items(given, "download.mix")):
        yield from _mixed(f"download.mix.{number}", entry, given)
    name = given.get("model.name")
    if isinstance(name, str) and name and _in_stage_out(name):
        yield (
            "model.name",
            f"got {name}, which DVC deletes before training; want a copy: make keep NAME=mine, then models/kept/mine",
        )
    if name == "scratch" and given.get("model.lora.rank"):
        yield (
            "model.lora.rank",
            f"got {given['model.lora.rank']}, want null where all weights are still to be learnt (model.name: scratch)",
        )
    key = "model.language" if given.get("model.language") else "download.language"
    if isinstance(given.get(key), str) and given[key] not in WHISPER_LANGUAGES:
        way = "want model.language set to the nearest of its languages (asr/whisper.py); earshot prompt-language then measures some"
        yield key, f"got {given[key]}, which Whisper has no token for; {way}"


def _items(given: dict[str, Any], key: str) -> list[Any]:
    found = given.get(key)
    return found if isinstance(found, list) else []


def _rule(key: str, rule: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(rule, dict):
        return
    limits = [name for name in ("min", "max") if rule.get(name) is not None]
    if bool(rule.get("any_of")) == bool(limits):
        told = "any_of and " if rule.get("any_of") else "neither any_of nor "
        yield (
            key,
            f"got {told}{' and '.join(limits) or 'limits'}, want values in any_of, or else min, max or both",
        )
    yield from _ordered({f"{key}.{name}": rule[name] for name in limits}, key, "min", "max")


def _mixed(key: str, entry: Any, given: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if not isinstance(entry, dict):
        return
    if entry.get("source") != "synthetic" and not entry.get("path"):
        yield f"{key}.path", "got nothing, want where this corpus lies"
    ours, theirs = given.get("download.language"), entry.get("language")
    if entry.get("role") == "train" and theirs not in (None, ours):
        yield (
            f"{key}.language",
            f"got {theirs}, want download.language ({ours}): all that is trained on has one prompt",
        )
    elif isinstance(theirs, str) and theirs not in (ours, *WHISPER_LANGUAGES):
        yield (
            f"{key}.language",
            f"got {theirs}, which Whisper has no token for; want one of its languages (asr/whisper.py)",
        )


def _augmentation(given: dict[str, Any]) -> Iterator[tuple[str, str]]:
    copies = "featurize.augment"
    for kind, what in (
        ("speed", "{}"),
        ("reverberation", "{}_rt60_seconds"),
        ("noise", "{}_snr_db"),
        ("gain", "{}_db"),
    ):
        yield from _ordered(given, f"{copies}.{kind}", what.format("min"), what.format("max"))
    chances = [
        f"{copies}.{kind}.probability" for kind in ("speed", "reverberation", "noise", "gain")
    ]
    for made, *shares in _numbers(given, f"{copies}.copies", *chances):
        if made > 0 and not any(shares):
            yield (
                f"{copies}.copies",
                f"got {made}, want a kind of change with a probability above 0: these copies are the row itself",
            )


def _ordered(given: dict[str, Any], section: str, low: str, high: str) -> Iterator[tuple[str, str]]:
    for least, most in _numbers(given, f"{section}.{low}", f"{section}.{high}"):
        if least > most:
            yield f"{section}.{low}", f"got {least}, want at most {high} ({most})"


def _numbers(given: dict[str, Any], *keys: str) -> list[tuple[Any, ...]]:
    """The values of these keys where all are numbers and can be compared; whatever else is told by
    its own check.
    """
    values = tuple(given.get(key) for key in keys)
    return (
        [values]
        if all(isinstance(one, int | float) and not isinstance(one, bool) for one in values)
        else []
    )


def _in_stage_out(name: str) -> bool:
    place = paths.resolve(name)
    outs = [paths.root() / out for out in STAGE_OUTS]
    return any(place == out or out in place.parents for out in outs)
