"""The desk: first come, first served, over a real decoding process that may die; visitors do not
see each other's files.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from asr.audio.sample_file import Cancelled, SampleFile
from asr.errors import DataError, UserError
from asr.model import loader
from asr.model.loader import Start
from asr.transcribe import job_queue, worker
from asr.transcribe.job_queue import (
    CANCELLED,
    DIED,
    DONE,
    FAILED,
    RUNNING,
    WAITING,
    Job,
    Options,
    TranscriptionQueue,
)
from asr.whisper import SAMPLE_RATE
from support.data import encoded
from support.imports import imported
from support.model import hub_folder, hush_timestamps, scratch
from support.repository import REPOSITORY
from support.samples import say_evaluated, speech, stored, transcript
from support.waiting import wait_for

SHORT = speech(1.5)
LONG_SECONDS = 900.0


def babbling(seed: int = 1) -> Start:
    return hush_timestamps(scratch(seed, init_std=0.5))


def save(start: Start, folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    loader.save(start.model, start.tokenizer, folder)
    return folder


def done(*given: Job) -> list[str]:
    wait_for(lambda: all(job.ended for job in given))
    return [job.state for job in given]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A repository with a tiny model, and one desk over it for the whole file."""
    root = tmp_path_factory.mktemp("desk")
    save(babbling(), root / "models/finetuned")
    save(babbling(2), root / "models/kept/other")
    say_evaluated(root)
    for name in ("other", "changing", "hub"):
        say_evaluated(root, name)
    np.tile(speech(60.0), round(LONG_SECONDS / 60)).tofile(root / "long.f32")
    gone: set[str] = set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", str(root))
        patch.setenv("PYTHONPATH", str(REPOSITORY))
        patch.setattr(job_queue, "TIDY_SECONDS", 0.1)
        desk = TranscriptionQueue(root / "sessions", lambda owner: owner not in gone)
        yield SimpleNamespace(root=root, desk=desk, long=SampleFile(root / "long.f32"), gone=gone)
        desk.worker.stop()


@pytest.fixture(autouse=True)
def its_root(place: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, own_root: None) -> None:  # noqa: ARG001
    monkeypatch.setenv("DVC_ROOT", str(place.root))


def text_of(place: SimpleNamespace, samples: np.ndarray, folder: Path) -> str:
    return " ".join(transcript(place.root / "models/finetuned", stored(folder, samples)))


def as_wav(samples: np.ndarray) -> bytes:
    return encoded(samples, subtype="FLOAT")


def test_a_visitor_gets_the_text_that_the_same_functions_give_here(
    place: SimpleNamespace, tmp_path: Path
) -> None:
    left = subprocess.Popen(
        [sys.executable, "-c", ""], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    left.wait()
    place.desk.worker.process, place.desk.worker.orders = (
        left,
        left.stdin,
    )  # one that has left for want of work
    brought = place.desk.bring("ann", as_wav(SHORT))
    job = place.desk.submit("ann", brought, Options())
    assert done(job) == [DONE]
    assert job.text == text_of(place, SHORT, tmp_path)
    assert (job.language, job.progress, job.fault) == ("sv", 1.0, None)
    assert job.language_source == "own"
    assert str(job.weights).startswith("weights ")
    assert job.seconds > 0
    assert job.settings == "greedy, OpenVINO in fp32"
    assert (job.segments[0].start, job.segments[-1].end) == pytest.approx((0.0, 1.5), abs=0.3)


def test_what_is_no_sound_is_refused_and_leaves_nothing(place: SimpleNamespace) -> None:
    before = files_below(place.desk.folder)
    with pytest.raises(DataError):
        place.desk.bring("bad", b"no sound")
    with pytest.raises(Cancelled):
        place.desk.bring("bad", as_wav(SHORT), lambda: True)
    assert files_below(place.desk.folder) == before


def files_below(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def test_what_a_visitor_brought_is_for_nobody_else_to_read(place: SimpleNamespace) -> None:
    owners = ["../../etc", "/tmp/x", "a\0b\n", "ann", "bob"]
    made = [place.desk.bring(owner, as_wav(SHORT)) for owner in owners]
    assert len({one.path.parent for one in made}) == len(owners)
    assert all(one.path.parent.parent == place.desk.folder for one in made)
    assert stat.S_IMODE(place.desk.folder.stat().st_mode) == 0o700
    for owner in owners:
        place.desk.forget(owner)
    assert not any(one.path.exists() for one in made)


def test_only_the_sounds_that_a_visitor_used_last_are_kept_and_those_that_wait(
    place: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = place.desk.bring("cy", as_wav(speech(0.2)))
    waiting = Job("cy", first, Options(), 0.0, 0.2)
    with place.desk.changed:
        monkeypatch.setattr(place.desk, "queue", [waiting])
        sounds = [as_wav(speech(0.2, seed)) for seed in range(6)]
        made = [place.desk.bring("cy", sound, name=str(n)) for n, sound in enumerate(sounds[:4])]
        place.desk.bring("cy", b"", name="0")  # used, not decoded: it is there
        made += [place.desk.bring("cy", sounds[n], name=str(n)) for n in (4, 5)]
        assert [one.path.exists() for one in (first, *made)] == [
            True,
            True,
            False,
            False,
            True,
            True,
            True,
        ]
        monkeypatch.undo()
    place.desk.forget("cy")


def test_first_come_first_served_and_all_are_told_how_many_come_first(
    place: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, served, run = place.desk, list[Job](), place.desk.worker.run
    monkeypatch.setattr(desk.worker, "run", lambda job: served.append(job) or run(job))
    long = desk.submit("first", place.long, Options())
    others = [desk.submit(f"owner {n}", place.long, Options(), 0.0, 2.0) for n in range(4)]
    wait_for(lambda: long.state == RUNNING)
    assert [desk.position(job) for job in (long, *others)] == [0, 1, 2, 3, 4]
    assert {job.state for job in others} == {WAITING}
    others[1].cancel()
    assert others[1].state == CANCELLED  # at once, not when its turn comes
    assert [desk.position(job) for job in others] == [1, 2, 2, 3]
    wait_for(lambda: long.segments)
    assert 0 < long.progress < 1
    long.cancel()
    assert done(long, *others) == [CANCELLED, DONE, CANCELLED, DONE, DONE]
    assert served == [long, *others]
    assert 0 < len(long.segments) < LONG_SECONDS / 2
    assert desk.position(long) == 0


def test_a_process_killed_in_the_middle_fails_one_job_and_the_next_one_works(
    place: SimpleNamespace,
) -> None:
    job, then = (
        place.desk.submit("ann", place.long, Options()),
        place.desk.submit("bob", place.long, Options(), 0.0, 2.0),
    )
    wait_for(lambda: job.segments)
    os.kill(place.desk.worker.process.pid, signal.SIGKILL)
    assert done(job, then) == [FAILED, DONE]
    assert job.fault == DIED
    assert "\n" not in DIED


def test_half_a_line_is_the_end_of_a_process() -> None:
    reader, writer = os.pipe()
    os.write(writer, b'{"job": 1}\n{"job": 1, "seg')
    os.close(writer)
    events: Any = job_queue.queue.Queue()
    job_queue.read_events(os.fdopen(reader), events)
    assert [events.get(timeout=1), events.get(timeout=1)] == [{"job": 1}, None]


def test_a_desk_that_cannot_start_a_process_says_so_and_goes_on(
    place: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: Any) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(place.desk.worker, "run", refused)
    job = place.desk.submit("ann", place.long, Options(), 0.0, 2.0)
    assert done(job) == [FAILED]
    assert "Cannot allocate memory" in str(job.fault)
    monkeypatch.undo()
    assert done(place.desk.submit("ann", place.long, Options(), 0.0, 2.0)) == [DONE]


def test_twenty_visitors_at_once_all_get_their_own_text(
    place: SimpleNamespace, tmp_path: Path
) -> None:
    texts = {}

    def visit(number: int) -> None:
        made = place.desk.bring(f"owner {number}", as_wav(speech(1.2, number)))
        job = place.desk.submit(f"owner {number}", made, Options())
        assert done(job) == [DONE]
        texts[number] = job.text

    visitors = [threading.Thread(target=visit, args=(number,)) for number in range(20)]
    for one in visitors:
        one.start()
    for one in visitors:
        one.join()
    assert texts == {number: text_of(place, speech(1.2, number), tmp_path) for number in range(20)}
    assert len(set(texts.values())) > 10
    assert place.desk.queue == []


def test_the_job_of_a_visitor_who_has_gone_goes_on_and_its_result_is_kept(
    place: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_queue, "LOST_SECONDS", 0.2)
    monkeypatch.setattr(job_queue, "KEEP_SECONDS", 0.0)
    made = {owner: place.desk.bring(owner, as_wav(speech(30.0))) for owner in ("stays", "leaves")}
    kept: list[tuple[str, int]] = []
    idle = place.desk.bring("idle", as_wav(SHORT))
    job = place.desk.submit(
        "leaves",
        made["leaves"],
        Options(),
        keep=lambda job: kept.append((job.state, len(job.segments))),
    )
    place.gone.update(("leaves", "idle"))
    assert done(job) == [DONE]
    wait_for(lambda: not made["leaves"].path.exists() and not idle.path.exists())
    assert kept[-1] == (DONE, len(job.segments))
    assert made["stays"].path.exists()
    place.desk.forget("stays")


def test_a_result_that_the_disk_refuses_is_kept_later(place: SimpleNamespace) -> None:
    refusals = [OSError(28, "No space left on device")] * 2
    kept: list[Job] = []

    def keep(job: Job) -> None:
        if refusals:
            raise refusals.pop()
        kept.append(job)

    job = place.desk.submit("ann", place.long, Options(), 0.0, 2.0, name="mine", keep=keep)
    assert done(job) == [DONE]
    assert place.desk.find("mine") in (job, None)
    wait_for(lambda: kept == [job])
    wait_for(lambda: place.desk.find("mine") is None)


def test_a_job_is_found_by_its_name_while_it_goes_on(place: SimpleNamespace) -> None:
    job = place.desk.submit("ann", place.long, Options(), name="mine")
    assert place.desk.find("mine") is job
    assert place.desk.find("other") is None
    assert (place.desk.is_busy("mi"), place.desk.is_busy("other")) == (True, False)
    job.cancel()
    assert done(job) == [CANCELLED]
    assert not place.desk.is_busy("mi")


def test_the_desk_imports_no_torch(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from asr.transcribe.job_queue import Options, TranscriptionQueue
desk = TranscriptionQueue(Path({str(tmp_path / "sessions")!r}), lambda owner: True)
sound = desk.bring("me", Path({str(tmp_path / "a.wav")!r}))
assert sound.duration == 1.5
"""
    (tmp_path / "a.wav").write_bytes(as_wav(SHORT))
    assert imported(code, "torch", "transformers", "mlflow", "dvc", "evaluate") == []
    assert not list(
        (tmp_path / "sessions").iterdir()
    )  # a server that ends takes what visitors brought with it


def test_a_worker_whose_server_has_ended_ends_without_a_word() -> None:
    """It may notice by what it says before it notices by what it is told."""
    nobody, events = os.pipe()
    os.close(nobody)
    with subprocess.Popen(
        [sys.executable, "-m", "asr.transcribe.worker"],
        stdin=subprocess.PIPE,
        stdout=events,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    ) as worker:
        os.close(events)
        assert worker.stdin
        assert worker.stderr
        worker.stdin.write(b'{"job": 1, "start": 0.0, "end": 1.0}\n')
        worker.stdin.flush()
        assert worker.stderr.read() == b""
    assert worker.returncode == 0


def test_what_dead_servers_left_is_swept(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for name in (str(dead.pid), str(os.getpid()), str(os.getppid()), "1", "other"):
        (tmp_path / name / "visitor").mkdir(parents=True)
    TranscriptionQueue(tmp_path, lambda _: True)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        {str(os.getppid()), "1", "other"}
    )


def test_the_decoding_process_leaves_without_work_and_without_a_desk() -> None:
    for idle, ask in ((0.3, None), (900.0, "")):
        code = f"from asr.transcribe import worker; worker.IDLE_SECONDS = {idle}; worker.main()"
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
        )
        if ask is None:
            assert process.wait(60) == 0
        assert process.communicate(ask, timeout=180) == ("", "")
        assert process.returncode == 0


def work(
    place: SimpleNamespace, models: Any, cancelled: set[int] | None = None, **order: Any
) -> list[dict[str, Any]]:
    """One job in this process, as the decoding process does it; gives its events."""
    events: list[dict[str, Any]] = []
    asked = {
        "job": 7,
        "sound": str(place.long.path),
        "start": 0.0,
        "end": 4.0,
        "language": None,
        "task": None,
        "model": "workspace",
    }
    worker.run_job(
        {**asked, **order}, models, cancelled or set(), lambda **event: events.append(event)
    )
    return events


def languages(events: list[dict[str, Any]]) -> list[str]:
    return [event["language"] for event in events if "language" in event]


def words(events: list[dict[str, Any]]) -> list[str]:
    return [event["segment"]["text"] for event in events if "segment" in event]


def test_what_one_job_asks_for_is_not_the_next_ones(place: SimpleNamespace) -> None:
    models: OrderedDict[str, Any] = OrderedDict()
    plain = words(work(place, models))
    other = work(place, models, language="de", task="translate")
    assert languages(other) == ["de"]
    assert words(other) != plain
    with pytest.raises(UserError):
        work(place, models, language="xx")
    with pytest.raises(Cancelled):
        work(place, models, cancelled={7}, language="fi")
    again = work(place, models)
    assert (languages(again), words(again)) == (["sv"], plain)
    assert len(models) == 1


def test_a_model_that_was_trained_anew_is_the_one_that_is_used(place: SimpleNamespace) -> None:
    folder, models = place.root / "models/kept/changing", OrderedDict[str, Any]()
    texts = []
    for seed in (1, 2):
        save(babbling(seed), folder)
        texts.append(words(work(place, models, model="models/kept/changing")))
        assert texts[-1] == words(work(place, OrderedDict(), model="models/kept/changing"))
    assert texts[0] != texts[1]


def test_no_more_than_two_models_stay_in_memory(place: SimpleNamespace) -> None:
    hub_folder(place.root / "models/kept/hub")
    models: OrderedDict[str, Any] = OrderedDict()
    names = ("workspace", "models/kept/other", "workspace", "models/kept/hub")
    for name in names:
        work(place, models, model=name, end=0.5)
    assert len(models) == worker.KEPT_MODELS
    held = [Path(json.loads(key)[1]).name for key in models]
    assert held == ["finetuned", "hub"]


@pytest.mark.parametrize(
    ("order", "says"),
    [
        ({"start": 3.0, "end": 3.0}, "no sound in this part"),
        ({"start": 3.0, "end": 3.00001, "language": "detect"}, "no sound in this part"),
        ({"start": LONG_SECONDS + 5, "end": LONG_SECONDS + 9}, "no sound in this part"),
        ({"language": "xx"}, "xx"),
        ({"model": "models/none"}, "not there"),
        ({"model": "a/b/c"}, "not there"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    place: SimpleNamespace, order: dict[str, Any], says: str
) -> None:
    with pytest.raises(UserError, match=says) as told:
        work(place, OrderedDict(), **order)
    assert "\n" not in str(told.value)


def test_faults_come_back_over_the_process_as_one_line(place: SimpleNamespace) -> None:
    nowhere = SampleFile(place.root / "gone.f32")
    given = [
        place.desk.submit("ann", nowhere, Options(), 0.0, 1.0),
        place.desk.submit("ann", place.long, Options(model="models/none"), 0.0, 1.0),
        place.desk.submit("ann", place.long, Options(language="xx"), 0.0, 1.0),
        place.desk.submit("ann", place.long, Options(), 5.0, 5.0),
        place.desk.submit("ann", place.long, Options(), 5.0, 6.0),
    ]
    process = place.desk.worker.process
    assert done(*given) == [FAILED, FAILED, FAILED, FAILED, DONE]
    assert "bring the recording again" in str(given[0].fault)
    assert all(
        job.fault and "\n" not in job.fault and "Traceback" not in job.fault for job in given[:4]
    )
    assert place.desk.worker.process is process  # a fault is no death


def test_moments_are_those_of_the_recording(place: SimpleNamespace) -> None:
    job = place.desk.submit("ann", place.long, Options(), 100.0, 107.0)
    assert done(job) == [DONE]
    found = (job.segments[0].start, job.segments[-1].end)
    assert found == pytest.approx((100.0, 107.0), abs=0.5)
    assert (job.moment, job.progress) == (107.0, 1.0)
    assert len(place.long.read(100.0, 107.0)) == SAMPLE_RATE * 7
