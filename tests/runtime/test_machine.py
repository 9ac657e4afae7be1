"""The name of the processor, from what different systems tell."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path

import pytest

from asr.runtime import machine

TOLD = {
    "processor\t: 0\nmodel name\t: Intel(R)  Xeon(R) @ 2.00GHz \n": "Intel(R) Xeon(R) @ 2.00GHz",
    "processor\t: 0\nBogoMIPS\t: 50\n\nModel\t\t: Some Board Rev 1.4\n": "Some Board Rev 1.4",
    "processor\t: 0\nmodel\t\t: 2\nmodel name\t: a\n\nprocessor\t: 1\nmodel name\t: b\n": "a",
    "model name\t: \nBogoMIPS\t: 50\n": "riscv64",
    "": "riscv64",
    None: "riscv64",  # no such file
}


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    machine.processor.cache_clear()
    yield
    machine.processor.cache_clear()


@pytest.mark.parametrize("told", TOLD)
def test_the_processor_is_named(
    told: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cpuinfo"
    if told is not None:
        path.write_text(told, encoding="utf-8")
    monkeypatch.setattr(machine, "CPU_INFO", path)
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert machine.processor() == TOLD[told]


def test_this_one_has_a_name() -> None:
    assert machine.processor()
