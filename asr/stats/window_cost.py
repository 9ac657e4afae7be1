"""Compute what a window costs, and recommend one: rows kept, padding, compute, bytes.

Works on numbers alone; 1 ms for 500,000 rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from asr.whisper import FRAMES_PER_SECOND, POSITIONS_PER_SECOND

WHISPER_SECONDS = 30
LABEL_TOKENS = 30
BYTES_PER_FRAME = 1.5  # of each mel bin, whose value takes 12 bits
FLOAT32_BYTES = 4
SAVING = 0.1  # share of the compute; a cut that saves less is not recommended


def training_flops(window_seconds: float, sizes: Mapping[str, Any]) -> float:
    """Count the floating-point operations of training on one clip.

    Args:
        sizes: of the model, under the names of `WhisperConfig`.
    Source: the architecture in Radford et al. 2022.
    """
    d = sizes["d_model"]
    positions = window_seconds * POSITIONS_PER_SECOND
    tokens = LABEL_TOKENS

    convolutions = positions * (12 * sizes["num_mel_bins"] * d + 6 * d**2)
    encoder_layer = positions * (8 * d**2 + 4 * d * sizes["encoder_ffn_dim"])
    encoder_layer += 4 * positions**2 * d
    encoder = sizes["encoder_layers"] * encoder_layer

    cross_attention = sizes["decoder_layers"] * 4 * positions * d**2
    decoder_layer = tokens * (12 * d**2 + 4 * d * sizes["decoder_ffn_dim"])
    decoder_layer += 4 * tokens * positions * d
    decoder_layer += 4 * tokens**2 * d
    decoder = sizes["decoder_layers"] * decoder_layer
    vocabulary = 2 * tokens * d * sizes["vocab_size"]

    forward = convolutions + encoder + cross_attention + decoder + vocabulary
    return float(3 * forward)  # the backward pass costs twice the forward pass


def price(window: float, seconds: np.ndarray, sizes: Mapping[str, Any]) -> dict[str, float]:
    """Compute what a window costs on these training recordings.

    Args:
        window: seconds.
        seconds: (N,) durations.
        sizes: of the model, under the names of `WhisperConfig`.
    """
    fit = seconds[seconds <= window]
    fit_seconds = float(fit.sum(dtype=np.float64))
    padding = max(1 - fit_seconds / (window * len(fit)), 0.0) if len(fit) else 0.0
    compute = training_flops(window, sizes) / training_flops(WHISPER_SECONDS, sizes)
    mel_bins = sizes["num_mel_bins"]
    return {
        "window_seconds": window,
        "rows_fit": len(fit),
        "share_fit": len(fit) / max(len(seconds), 1),
        "padding_share": padding,
        "compute_against_30s": compute,
        "feature_bytes": round(fit_seconds * FRAMES_PER_SECOND * BYTES_PER_FRAME * mel_bins),
        "padded_float32_bytes": round(
            len(fit) * window * FRAMES_PER_SECOND * FLOAT32_BYTES * mel_bins
        ),
    }


def recommended(
    seconds: np.ndarray, min_share_kept: float, sizes: Mapping[str, Any], trained: int | None
) -> int:
    """Return the shortest window, in whole seconds, that holds enough recordings; else 30.

    If a cut would save less than SAVING of the compute, it is the start model's own window.

    Args:
        seconds: (N,) durations.
        min_share_kept: least share of the recordings that the window must hold.
        sizes: of the model, under the names of `WhisperConfig`.
        trained: the window in seconds that the start model was trained with; None from scratch.
    """
    fewest = _fewest_seconds(seconds, min_share_kept)
    if not trained or fewest >= trained:
        return fewest
    cut_flops = training_flops(fewest, sizes)
    own_flops = training_flops(trained, sizes)
    return trained if cut_flops > (1 - SAVING) * own_flops else fewest


def _fewest_seconds(seconds: np.ndarray, min_share_kept: float) -> int:
    """The shortest window, in whole seconds, that holds enough recordings; else 30."""
    for length in range(1, WHISPER_SECONDS + 1):
        if int((seconds <= length).sum()) >= min_share_kept * len(seconds):
            return length
    return WHISPER_SECONDS


def reason(
    recommended_price: Mapping[str, float], min_share_kept: float, trained: int | None, rows: int
) -> str:
    """Explain why a window is recommended, with the rule.

    Args:
        recommended_price: the window's costs, as `price` returns them.
        min_share_kept, trained: as in `recommended`.
        rows: number of training recordings.
    """
    window = recommended_price["window_seconds"]
    share = recommended_price["share_fit"]
    lost = rows - recommended_price["rows_fit"]
    rule = (
        f"the fewest whole seconds that hold at least {percent(min_share_kept)} of the training "
        "recordings (stats.min_share_kept)"
    )
    if share < min_share_kept:
        return (
            f"{window:g} s: no window holds more, though it loses {lost:,.0f} recordings "
            f"({percent(1 - share)}); cut them into utterances. Rule: {rule}."
        )
    if trained == window:
        rule += (
            f", or the start model's own {trained} s where a cut would save less than "
            f"{percent(SAVING)} of the compute"
        )
    held = "all training recordings"
    if lost:
        held = f"{percent(share)} of the training recordings, and loses {lost:,.0f}"
    padding = percent(recommended_price["padding_share"], 0)
    return f"{window:g} s: it holds {held}, with {padding} of padding. Rule: {rule}."


def difference(
    recommended_price: Mapping[str, float], present_price: Mapping[str, float], param: str
) -> str:
    """Compare the window of params with the recommended one.

    Args:
        recommended_price, present_price: costs of the recommended window and of that of params.
        param: name of the param that sets the window.
    """
    now = f"{param} is {present_price['window_seconds']:g}"
    if present_price["window_seconds"] == recommended_price["window_seconds"]:
        return f"{now}, as recommended."
    rows = present_price["rows_fit"] - recommended_price["rows_fit"]
    held = "as many"
    if rows:
        held = f"{abs(rows):,.0f} {'more' if rows > 0 else 'fewer'}"
    more = present_price["compute_against_30s"] / recommended_price["compute_against_30s"] - 1
    work = f"{percent(abs(more), 0)} {'more' if more > 0 else 'less'} compute"
    return f"{now}: it holds {held} of the training recordings, and each takes {work}."


def percent(share: float, digits: int = 2) -> str:
    """A share as text in percent, without trailing zeros."""
    text = f"{100 * share:.{digits}f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return f"{text} %"
