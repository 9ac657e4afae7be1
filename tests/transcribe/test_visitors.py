"""What visitors brought and made: kept whole, for one browser alone, and for a week."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from asr import doctor, paths
from asr.decoding.segments import Segment, Word
from asr.errors import DiskError, ParamsError
from asr.storage import cache, files
from asr.transcribe import visitors
from asr.transcribe.job_queue import DONE, Options
from asr.transcribe.visitors import Recording, Transcript, Visitor
from support.imports import imported

DAY = 86_400
SOUND = Recording("ab" * 16, "talk.wav")


@pytest.fixture
def ann() -> Visitor:
    return visitors.visitor("a" * 32)


@pytest.fixture
def bob() -> Visitor:
    return visitors.visitor("b" * 32)


def transcript(number: int = 0, *texts: str) -> Transcript:
    heard = texts or ("ett", "två", "tre")
    return Transcript(
        id=f"{number:020d}-0",
        request=f"{number:020d}",
        recording=SOUND,
        model="workspace",
        options=Options(),
        start=0.0,
        end=float(len(heard)),
        made=1e9,
        state=DONE,
        seconds=0.5,
        segments=tuple(
            Segment(float(n), n + 1.0, text, (Word(n + 0.1, n + 0.9, text),))
            for n, text in enumerate(heard)
        ),
    )


def fill(visitor: Visitor) -> None:
    visitor.keep_recording(SOUND, b"sound")
    visitor.add_transcript(transcript())
    visitor.correct(transcript(), 1, "zwei")
    visitor.add_message("user", "hej")


def kept(visitor: Visitor) -> tuple[Any, ...]:
    found = [
        (one, visitor.corrections(one), visitor.recording_path(one.recording).read_bytes())
        for one in visitor.transcripts()
    ]
    return visitor.recordings(), found, visitor.messages()


FILLED = ([SOUND], [(transcript(), {1: "zwei"}, b"sound")], [{"role": "user", "content": "hej"}])
EMPTY: tuple[Any, ...] = ([], [], [])


def test_all_is_there_for_the_same_key_and_nothing_for_another(ann: Visitor, bob: Visitor) -> None:
    fill(ann)
    assert kept(visitors.visitor("a" * 32)) == FILLED
    assert kept(bob) == EMPTY
    assert not bob.folder.exists(), "who brings nothing leaves nothing"


@pytest.mark.parametrize(
    "key",
    [
        *("", "a" * 31, "a" * 33, "A" * 32, "../" + "a" * 29, "a" * 32 + "\n", "g" * 32),
        *("a/" * 16, "١" * 32, None, 7, ["a" * 32], {"key": "a" * 32}, b"a" * 32),
    ],
)
def test_a_hostile_key_is_refused(key: object) -> None:
    with pytest.raises(ParamsError, match="key that is none"):
        visitors.visitor(key)


def test_only_the_servers_user_can_read_and_no_name_tells_the_key(ann: Visitor) -> None:
    mask = os.umask(0)
    try:
        fill(ann)
    finally:
        os.umask(mask)
    assert stat.S_IMODE(visitors.top().stat().st_mode) == 0o700
    assert stat.S_IMODE(ann.folder.stat().st_mode) == 0o700
    files = [path for path in visitors.top().rglob("*") if path.is_file()]
    assert len(files) > 4
    assert not [path for path in files if "a" * 32 in f"{path}{path.read_bytes()!r}"]


@pytest.mark.parametrize(
    "name", ["../../../etc/passwd", "/tmp/x", "a\0b\n", "\udcff.wav", "x" * 5000, ".x.1.part"]
)
def test_a_name_that_a_visitor_chose_is_part_of_no_path(ann: Visitor, name: str) -> None:
    recording = replace(SOUND, name=name.encode(errors="replace").decode())
    ann.keep_recording(recording, b"sound")
    assert ann.recordings() == [recording]
    files = {path.name for path in ann.folder.rglob("*") if path.is_file()}
    assert files == {f"{SOUND.id}.bytes", f"{SOUND.id}.json"}


@pytest.mark.parametrize(
    ("days", "use", "stays"),
    [
        (6.9, None, True),
        (7.1, None, False),
        (30.0, None, False),
        (7.1, lambda ann: ann.touch(), True),
        (7.1, lambda ann: ann.update_transcript(transcript()), True),
        (7.1, lambda ann: ann.add_message("user", "hej igen"), True),
        (7.1, lambda ann: ann.keep_recording(SOUND, None), True),
    ],
)
def test_it_goes_a_week_after_its_last_use(
    ann: Visitor, bob: Visitor, days: float, use: Callable[[Visitor], None] | None, stays: bool
) -> None:
    fill(ann)
    fill(bob)
    past = time.time() - days * DAY
    os.utime(ann.folder, (past, past))
    if use:
        use(ann)
    visitors.sweep()
    assert ann.folder.exists() == stays
    assert kept(bob) == FILLED


def test_a_sweep_of_nothing_is_no_error() -> None:
    visitors.sweep()


def test_two_tabs_lose_nothing_of_each_other(ann: Visitor) -> None:
    count = 20
    ann.add_transcript(transcript(0, *map(str, range(2 * count))))

    def tab(first: int) -> None:
        mine = visitors.visitor("a" * 32)
        for number in range(first, first + count):
            mine.correct(mine.transcripts()[-1], number, f"corrected {number}")
            mine.add_message("user", f"said {number}")
            mine.add_transcript(transcript(number + 1))

    tabs = [threading.Thread(target=tab, args=(first,)) for first in (0, count)]
    for one in tabs:
        one.start()
    for one in tabs:
        one.join()
    (first,) = [one for one in ann.transcripts() if one.id == transcript(0).id]
    assert ann.corrections(first) == {n: f"corrected {n}" for n in range(2 * count)}
    said = [message["content"] for message in ann.messages()]
    assert sorted(said) == sorted(f"said {n}" for n in range(2 * count))
    assert len(ann.transcripts()) == 2 * count + 1


@pytest.mark.parametrize(
    ("texts", "corrections"),
    [
        (["två"], {}),  # as it was heard
        (["zwei", "två"], {}),  # corrected, and taken back
        (["zwei", "två", "deux"], {1: "deux"}),
        ([""], {1: ""}),
    ],
)
def test_only_what_differs_from_what_was_heard_is_a_correction(
    ann: Visitor, texts: list[str], corrections: dict[int, str]
) -> None:
    ann.add_transcript(transcript())
    for text in texts:
        ann.correct(transcript(), 1, text)
    assert ann.corrections(transcript()) == corrections


def test_what_was_deleted_does_not_come_back(ann: Visitor, bob: Visitor) -> None:
    fill(ann)
    fill(bob)
    ann.delete()
    ann.update_transcript(transcript())  # by a job that went on
    ann.correct(transcript(), 0, "ein")  # in another tab
    ann.touch()
    assert kept(ann) == EMPTY
    assert not ann.folder.exists()
    assert kept(bob) == FILLED


@pytest.mark.parametrize("limit", ["MAX_BYTES", "MAX_TOTAL_BYTES"])
@pytest.mark.parametrize(
    "add",
    [
        lambda ann: ann.keep_recording(replace(SOUND, id="cd" * 16), bytes(2000)),
        lambda ann: ann.add_transcript(transcript(1)),
        lambda ann: ann.add_message("user", "mer"),
    ],
    ids=["recording", "transcript", "message"],
)
def test_a_full_folder_refuses_more_and_keeps_what_it_has(
    ann: Visitor,
    bob: Visitor,
    limit: str,
    add: Callable[[Visitor], None],
) -> None:
    fill(ann if limit == "MAX_BYTES" else bob)
    if limit == "MAX_TOTAL_BYTES":
        fill(ann)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(visitors, limit, 1)
        with pytest.raises(DiskError, match="delete everything you brought"):
            add(ann)
    assert kept(ann) == FILLED
    add(ann)
    assert kept(ann) != FILLED


@pytest.mark.parametrize(
    "add",
    [
        lambda ann: ann.keep_recording(replace(SOUND, id="cd" * 16), b"sound"),
        lambda ann: ann.add_transcript(transcript(1)),
        lambda ann: ann.add_message("user", "mer"),
        lambda ann: ann.correct(transcript(), 0, "ein"),
    ],
    ids=["recording", "transcript", "message", "correction"],
)
def test_a_disk_that_refuses_is_one_line_and_costs_nothing_that_is_kept(
    ann: Visitor, monkeypatch: pytest.MonkeyPatch, add: Callable[[Visitor], None]
) -> None:
    fill(ann)

    def refuse(_: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "sync", refuse)
    with pytest.raises(DiskError, match="No space left"):
        add(ann)
    assert kept(ann) == FILLED
    assert not list(ann.folder.rglob(".*"))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"id": 1}', b"\xff"])
def test_a_damaged_file_hides_nothing_else(ann: Visitor, content: bytes) -> None:
    fill(ann)
    ann.add_transcript(transcript(1))
    for path in (
        ann.folder / f"transcripts/{transcript(1).id}.json",
        ann.folder / f"corrections/{transcript(1).id}.json",
        ann.folder / "recordings/00.json",
    ):
        path.write_bytes(content)
    assert kept(ann)[1:] == FILLED[1:]
    assert ann.recordings()[-1:] == [SOUND]
    (ann.folder / "talk.json").write_bytes(content)
    assert ann.messages() == []


def test_limits_of_the_cache_and_the_doctor_spare_it(ann: Visitor) -> None:
    fill(ann)
    old = time.time() - 365 * DAY
    for path in (*visitors.top().rglob("*"), visitors.top()):
        os.utime(path, (old, old))
    litter = paths.cache("shards", ".x.part")
    litter.parent.mkdir(parents=True)
    litter.touch()
    os.utime(litter, (old, old))
    cache.folder()
    assert not litter.exists(), "the control"
    assert list(doctor.drafts(paths.root())) == []
    assert list(doctor.sessions(paths.root())) == []
    assert kept(ann) == FILLED


@pytest.mark.parametrize(
    ("seconds", "state", "segments", "speed"),
    [
        (0.5, DONE, 3, 6.0),
        (0.5, "cancelled", 2, 4.0),
        (None, "failed", 0, None),
        (0.0, DONE, 3, None),
        (0.5, "running", 0, None),
    ],
)
def test_the_speed_is_that_of_what_was_heard(
    seconds: float | None, state: str, segments: int, speed: float | None
) -> None:
    made = replace(transcript(), seconds=seconds, state=state)
    assert replace(made, segments=made.segments[:segments]).speed == speed


def test_it_imports_no_torch(tmp_path: Path) -> None:
    assert tmp_path
    assert imported("import asr.transcribe.visitors", "torch", "transformers", "streamlit") == []
