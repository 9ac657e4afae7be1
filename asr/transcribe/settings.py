"""How a model decodes: as it was evaluated, or else as it does best on this machine."""

from __future__ import annotations

import importlib.util
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from asr import paths
from asr.decoding.recognizer import METHODS, ROBUST
from asr.engines.engine import BF16, ENGINES, FP32, OPENVINO, PRECISIONS, TORCH
from asr.errors import UserError
from asr.evaluation.decoded import settings_text
from asr.storage import files
from asr.transcribe import models

UNKNOWN = (OSError, ValueError, KeyError, TypeError, UserError)  # where there are no scores
GPU = Path("/proc/driver/nvidia/version")  # there where a driver is loaded


@dataclass(frozen=True)
class Settings:
    """Engine, precision and decoding, as in params.yaml, `evaluate`."""

    engine: str
    precision: str
    decoding: str

    @property
    def text(self) -> str:
        text = settings_text(asdict(self))
        return text if _has_openvino() else f"{text}; there is no OpenVINO for this machine"


def choose(
    name: str, engine: str | None = None, precision: str | None = None, decoding: str | None = None
) -> Settings:
    """What is asked for; else what the model was evaluated with; else the best there is.

    Where the machine lacks OpenVINO, torch takes its place.

    Args:
        name: of the model, as for `models.resolve`.
    """
    known = evaluated(name)
    if engine is None:
        engine = _present(known.engine) if known else _best_engine()
    if precision is None:
        precision = known.precision if known else _best_precision(engine)
    return Settings(engine, precision, decoding or (known.decoding if known else ROBUST))


def tested_wer(name: str, settings: Settings) -> float | None:
    """The model's test WER, if it was measured with these settings."""
    with suppress(*UNKNOWN):
        scores = _scores(name)
        if _of_scores(scores) == settings:
            return float(scores["wer"])
    return None


def evaluated(name: str) -> Settings | None:
    """The settings that the model's scores were measured with; None where it has none."""
    with suppress(*UNKNOWN):
        return _of_scores(_scores(name))
    return None


def _of_scores(scores: dict[str, Any]) -> Settings:
    settings = Settings(scores["engine"], scores["precision"], scores["decoding"])
    values = zip(
        (settings.engine, settings.precision, settings.decoding),
        (ENGINES, PRECISIONS, METHODS),
        strict=True,
    )
    if not all(value in known for value, known in values):
        raise ValueError(f"settings of another version: {settings}")
    return settings


def _scores(name: str) -> dict[str, Any]:
    """The metrics.json that belongs to a model.

    Raises:
        KeyError, OSError, ValueError, UserError: there is none.
    """
    folder = paths.resolve(name)
    if name == models.WORKSPACE or folder == paths.resolve(paths.MODEL):
        return _scores_of_workspace()
    if folder.parent == paths.resolve(paths.KEPT_MODELS):
        report = paths.resolve(paths.KEPT_REPORTS) / f"{folder.name}.json"
        return dict(files.read_json(report)["metrics"])
    if folder.is_dir() or models.is_hub_id(name):
        raise KeyError(name)
    from asr.runs import revisions, tested

    revision = revisions.find(name)
    if tested.why_untested_at(revision):
        raise KeyError(name)
    return dict(files.read_json(revisions.fetch(revision, paths.METRICS)))


def _scores_of_workspace() -> dict[str, Any]:
    path = paths.resolve(paths.METRICS)
    scores = dict(files.read_json(path))
    from asr.runs import tested  # 0.1 s

    if tested.why_untested(paths.root()):
        raise KeyError("scores of another model")
    return scores


def _has_openvino() -> bool:
    return importlib.util.find_spec(OPENVINO) is not None


def _present(engine: str) -> str:
    return engine if _has_openvino() else TORCH


def _best_engine() -> str:
    return TORCH if _has_gpu() else _present(OPENVINO)


def _has_gpu() -> bool:
    """Whether torch finds a GPU; it is imported only where there is a driver for one."""
    if not GPU.exists():
        return False
    import torch

    return bool(torch.cuda.is_available())


def _best_precision(engine: str) -> str:
    """The fastest that costs no accuracy: half precision where the processor has it."""
    if engine == OPENVINO:
        from asr.engines import openvino_engine

        return BF16 if openvino_engine.has_bf16() else FP32
    return BF16 if _has_gpu() else FP32
