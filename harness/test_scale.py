"""The data stages' memory, CPU and disk per row do not grow with the corpus.

make harness NAME=scale COUNT=500000    # many more rows
"""

from __future__ import annotations

from support.children import run_harness


def test_ten_times_the_rows_take_no_more_memory() -> None:
    done = run_harness("scale", "10000")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "memory, CPU and disk are within their limits" in done.stdout


def test_a_writer_that_keeps_its_rows_is_noticed() -> None:
    done = run_harness("scale", "10000", "--broken")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "download: memory" in done.stdout
