"""The window that a model is trained with. Costs nothing to import."""

from __future__ import annotations

from asr.params import schema


def window_seconds(model: schema.Model, own: int | None) -> int:
    """Length in seconds of the audio that the model takes at once.

    Args:
        own: the window of the start model; None if it is built from scratch.
    """
    if model.window_seconds is not None:
        return model.window_seconds
    return model.scratch.window_seconds if own is None else own
