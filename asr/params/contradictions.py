"""Find values of params.yaml that are valid by themselves but contradict each other.

The checks yield (dotted key, message) pairs. The file may be wrong in other ways too, so values may
be of any type; values that cannot be compared are skipped here and reported by the schema. Costs
microseconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from asr import paths
from asr.whisper import WHISPER_LANGUAGES

STAGE_OUTS = (paths.RAW, paths.CHUNKS, paths.FEATURES, paths.MODEL, paths.REPORTS)

# Kinds of augmentation, and the name of each one's range: min_snr_db and max_snr_db.
AUGMENTATION_RANGES = {
    "speed": "{}",
    "reverberation": "{}_rt60_seconds",
    "noise": "{}_snr_db",
    "gain": "{}_db",
}


def contradictions(values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (dotted key, message) for all contradictions between values.

    Args:
        values: the values of params.yaml by dotted key.
    """
    yield from _ordered(values, "chunk", "min_seconds", "max_seconds")
    yield from _ordered(values, "download.digits", "min_digits", "max_digits")
    for what in ("numbers", "words_per_minute", "pitch"):
        yield from _ordered(values, "download.synthetic", f"min_{what}", f"max_{what}")
    yield from _augmentation(values)
    yield from _train(values)
    yield from _scratch(values)
    yield from _download(values)
    yield from _start_model(values)
    yield from _language(values)
    yield from _evaluate(values)


def _augmentation(values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    section = "featurize.augment"
    for kind, name in AUGMENTATION_RANGES.items():
        yield from _ordered(values, f"{section}.{kind}", name.format("min"), name.format("max"))
    probabilities = [f"{section}.{kind}.probability" for kind in AUGMENTATION_RANGES]
    for copies, *shares in _numbers(values, f"{section}.copies", *probabilities):
        if copies > 0 and not any(shares):
            yield (
                f"{section}.copies",
                f"got {copies}, want a kind of change with a probability above 0: "
                "these copies are the row itself",
            )


def _train(values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for warmup, steps in _numbers(values, "train.warmup_steps", "train.max_steps"):
        if 1 <= steps <= warmup:
            yield "train.warmup_steps", f"got {warmup}, want fewer than max_steps ({steps})"
    if values.get("train.pack_to_window") is True and values.get("train.timestamp_share") == 0:
        yield (
            "train.pack_to_window",
            "got true, want train.timestamp_share above 0: "
            "rows are packed with their times, or not at all",
        )


def _scratch(values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    # A dict, so that the same fault of encoder and decoder is named once, in a fixed order.
    pairs: dict[tuple[Any, ...], None] = {}
    for side in ("encoder", "decoder"):
        heads_key = f"model.scratch.{side}_attention_heads"
        pairs.update(dict.fromkeys(_numbers(values, "model.scratch.d_model", heads_key)))
    for width, heads in pairs:
        if heads > 0 and (width % heads or width % 2):
            yield (
                "model.scratch.d_model",
                f"got {width}, want an even multiple of the attention heads ({heads})",
            )


def _download(values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    source = values.get("download.source")
    if source != "synthetic" and "download.path" in values and not values["download.path"]:
        yield "download.path", f"got nothing, want where the {source} corpus lies"
    for number, rule in enumerate(_items(values, "download.where")):
        yield from _rule(f"download.where.{number}", rule)
    for number, entry in enumerate(_items(values, "download.mix")):
        yield from _mixed_source(f"download.mix.{number}", entry, values)


def _rule(key: str, rule: Any) -> Iterator[tuple[str, str]]:
    """Check that a rule has either values or limits, not both."""
    if not isinstance(rule, dict):
        return
    limits = [name for name in ("min", "max") if rule.get(name) is not None]
    if bool(rule.get("any_of")) == bool(limits):
        any_of = "any_of and " if rule.get("any_of") else "neither any_of nor "
        yield (
            key,
            f"got {any_of}{' and '.join(limits) or 'limits'}, "
            "want values in any_of, or else min, max or both",
        )
    yield from _ordered({f"{key}.{name}": rule[name] for name in limits}, key, "min", "max")


def _mixed_source(key: str, entry: Any, values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if not isinstance(entry, dict):
        return
    if entry.get("source") != "synthetic" and not entry.get("path"):
        yield f"{key}.path", "got nothing, want where this corpus lies"
    main_language = values.get("download.language")
    language = entry.get("language")
    if entry.get("role") == "train" and language not in (None, main_language):
        yield (
            f"{key}.language",
            f"got {language}, want download.language ({main_language}): "
            "all that is trained on has one prompt",
        )
    elif isinstance(language, str) and language not in (main_language, *WHISPER_LANGUAGES):
        yield (
            f"{key}.language",
            f"got {language}, which Whisper has no token for; "
            "want one of its languages (asr/whisper.py)",
        )


def _start_model(values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    name = values.get("model.name")
    if isinstance(name, str) and name and _in_stage_out(name):
        yield (
            "model.name",
            f"got {name}, which DVC deletes before training; "
            "want a copy: make keep NAME=mine, then models/kept/mine",
        )
    rank = values.get("model.lora.rank")
    if name == "scratch" and rank:
        yield (
            "model.lora.rank",
            f"got {rank}, want null where all weights are still to be learnt (model.name: scratch)",
        )


def _in_stage_out(name: str) -> bool:
    path = paths.resolve(name)
    outs = [paths.root() / out for out in STAGE_OUTS]
    return any(path == out or out in path.parents for out in outs)


def _language(values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    key = "model.language" if values.get("model.language") else "download.language"
    language = values.get(key)
    if isinstance(language, str) and language not in WHISPER_LANGUAGES:
        yield (
            key,
            f"got {language}, which Whisper has no token for; "
            "want model.language set to the nearest of its languages (asr/whisper.py); "
            "earshot prompt-language then measures some",
        )


def _evaluate(values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if values.get("evaluate.engine") == "openvino" and values.get("evaluate.precision") == "fp16":
        yield (
            "evaluate.precision",
            "got fp16, want fp32 or bf16 with OpenVINO, or evaluate.engine: torch",
        )


def _ordered(
    values: dict[str, Any], section: str, low: str, high: str
) -> Iterator[tuple[str, str]]:
    """Check that the lower end of a range is at most its upper end."""
    for least, most in _numbers(values, f"{section}.{low}", f"{section}.{high}"):
        if least > most:
            yield f"{section}.{low}", f"got {least}, want at most {high} ({most})"


def _numbers(values: dict[str, Any], *keys: str) -> list[tuple[Any, ...]]:
    """The values of these keys as a list of one tuple; an empty list unless all are numbers."""
    numbers = tuple(values.get(key) for key in keys)
    return [numbers] if all(map(_is_number, numbers)) else []


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _items(values: dict[str, Any], key: str) -> list[Any]:
    items = values.get(key)
    return items if isinstance(items, list) else []
