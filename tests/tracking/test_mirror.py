"""Another machine goes on from the mirror with the same bits, and no fault of the mirror reaches
training.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from asr.tracking import mirror
from support.children import Nursery
from support.mirror import saved

# A machine dies with its training; the next one begins in an empty folder.
TWO_MACHINES = """
import os, signal, sys, time
from collections import Counter
from pathlib import Path
from harness import training_kills as kills
from stages import train
top = Path(sys.argv[1])
kills.make_data(top)
wanted, _ = kills.trial(kills.new_root(top, "whole"), [], Counter())

def die_once_copied(root):
    step = train.Training.train_step
    def deadly(self, parts):
        step(self, parts)
        if self.state.step == 8:
            while not list((top / "mirror").glob("*/step-00000006.json")):
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
    train.Training.train_step = deadly

os.environ["EARSHOT_MIRROR"] = str(top / "mirror")
first = kills.new_root(top, "first")
assert kills.run(first, die_once_copied, None) == signal.SIGKILL
second, third = kills.new_root(top, "second"), kills.new_root(top, "third")
assert kills.trial(second, [], Counter())[0] == wanted
said = (second / "log").read_text()
assert kills.resumed(second) == 6, said
assert "held the mirror" in said and "lacks" not in said, said
journals = [next(root.glob(".cache/journal/*")).read_bytes() for root in (first, second)]
assert journals[1].startswith(journals[0][: journals[0].index(b'"step": 6')]), journals
copied = sorted(path.name for path in (top / "mirror").glob("*/*.json"))
assert copied in (
    ["step-00000009.json", "step-00000012.json"],
    ["step-00000006.json", "step-00000012.json"],
), copied
del os.environ["EARSHOT_MIRROR"]
assert kills.trial(third, [], Counter())[0] == wanted
assert kills.resumed(third) is None
os.environ["EARSHOT_MIRROR"] = str(top / "params.yaml")
fourth = kills.new_root(top, "fourth")
assert kills.trial(fourth, [], Counter())[0] == wanted
said = [line for line in (fourth / "log").read_text().splitlines() if "warning" in line]
assert len(said) == 2 and "Not a directory" in said[0], said
assert "lacks the checkpoint of step 12 (it has none)" in said[1], said
"""


def test_another_machine_ends_with_the_same_bits_and_no_fault_of_the_mirror_changes_them(
    tmp_path: Path, nursery: Nursery
) -> None:
    """Without a mirror the new machine starts at step 0: the control."""
    done = nursery.run(TWO_MACHINES, str(tmp_path), root=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_one_warning_for_many_failures_and_none_shows_a_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EARSHOT_MIRROR", "nosuch://me:hunter2@host/place?token=hunter2")
    saved(tmp_path / "f", 6, 6)
    follower = mirror.CheckpointMirror(tmp_path / "f", tmp_path / "log")
    follower.finish(60)
    said = capsys.readouterr().out
    assert said.count("warning: mirror: ") == 1
    assert "nosuch://host/place lacks the checkpoint of step 6 (it has none)" in said
    assert "hunter2" not in said


def test_without_an_address_nothing_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EARSHOT_MIRROR", raising=False)
    monkeypatch.setattr(mirror, "CheckpointMirror", None)
    with mirror.mirrored(tmp_path, tmp_path / "log"):
        pass
