"""The state of each training: what is true of it now, and no more than that.

The states come in this order: waiting, preparing, training, checking, evaluating, finished. In
place of `finished` stands another end: stopped, failed, refused or killed; a training that is begun
again starts from `preparing`. Imports neither MLflow nor DVC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

WAITING = "waiting"  # in DVC's queue
PREPARING = "preparing"  # a stage before the training works
TRAINING = "training"
CHECKING = "checking"  # all steps are done; it is validated, checked and written
EVALUATING = "evaluating"
FINISHED = "finished"  # the training and, if one was begun, its test
STOPPED = "stopped"  # by a signal, after a checkpoint
FAILED = "failed"
REFUSED = "refused"  # by a stage, before any training
KILLED = "killed"  # no process of it lives
KINDS = (
    WAITING,
    PREPARING,
    TRAINING,
    CHECKING,
    EVALUATING,
    FINISHED,
    STOPPED,
    FAILED,
    REFUSED,
    KILLED,
)
GOING_ON = (PREPARING, TRAINING, CHECKING, EVALUATING)


@dataclass(frozen=True)
class State:
    """What a training does, or how it ended.

    Attributes:
        kind: one of KINDS.
        step: the last optimizer step that the log tells of; None where there is none.
        steps: how many there shall be; None likewise.
        stage: the stage of DVC that works, failed, refused, was stopped or was killed.
        line: the last line of a failure or refusal, without "error 3:"; else empty.
    """

    kind: str
    step: int | None = None
    steps: int | None = None
    stage: str = ""
    line: str = ""

    @property
    def goes_on(self) -> bool:
        return self.kind in GOING_ON


def of_tracked(status: str, step: int | None, steps: int | None) -> State:
    """The state of a training of which only MLflow's status is known."""
    kinds = {"FINISHED": FINISHED, "RUNNING": TRAINING, "FAILED": FAILED, "SCHEDULED": WAITING}
    kind = kinds.get(status, KILLED)
    return State(kind, step, steps, "train" if kind in (FAILED, KILLED) else "")


def failed_checks(tags: Mapping[str, str]) -> dict[str, str]:
    """The checks that failed, from a run's tags: name, and an empty text."""
    _, colon, names = tags.get("checks", "").partition("failed: ")
    return dict.fromkeys(names.split(", "), "") if colon else {}
