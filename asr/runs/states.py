"""The state of each training: what is true of it now, and no more than that.

The states come in this order: waiting, preparing, training, checking, evaluating, finished. In
place of `finished` stands another end: stopped, failed, refused or killed; a training that is begun
again starts from `preparing`. What is on this machine tells first: records of stages and their
locks (`asr.runtime.attempts`), the journal, DVC's queue. MLflow's word counts only for trainings of
other machines. Imports neither MLflow nor DVC.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from asr import paths
from asr.errors import DataError, ModelError, ParamsError
from asr.runs import queue
from asr.runs.queue import Queue, Task
from asr.runtime import attempts
from asr.runtime.attempts import Attempt
from asr.tracking.journal import Course

WAITING = "waiting"  # in DVC's queue
PREPARING = "preparing"  # a stage before the training works
TRAINING = "training"
CHECKING = "checking"  # all steps are done; it is validated, checked and written
EVALUATING = "evaluating"
FINISHED = "finished"  # the training and, if one was begun, its test
STOPPED = "stopped"  # by a signal, after a checkpoint
FAILED = "failed"
REFUSED = "refused"  # by a stage, before any training
KILLED = "killed"  # no process of it lives, and what was to follow does not
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
STAGES = ("download", "stats", "chunk", "featurize", "train", "evaluate")
TRAIN, EVALUATE = STAGES[-2:]
REFUSALS = (ParamsError.exit_code, DataError.exit_code, ModelError.exit_code)
SIGNALLED = 128  # exit codes of commands that a signal ended are above
STOPPED_AT = re.compile(r"stopped at step (\d{1,12}) ")  # as the journal's `state` says it


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


def of_stages(stages: Sequence[Attempt], course: Course | None, dvc_lives: bool) -> State | None:
    """The state that the stages of one `dvc repro` or `dvc exp run` tell of.

    None where they made nothing but data, and DVC ended well, as after `dvc repro stats`.

    Args:
        stages: the oldest first; at least one.
        course: what the journal of the training tells, if there is one.
        dvc_lives: whether another stage may follow.
    """
    stage = _decisive(stages)
    steps = _steps(course if stage.stage == TRAIN else None)
    if stage.lives:
        return _of_living(stage, course)
    if stage.code is None:
        return State(KILLED, *steps, stage.stage)
    if stage.code > SIGNALLED:
        return State(STOPPED, *steps, stage.stage)
    if stage.code:
        began = any(one.fingerprint for one in stages) or stage.stage == EVALUATE
        refused = not began and stage.code in REFUSALS
        return State(REFUSED if refused else FAILED, *steps, stage.stage, stage.line)
    if stage.stage == EVALUATE:
        return State(FINISHED, *_steps(course))
    if stage.stage == TRAIN:
        return State(CHECKING if dvc_lives else FINISHED, *steps)
    if dvc_lives:
        return State(PREPARING, stage=stage.stage)
    return State(KILLED, stage=stage.stage) if stage.orphaned else None


def _decisive(stages: Sequence[Attempt]) -> Attempt:
    """The stage that tells the state: the last, but statistics made later say nothing new."""
    last = stages[-1]
    models = [one for one in stages if one.stage in (TRAIN, EVALUATE)]
    went_well = last.lives or last.code == 0
    return models[-1] if models and went_well else last


def _of_living(stage: Attempt, course: Course | None) -> State:
    if stage.stage == EVALUATE:
        return State(EVALUATING, *_steps(course))
    if stage.stage == TRAIN and stage.fingerprint:
        # Until its beginning was read, the journal tells of the time before.
        is_read = course is not None and course.begun >= stage.begin
        return of_living_training(course if is_read else None)
    return State(PREPARING, stage=stage.stage)


def of_living_training(course: Course | None) -> State:
    """The state of a training whose process lives."""
    is_done = course is not None and (course.end is not None or course.steps_done)
    return State(CHECKING if is_done else TRAINING, *_steps(course))


def _steps(course: Course | None) -> tuple[int | None, int | None]:
    return (course.step, course.steps) if course else (None, None)


def of_journal(course: Course) -> State:
    """The state of a training that no process trains or tests, from its journal alone."""
    steps = _steps(course)
    if course.end is None:
        return State(KILLED, *steps, TRAIN)
    if course.status == "FAILED":
        return State(FAILED, *steps, TRAIN, course.line)
    if course.status != "FINISHED":
        return State(STOPPED, *steps, TRAIN)
    if course.test == "begun":
        return State(KILLED, stage=EVALUATE)
    if course.test == "failed":
        return State(FAILED, stage=EVALUATE, line=course.line)
    return State(FINISHED, *steps)


def of_tracked(status: str, tags: Mapping[str, str], steps: Any) -> State:
    """The state of a training of another machine, of which only MLflow knows."""
    kinds = {"FINISHED": FINISHED, "RUNNING": TRAINING, "FAILED": FAILED, "SCHEDULED": WAITING}
    kind = kinds.get(status, KILLED)
    steps = steps if isinstance(steps, int) else None
    told, _, line = tags.get("state", "").partition(": ")
    if kind == KILLED and told.startswith("stopped"):
        step = STOPPED_AT.match(told)
        return State(STOPPED, int(step[1]) if step else None, steps, TRAIN)
    if kind == FINISHED and told.startswith("evaluation "):
        return State(FAILED if told.endswith("failed") else KILLED, stage=EVALUATE, line=line)
    if kind == FINISHED and told == "evaluating":
        return State(EVALUATING, None, steps)
    return State(kind, None, steps, TRAIN if kind in (FAILED, KILLED) else "", line)


def failed_checks(
    tags: Mapping[str, str], scores: Mapping[str, Any], reported: Mapping[str, str]
) -> dict[str, str]:
    """Name and text of each check that failed, of the training and of its test.

    Args:
        tags: of the training, in journal and MLflow.
        reported: what a revision's checks.json says, for a training without such tags.
    """
    _, colon, names = tags.get("checks", "").partition("failed: ")
    failed = {name: tags.get(f"check.{name}", "") for name in (names.split(", ") if colon else [])}
    if "checks" not in tags:
        failed = dict(reported)
    seen, rows = scores.get("rows_taught"), scores.get("rows")
    if isinstance(seen, int | float) and seen > 0:
        of = f" of {rows:,.0f}" if isinstance(rows, int | float) else ""
        failed["test_rows_unseen"] = (
            f"{seen:,.0f}{of} test rows are in training or validation; their WER is memory"
        )
    return failed


@dataclass(frozen=True)
class Present:
    """What goes on on this machine, and what was tried lately.

    Attributes:
        invocations: stages that one process of DVC executed, the oldest first.
        living: those of them whose process of DVC lives.
    """

    invocations: dict[tuple[Any, ...], list[Attempt]] = field(default_factory=dict)
    living: frozenset[tuple[Any, ...]] = frozenset()
    queue: Queue = field(default_factory=Queue)

    def by_fingerprint(self) -> dict[str, list[Attempt]]:
        """For each training the stages of the latest invocation that trained or tested it."""
        return {
            stage.fingerprint: stages
            for stages in self.invocations.values()
            for stage in stages
            if stage.fingerprint
        }

    def state(self, stages: Sequence[Attempt], course: Course | None) -> State | None:
        return of_stages(stages, course, stages[0].invocation in self.living)

    def unnamed(self) -> list[tuple[list[Attempt], State]]:
        """Invocations of no known training that go on, or ended badly and were not begun again."""
        found = []
        latest = {_place(stages[0]): key for key, stages in self.invocations.items()}
        for key, stages in self.invocations.items():
            state = self.state(stages, None)
            known = any(stage.fingerprint for stage in stages)
            replaced = latest[_place(stages[0])] != key
            if state and not known and (state.goes_on or not replaced):
                found.append((stages, state))
        return found

    def queued(self) -> list[tuple[Task, State]]:
        """Experiments of the queue of which no stage tells.

        Of one that failed after its stages had ended well, the queue alone does.
        """
        recorded = {
            stages[-1].dvc[0]
            for stages in self.invocations.values()
            if self.state(stages, None) is not None
        }
        states = [
            *((task, State(WAITING)) for task in self.queue.waiting),
            *((task, State(PREPARING)) for task in self.queue.started),
            *((task, State(FAILED, line=task.line)) for task in self.queue.failed),
        ]
        return [(task, state) for task, state in states if task.pid not in recorded]

    def mark(self) -> str:
        """A text that changes with each state that follows from this."""
        stages = [
            (stage.id, stage.fingerprint, stage.code, stage.lives, stage.orphaned)
            for stages in self.invocations.values()
            for stage in stages
        ]
        return repr((stages, sorted(map(repr, self.living)), self.queue))


def _place(stage: Attempt) -> tuple[str, str]:
    """What a later invocation takes the place of: the experiment, or the workspace's last run."""
    return (stage.experiment, "") if stage.experiment else ("", stage.folder)


def invocations(stages: Iterable[Attempt]) -> dict[tuple[Any, ...], list[Attempt]]:
    """Stages by the process of DVC that executed them, in the order of their last stages."""
    grouped: dict[tuple[Any, ...], list[Attempt]] = {}
    for stage in stages:
        grouped[stage.invocation] = [*grouped.pop(stage.invocation, []), stage]
    return grouped


_reader = attempts.Reader()
_dead: set[tuple[int, float]] = set()  # processes of DVC that were seen dead


def present() -> Present:
    """What goes on now; 2 ms."""
    grouped = invocations(_reader.attempts())
    living = frozenset(key for key, stages in grouped.items() if _dvc_lives(stages[-1]))
    _note_orphans(grouped, living)
    return Present(grouped, living, queue.read(paths.root()))


def _note_orphans(
    grouped: dict[tuple[Any, ...], list[Attempt]], living: Iterable[tuple[Any, ...]]
) -> None:
    """Mark stages of data whose DVC was killed while it took in what they had made.

    Then its locks are left. For other stages it makes no difference.
    """
    ended = {key: stages[-1] for key, stages in grouped.items() if key not in living}
    data = {
        key: last
        for key, last in ended.items()
        if last.code == 0 and last.stage not in (TRAIN, EVALUATE)
    }
    left = {
        folder: {pid for pid, _ in queue.holders(Path(folder) / queue.LOCK)}
        for folder in {last.folder for last in data.values()}
    }
    for key, last in data.items():
        if last.dvc[0] in left[last.folder]:
            grouped[key] = [*grouped[key][:-1], replace(last, orphaned=True)]


def _dvc_lives(stage: Attempt) -> bool:
    """Whether a stage lives, or the process of DVC that started it."""
    if stage.lives:
        return True
    if stage.dvc not in _dead and not stage.dvc_lives():
        _dead.add(stage.dvc)
    return stage.dvc not in _dead


def is_dvc_working(now: Present) -> bool:
    """Whether DVC works in this repository, in its temporary folders, or in the queue."""
    return bool(now.living) or queue.is_working(paths.root())


def is_workspace_at_work(now: Present) -> bool:
    """Whether DVC works in the workspace itself."""
    root = paths.root()
    folders = (now.invocations[key][-1].folder for key in now.living)
    return str(root) in folders or queue.is_locked(root / queue.LOCK)
