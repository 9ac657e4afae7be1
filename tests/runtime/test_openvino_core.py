"""A process that decodes on OpenVINO hears signals as any other does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.repository import PYTHONPATH

PLACES = {**os.environ, "PYTHONPATH": PYTHONPATH}
LISTENS = """
import faulthandler, os, signal
import numpy as np
faulthandler.enable()  # which has a stack for signal handlers of its own
heard = []
signal.signal(signal.SIGTERM, lambda signum, frame: heard.append(signum))
{work}
os.kill(os.getpid(), signal.SIGTERM)
assert heard == [signal.SIGTERM]
"""
DECODES = """
from asr.engines.openvino_engine import has_bf16
from asr.runtime.openvino_core import core
from asr.speech import silero
has_bf16()
list(silero.probabilities([np.zeros(512, np.float32)]))
silero._network.cache_clear()
"""
TWO_CORES = """
import openvino
first, second = openvino.Core(), openvino.Core()
first.available_devices, [core.get_property("CPU", "FULL_DEVICE_NAME") for core in (first, second)]
del first, second
"""


def exit_code(work: str, folder: Path) -> int:
    return subprocess.run(
        [sys.executable, "-c", LISTENS.format(work=work)],
        cwd=folder,
        env=PLACES,
        check=False,
    ).returncode


def test_a_signal_is_heard_after_networks_have_come_and_gone(tmp_path: Path) -> None:
    assert exit_code(DECODES, tmp_path) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="a stack for handlers is made on Linux alone")
def test_a_second_core_ends_the_process(tmp_path: Path) -> None:
    """The control. If it fails, OpenVINO is mended, and each module may have its own core."""
    assert exit_code(TWO_CORES, tmp_path) == -signal.SIGSEGV


def test_threads_that_ask_at_once_get_the_same() -> None:
    code = """
from concurrent.futures import ThreadPoolExecutor
from asr.runtime.openvino_core import core
with ThreadPoolExecutor(8) as threads:
    asked = [threads.submit(core) for _ in range(8)]
assert len({id(one.result()) for one in asked}) == 1
"""
    subprocess.run([sys.executable, "-c", code], env=PLACES, check=True)


def test_nothing_else_makes_a_core() -> None:
    places = [
        path.name
        for room in ("asr", "stages", "dashboard")
        for path in Path(PYTHONPATH.split(os.pathsep)[0], room).rglob("*.py")
        if "Core(" in path.read_text(encoding="utf-8")
    ]
    assert places == ["openvino_core.py"]
