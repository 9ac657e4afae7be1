"""What a window would cost, and which one to take: rows kept, padding, compute, bytes. Numbers
alone; 1 ms for 500,000 rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from asr.whisper import FRAMES_PER_SECOND, POSITIONS_PER_SECOND

WHISPER_SECONDS = 30
LABEL_TOKENS = 30
BYTES_PER_FRAME = 1.5  # a mel bin's value takes 12 bits
SAVING = 0.1  # of the compute; for less, the window that a checkpoint was trained with is not cut


def training_flops(window_seconds: float, sizes: Mapping[str, Any]) -> float:
    """Operations of one training clip, by the count in Radford's architecture: encoder, cross
    attention, decoder.

    Args:
        sizes: of the model, under the names of `WhisperConfig`.
    """
    d, positions, tokens = sizes["d_model"], window_seconds * POSITIONS_PER_SECOND, LABEL_TOKENS
    convolutions = positions * (12 * sizes["num_mel_bins"] * d + 6 * d**2)
    encoder = sizes["encoder_layers"] * (
        positions * (8 * d**2 + 4 * d * sizes["encoder_ffn_dim"]) + 4 * positions**2 * d
    )
    cross = sizes["decoder_layers"] * 4 * positions * d**2
    own = (
        tokens * (12 * d**2 + 4 * d * sizes["decoder_ffn_dim"])
        + 4 * tokens * positions * d
        + 4 * tokens**2 * d
    )
    forward = (
        convolutions
        + encoder
        + cross
        + sizes["decoder_layers"] * own
        + 2 * tokens * d * sizes["vocab_size"]
    )
    return float(3 * forward)


def price(window: float, seconds: np.ndarray, sizes: Mapping[str, Any]) -> dict[str, float]:
    """What a window would cost on these training recordings.

    Args:
        seconds: (N,) how long they are.
    """
    fit = seconds[seconds <= window]
    held = float(fit.sum(dtype=np.float64))
    return {
        "window_seconds": window,
        "rows_fit": len(fit),
        "share_fit": len(fit) / max(len(seconds), 1),
        "padding_share": max(1 - held / (window * len(fit)), 0.0) if len(fit) else 0.0,
        "compute_against_30s": training_flops(window, sizes)
        / training_flops(WHISPER_SECONDS, sizes),
        "feature_bytes": round(held * FRAMES_PER_SECOND * BYTES_PER_FRAME * sizes["num_mel_bins"]),
        "padded_float32_bytes": round(
            len(fit) * window * FRAMES_PER_SECOND * 4 * sizes["num_mel_bins"]
        ),
    }


def recommended(
    seconds: np.ndarray, min_share_kept: float, sizes: Mapping[str, Any], trained: int | None
) -> int:
    """The fewest whole seconds that hold that share of the recordings; 30 where no window does.

    The start model's own window stays where a cut to that would save less than SAVING of the
    compute.
    """
    lengths = np.arange(1, WHISPER_SECONDS + 1)
    held = [int((seconds <= length).sum()) >= min_share_kept * len(seconds) for length in lengths]
    fewest = int(lengths[held.index(True)]) if True in held else WHISPER_SECONDS
    if (
        trained
        and fewest < trained
        and training_flops(fewest, sizes) > (1 - SAVING) * training_flops(trained, sizes)
    ):
        return trained
    return fewest


def reason(
    chosen: Mapping[str, float], min_share_kept: float, trained: int | None, rows: int
) -> str:
    """Why a window is recommended, with the rule.

    Args:
        chosen: the window's price.
        rows: training recordings.
    """
    window, share, lost = chosen["window_seconds"], chosen["share_fit"], rows - chosen["rows_fit"]
    rule = f"the fewest whole seconds that hold at least {percent(min_share_kept)} of the training recordings (stats.min_share_kept)"
    if share < min_share_kept:
        why = f"no window holds more, though it loses {lost:,.0f} recordings ({percent(1 - share)}); cut them into utterances"
        return f"{window:g} s: {why}. Rule: {rule}."
    kept = (
        "all training recordings"
        if not lost
        else f"{percent(share)} of the training recordings, and loses {lost:,.0f}"
    )
    if trained == window:
        rule += f", or the start model's own {trained} s where a cut would save less than {percent(SAVING)} of the compute"
    return f"{window:g} s: it holds {kept}, with {percent(chosen['padding_share'], 0)} of padding. Rule: {rule}."


def difference(chosen: Mapping[str, float], present: Mapping[str, float], param: str) -> str:
    """What it costs that params have another window than the recommended; says so, too, where they
    have it.
    """
    now = f"{param} is {present['window_seconds']:g}"
    if present["window_seconds"] == chosen["window_seconds"]:
        return f"{now}, as recommended."
    rows, more = (
        present["rows_fit"] - chosen["rows_fit"],
        present["compute_against_30s"] / chosen["compute_against_30s"] - 1,
    )
    work = f"{percent(abs(more), 0)} {'more' if more > 0 else 'less'} compute"
    kept = f"{abs(rows):,.0f} {'more' if rows > 0 else 'fewer'}" if rows else "as many"
    return f"{now}: it holds {kept} of the training recordings, and each takes {work}."


def percent(share: float, digits: int = 2) -> str:
    """A share in words, without zeros that tell nothing."""
    text = f"{100 * share:.{digits}f}"
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text} %"
