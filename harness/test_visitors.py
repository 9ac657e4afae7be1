"""The dashboard under load and attack: the real server, in Chromium. Measured here: processes,
sockets, memory, files left behind.

    make harness NAME=visitors      # 4 minutes
"""

from __future__ import annotations

import io
import os
import random
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile
from playwright.sync_api import Browser, Locator, Page, expect

from asr.runtime.formatting import clock
from asr.sources import folder
from asr.storage import files
from asr.transcribe import job_queue
from support import hostile_texts
from support.browser import Server, Visitor
from support.experiments import SENTENCES, speech, wav

Enter = Callable[..., Visitor]
LIMIT_MB = 300


@pytest.fixture(scope="module")
def three_hours(server: Server) -> Path:
    """Talk without end in the server's folder: the same five minutes 36 times, as MP3 files can be
    joined.
    """
    draw = random.Random(2)
    said = np.concatenate([speech(draw.choice(SENTENCES), 0.2, 0.3) for _ in range(60)])
    file = io.BytesIO()
    soundfile.write(
        file,
        np.resize(said, 299 * 22_050),
        22_050,
        format="MP3",
        bitrate_mode="CONSTANT",
        compression_level=0.9,
    )
    path = server.brought / "three hours.mp3"
    path.write_bytes(file.getvalue() * 36)
    return path


def test_three_hours_of_mp3_stay_within_memory_and_can_be_cancelled(
    visitor: Enter, server: Server, three_hours: Path
) -> None:
    one = visitor()
    page = one.go("Transcribe")
    one.bring("noll.wav", wav(speech(SENTENCES[5])))
    one.transcribe()  # the model is there
    _forget_peaks(server)
    before = _memory_mb(server, "VmRSS")
    page.locator("input[type=file]").set_input_files(three_hours)
    expect(page.get_by_text("2 h 59 min", exact=False).first).to_be_visible(timeout=240_000)
    page.get_by_role("button", name="Transcribe").click()
    # Four minutes or more are heard, however fast: two pages of text.
    heard = re.compile(r"listening: ([4-9]|[1-9][0-9]|[1-9]:[0-9]{2}):.* of 2:59")
    expect(page.get_by_text(heard)).to_be_visible(timeout=240_000)
    grown = _memory_mb(server, "VmHWM") - before
    print(f"{grown:.0f} MB")
    assert grown < LIMIT_MB + three_hours.stat().st_size / 2**20
    assert page.get_by_role("progressbar").count() == 1
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text("Cancelled; what was heard until then")).to_be_visible()
    _corrections_survive_other_pages(one)


def _corrections_survive_other_pages(one: Visitor) -> None:
    first = one.page.get_by_label(re.compile("^Text from")).first
    one.settle()
    first.fill("corrected")
    one.page.keyboard.press("Control+Enter")
    _turn_to(one, "2")
    expect(first).not_to_have_value("corrected")
    _turn_to(one, "1")
    expect(first).to_have_value("corrected")


def _turn_to(one: Visitor, number: str) -> None:
    """Show another page of segments; Streamlit can lose a number typed while it draws the last."""
    one.settle()
    one.page.get_by_label(re.compile("^Page of")).fill(number)
    one.page.keyboard.press("Enter")


def _memory_mb(server: Server, kind: str) -> float:
    """Memory of the server and its processes: `VmRSS` is that of now, `VmHWM` the most of each
    since `_forget_peaks`.
    """
    total = 0
    for pid in server.family():
        with suppress(OSError):  # it may just have ended
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith(f"{kind}:"))
    return total / 1024


def _forget_peaks(server: Server) -> None:
    """Have the kernel count the most memory of each process from here on."""
    for pid in server.family():
        Path(f"/proc/{pid}/clear_refs").write_text("5")


@contextmanager
def _paused(server: Server) -> Iterator[None]:
    """Let the process that transcribes stand still, so that three hours do not end meanwhile."""
    worker = server.decoder()
    os.kill(worker, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(worker, signal.SIGCONT)


def _start_long(one: Visitor, three_hours: Path) -> None:
    """Have three hours transcribed, by the recording's path."""
    page = one.go("Transcribe")
    page.get_by_text("On the server", exact=True).click()
    one.choose("A recording in the server's folder", three_hours.name)
    page.get_by_role("button", name="Transcribe").click(timeout=240_000)
    expect(page.get_by_text(re.compile(r"listening: .* of 2:59"))).to_be_visible(timeout=180_000)


def test_the_job_of_a_closed_tab_goes_on_and_its_samples_go(
    visitor: Enter, server: Server, three_hours: Path
) -> None:
    assert job_queue.LOST_SECONDS + job_queue.TIDY_SECONDS + job_queue.GRACE_SECONDS < 150, (
        "without the server's hurry it is within 3 minutes too"
    )
    kept_before = _bytes(server.kept())
    other = visitor()
    other.go("Transcribe")
    one = visitor()
    _start_long(one, three_hours)
    assert max(path.stat().st_size for path in server.left()) > 600e6
    other.bring("tolv.wav", wav(speech(SENTENCES[4])))
    with _paused(server):
        one.page.close()
        other.page.get_by_role("button", name="Transcribe").click()
        expect(other.page.get_by_text("Waiting: 1 transcription comes first.")).to_be_visible()
        other.page.wait_for_timeout(20_000)  # longer than a visitor without a page is waited for
        back = visitor(beside=one)
        back.go("Transcribe")
        expect(back.page.get_by_text(re.compile(r"listening: .* of 2:59"))).to_be_visible()
    back.page.get_by_role("button", name="Cancel").click()
    expect(back.page.get_by_text("Cancelled; what was heard until then")).to_be_visible()
    expect(back.page.get_by_label(re.compile("^Text from"))).to_have_count(20)  # a page of it
    expect(other.page.get_by_role("button", name="JSON")).to_be_visible()
    other.settle()
    assert other.texts() == [SENTENCES[4]], "and nothing of the other one's"
    back.page.close()
    deadline = time.monotonic() + 60
    while (
        max(path.stat().st_size for path in server.left()) > 600e6 and time.monotonic() < deadline
    ):
        time.sleep(0.2)
    assert _bytes(server.left()) < 10e6
    assert _bytes(server.kept()) - kept_before < 10e6, "no samples are kept"


def _bytes(files: list[Path]) -> int:
    return sum(path.stat().st_size for path in files)


def test_what_a_killed_server_had_shown_is_there_and_the_rest_is_a_click_away(
    visitor: Enter, server: Server, three_hours: Path
) -> None:
    one = visitor()
    _start_long(one, three_hours)
    heard = one.page.get_by_test_id("stText").filter(has_text=re.compile(r"^\d+:\d\d\.\d  \w"))
    shown = heard.inner_text().splitlines()
    server.kill_and_restart()
    one.go("Transcribe")
    expect(
        one.page.get_by_text("The server stopped before the end; what was heard")
    ).to_be_visible()
    (last, *_) = sorted((server.workspace.root / ".cache/visitors").glob("*/transcripts/*"))[::-1]
    kept = [(clock(one["start"]), one["text"]) for one in files.read_json(last)["segments"]]
    assert shown
    assert set(shown) <= {f"{start}  {text}" for start, text in kept}
    one.page.get_by_role("button", name="Transcribe the rest").click()
    expect(one.page.get_by_text(re.compile(r"listening: .* of 2:59"))).to_be_visible()
    one.page.get_by_role("button", name="Cancel").click()
    expect(one.page.get_by_text("Cancelled; ")).to_be_visible()


def test_twenty_at_once_wait_in_order_and_each_gets_its_own(
    visitor: Enter, server: Server, three_hours: Path
) -> None:
    before = server.visitors()
    first, host = visitor(), visitor()
    people = [host, *(visitor(beside=host) for _ in range(19))]
    for one in people:
        one.page.goto(f"{server.url}/transcribe", wait_until="commit")
    for number, one in enumerate(people):
        one.bring(f"{number}.wav", wav(speech(SENTENCES[number % len(SENTENCES)])))
    _start_long(first, three_hours)
    with _paused(server):
        for one in people:
            one.page.get_by_role("button", name="Transcribe").click()
        for number, one in enumerate(people):
            ahead = "1 transcription comes" if number == 0 else f"{number + 1} transcriptions come"
            expect(one.page.get_by_text(f"Waiting: {ahead} first.")).to_be_visible()
    first.page.get_by_role("button", name="Cancel").click()
    for number, one in enumerate(people):
        expect(one.page.get_by_role("button", name="JSON")).to_be_visible(timeout=180_000)
        one.settle()
        assert one.texts() == [SENTENCES[number % len(SENTENCES)]]
    assert len(server.visitors() - before) == 2, "all tabs of a browser have one key"


def test_hostile_texts_run_nothing_in_any_field(
    visitor: Enter, server: Server, tmp_path: Path
) -> None:
    one = visitor()
    page = one.go("Transcribe")
    sound = wav(speech(SENTENCES[5]))
    for number, name in enumerate(hostile_texts.packed(200)):
        one.bring(f"{number} {name}.wav", sound)
    assert {path.suffix for path in server.left()} == {".f32"}
    assert all(re.fullmatch("[0-9a-f]{32}", path.stem) for path in (*server.left(), *server.kept()))
    assert one.transcribe() == [SENTENCES[5]]
    _type(
        page,
        page.get_by_label(re.compile("^Text from")),
        [" ".join(hostile_texts.HOSTILE)],
        "Control+Enter",
    )
    page.get_by_text("Add to the training data").click()
    _type(page, page.get_by_label("Speaker"), hostile_texts.packed(80))
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.get_by_text("Added 1 pair")).to_be_visible()
    kept = list(folder.read(server.workspace.root / "recordings", tmp_path).utterances)[-1]
    assert (kept.text, kept.speaker) == (
        " ".join(hostile_texts.HOSTILE),
        hostile_texts.packed(80)[-1],
    )
    one.choose("Model", "a model from the hub")
    _type(page, page.get_by_label("Hub id"), hostile_texts.packed(200))
    page.get_by_text("YouTube", exact=True).click()
    _type(page, page.get_by_label("YouTube link"), hostile_texts.packed(500))
    assert one.faults() == []
    for place, label in (("Errors", "Search words"), ("Runs", "Filter")):
        _type(one.go(place), page.get_by_label(label), hostile_texts.packed(200))
        assert one.faults() == []


def _type(page: Page, field: Locator, texts: list[str], key: str = "Enter") -> None:
    for text in texts:
        field.fill(text)
        field.press(key)
        page.wait_for_timeout(20)
        page.wait_for_function(
            "document.querySelector('[data-testid=stApp]').dataset.testScriptState == 'notRunning'"
        )


def test_the_watch_sees_what_runs(browser: Browser, server: Server) -> None:
    """The negative control: the same texts, given to the browser as a page."""
    one = Visitor(browser, server)
    one.page.goto(f"{server.url}/_stcore/health")
    for text in hostile_texts.HOSTILE:
        one.page.evaluate(
            (
                "text => { const it = document.createElement('div'); "
                "document.body.append(it); it.innerHTML = text }"
            ),
            text,
        )
    one.page.wait_for_timeout(300)
    assert one.page.evaluate("window.__pwned") > 20
    assert len({wrong for wrong in one.wrongs if "x.test" in wrong}) > 2
    one.context.close()
