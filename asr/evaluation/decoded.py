"""How a test was decoded, in words. Imports nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SETTINGS = ("decoding", "engine", "precision")
COUNTS = ("fell_back", "silent", "looped", "capped")
ENGINES = {"openvino": "OpenVINO", "torch": "torch"}


def settings_text(scores: Mapping[str, Any]) -> str:
    """Decoding, engine, precision and processor of a model's scores; empty where not known.

    Results from before these could be chosen do not name them: greedy, torch, fp32.
    """
    if any(key not in scores for key in SETTINGS):
        return ""
    decoding, engine, precision = (str(scores[key]) for key in SETTINGS)
    text = f"{decoding}, {ENGINES.get(engine, engine)} in {precision}"
    return f"{text} on {scores['processor']}" if scores.get("processor") else text


def counts_text(scores: Mapping[str, Any]) -> str:
    """How many utterances did not come out at the first try, gave nothing, looped or were cut."""
    fell_back, silent, looped, capped = (scores[key] for key in COUNTS)
    return (
        f"{fell_back:,} drawn at a higher temperature, {silent:,} without a word, "
        f"{looped:,} in circles, {capped:,} cut off at the most tokens"
    )
