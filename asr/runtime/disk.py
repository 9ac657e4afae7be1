"""Check for room on the disk before work begins."""

from __future__ import annotations

import shutil
from pathlib import Path

from asr.errors import DiskError
from asr.runtime.formatting import bytes_text

RESERVE = 1.05  # of a forecast, so that the disk is not full to the last byte


def check_free_space(folder: Path, num_bytes: float, what: str) -> None:
    """Refuse work whose result the disk cannot hold, before it starts.

    Args:
        folder: where the result will lie; it need not exist yet.
        num_bytes: forecast of its size.
        what: what will be written, in words.
    Raises:
        DiskError: less is free than the forecast and 5 % more.
    """
    folder = folder.absolute()
    existing = next(path for path in (folder, *folder.parents) if path.is_dir())
    free = shutil.disk_usage(existing).free
    if free < RESERVE * num_bytes:
        raise DiskError(
            f"{what} will take {bytes_text(num_bytes)}, and {bytes_text(free)} are free; "
            "make room, then run again"
        )
