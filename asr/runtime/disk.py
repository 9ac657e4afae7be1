"""Room on the disk, asked for before work begins."""

from __future__ import annotations

import shutil
from pathlib import Path

from asr.errors import DiskError
from asr.runtime.formatting import bytes_text

RESERVE = 1.05  # of a forecast, so that the disk is not full to the last byte


def check_free_space(folder: Path, num_bytes: float, what: str) -> None:
    """Refuse work whose result the disk cannot hold, before it starts.

    Args:
        folder: on the disk in question; its parents may be all that is there yet.
        what: will be written, in words.
    Raises:
        DiskFault: fewer bytes are free than that, and a twentieth more.
    """
    there = next(
        place for place in (folder.absolute(), *folder.absolute().parents) if place.is_dir()
    )
    free = shutil.disk_usage(there).free
    if free < RESERVE * num_bytes:
        raise DiskError(
            f"{what} will take {bytes_text(num_bytes)}, and {bytes_text(free)} are free; make room, then run again"
        )
