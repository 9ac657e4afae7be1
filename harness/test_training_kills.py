"""Trainings killed at every kind of moment end with the bits of one never stopped.

make harness NAME=training-kills COUNT=500      # many more of them
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from support.children import Nursery

# A start that does not see its checkpoints ends with the same bits, and has lost steps; a full disk
# that ends a training with another exit code is no stop like others.
UNSEEN_BY_THE_BITS = """
import sys
from collections import Counter
from pathlib import Path
from harness import training_kills as kills
from stages import train

def forget_checkpoints(root):
    train.Training.resume = lambda self: None

def killed_late(root):
    save = train.Training.save
    def deadly(self):
        save(self)
        if self.state.step == 6:
            kills.kill()
    train.Training.save = deadly

def other_exit():
    raise KeyError("no space left")

top = Path(sys.argv[1])
kills.make_data(top)
tally = kills.Tally(kills.trial(kills.new_root(top, "whole"), [], Counter())[0])
assert tally.harmless()
plan = kills.at_operation(5, kills.disk_full)
tally.try_all(top, [[("killed", killed_late, None), ("disk full", plan, None)]])
assert tally.hit["disk full"] == 1, tally.hit
assert tally.harmless(), tally.hit
tally.try_all(top, [[("killed", killed_late, None), ("forgets", forget_checkpoints, None)]])
assert (tally.lost, tally.wrong) == (6, []), (tally.lost, tally.wrong)
assert not tally.harmless()
tally.lost = 0
tally.try_all(top, [[("disk full", kills.at_operation(5, other_exit), None)]])
assert (tally.lost, tally.wrong) == (0, []), (tally.lost, tally.wrong)
assert not tally.harmless()
"""


def kills(nursery: Nursery, root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: the harness forks, and a process that has run tests has threads."""
    code = "from harness.__main__ import main; main()"
    return nursery.run(code, "training-kills", *arguments, "--seed", "7", root=root)


def test_stops_of_every_kind_change_nothing(nursery: Nursery, tmp_path: Path) -> None:
    done = kills(nursery, tmp_path, "24")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 committed steps lost; 0 trainings ended otherwise" in done.stdout
    for kind in ("kill at an operation", "kill at a moment", "kill in a resume", "disk full"):
        assert kind in done.stdout


def test_the_harness_sees_a_training_that_forgets_its_seed(
    nursery: Nursery, tmp_path: Path
) -> None:
    done = kills(nursery, tmp_path, "2", "--broken")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "0 committed steps lost; " in done.stdout
    assert "0 trainings ended otherwise" not in done.stdout


def test_the_harness_sees_lost_steps_and_a_full_disk_with_another_exit_code(
    nursery: Nursery, tmp_path: Path
) -> None:
    done = nursery.run(UNSEEN_BY_THE_BITS, str(tmp_path), root=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
