"""What this machine can decode on. Costs 0.2 s, and torch only where that is the engine."""

from __future__ import annotations

from asr.engines.engine import BF16, OPENVINO, TORCH
from asr.errors import ParamsError
from asr.runtime import machine


def refuse_absent(engine: str, precision: str) -> None:
    """Refuse an engine or a precision that this machine has not.

    Raises:
        ParamsError: with what to take instead.
    """
    if engine != OPENVINO:
        return
    try:
        from asr.engines.openvino_engine import has_bf16
    except ImportError:
        raise ParamsError(
            "evaluate.engine: there is no OpenVINO for this kind of machine; take torch "
            "(-S evaluate.engine=torch, or --engine torch)"
        ) from None
    if precision == BF16 and not has_bf16():
        raise ParamsError(
            "evaluate.precision: this processor does not compute in bf16; take fp32 "
            "(-S evaluate.precision=fp32, or --precision fp32)"
        )


def device_name(engine: str) -> str:
    """The name of the GPU where torch decodes on one, else of the processor."""
    if engine == TORCH:
        import torch

        if torch.cuda.is_available():
            return torch.cuda.get_device_name()
    return machine.processor()
