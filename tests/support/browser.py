"""The real server on the experiments of support/experiments.py, and Chromium."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from playwright.sync_api import Browser, Page, TimeoutError, expect, sync_playwright

from support import hostile_texts
from support.experiments import speech, wav
from support.pipeline import Workspace

CHROMIUM = Path("/usr/bin/chromium")
MICROPHONE = "tolv tretton"
# What `streamlit run` does, but a visitor is lost sooner than after a minute, and the libraries
# that are imported are noted.
HURRIED = """
import sys
seen = set()
def note(event, args):
    if event == "import" and (name := args[0].partition(".")[0]) not in seen:
        seen.add(name)
        with open("imports.log", "a") as log:
            print(name, file=log)
sys.addaudithook(note)
from asr.transcribe import job_queue
job_queue.LOST_SECONDS, job_queue.TIDY_SECONDS = 15.0, 0.5
from streamlit.web.cli import main
main()
"""
QUIET = (
    "--no-sandbox --disable-gpu --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
# The transcripts that have ended and are shown, each by the class of its JSON button.
TRANSCRIPTS = """[...document.querySelectorAll('[class*="st-key-get-json-"]')]
    .map(it => it.className.match(/st-key-get-json-[0-9a-f-]+/)[0])"""
TEXT_FROM = re.compile("^Text from")  # label of a segment's text
SHARED = "--process-per-site"  # all tabs in one process, which compiles Streamlit's scripts once


class Server:
    """`streamlit run dashboard` in a workspace, as a user starts it."""

    def __init__(self, workspace: Workspace):
        self.workspace = workspace
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.said, self.brought = (
            workspace.root.parent / "server.log",
            workspace.root.parent / "brought",
        )
        self.brought.mkdir()
        self.said.touch()
        self.start()

    def start(self) -> None:
        """Start it, at the same address as before if it was killed."""
        workspace = self.workspace
        with self.said.open("a") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    HURRIED,
                    "run",
                    "dashboard",
                    "--server.port",
                    str(self.port),
                ],
                cwd=workspace.root,
                env={
                    **workspace.environment,
                    "DVC_ROOT": str(workspace.root),
                    "EARSHOT_RECORDINGS": str(self.brought),
                },
                stdout=log,
                stderr=log,
            )

    def wait(self) -> None:
        for _ in range(600):
            with (
                suppress(OSError),
                urllib.request.urlopen(f"{self.url}/_stcore/health", timeout=5) as answer,
            ):
                if answer.status == 200:
                    return
            assert self.process.poll() is None, self.said.read_text()
            time.sleep(0.1)
        raise AssertionError(self.said.read_text())

    def kill_and_restart(self) -> None:
        """What a crash of the server and its next start do to its visitors."""
        self.process.kill()
        self.process.wait()
        self.start()
        self.wait()

    def family(self) -> dict[int, str]:
        """The server and all processes that it started, with their command lines."""
        found, waiting = {}, [self.process.pid]
        while waiting:
            pid = waiting.pop()
            with suppress(OSError):  # it may just have ended
                found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                waiting += [
                    int(child)
                    for task in Path(f"/proc/{pid}/task").iterdir()
                    for child in (task / "children").read_text().split()
                ]
        return found

    def decoder(self) -> int:
        """The one process that decodes; a copy that it makes of itself to start another is none."""
        family = self.family()
        same = {pid for pid, line in family.items() if "asr.transcribe.worker" in line}
        (decoder,) = [pid for pid in same if _parent(pid) not in {None, *same}]
        return decoder

    def left(self) -> list[Path]:
        """Temporary files of its visitors."""
        return [
            path for path in (self.workspace.root / ".cache/sessions").rglob("*") if path.is_file()
        ]

    def visitors(self) -> set[Path]:
        """The folders of those who brought something."""
        return set((self.workspace.root / ".cache/visitors").glob("*/"))

    def kept(self) -> list[Path]:
        """Recordings that visitors brought."""
        return list((self.workspace.root / ".cache/visitors").glob("*/recordings/*.bytes"))


@pytest.fixture(scope="session")
def server(learnt: Workspace) -> Iterator[Server]:
    with serving(learnt) as made:
        yield made


@contextmanager
def serving(workspace: Workspace) -> Iterator[Server]:
    """The pages of a workspace; what the server says at its end must hold no fault."""
    made = Server(workspace)
    try:
        made.wait()
        yield made
    finally:
        made.process.terminate()
        made.process.wait(20)
    said = made.said.read_text()
    assert "Traceback" not in said, said
    assert "Session State API" not in said, said


def _parent(pid: int) -> int | None:
    """The process that started this one; None if it has just ended."""
    with suppress(psutil.NoSuchProcess):
        return int(psutil.Process(pid).ppid())
    return None


class Visitor:
    """One person's browser, and what it did that no page may make it do."""

    def __init__(
        self,
        browser: Browser,
        server: Server,
        width: int = 1280,
        theme: str = "light",
        beside: Visitor | None = None,
    ):
        """`beside` opens another tab of that one's browser."""
        self.server = server
        self.wrongs: list[str] = []
        if beside:
            self.context = beside.context
        else:
            self.context = browser.new_context(
                viewport={"width": width, "height": 1600}, color_scheme=theme, accept_downloads=True
            )
            self.context.add_init_script(hostile_texts.MARK)
            self.context.on("request", self._asked)
            self.context.on("dialog", self._dialog)
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(120_000)
        self.page.on("pageerror", lambda error: self.wrongs.append(f"error in the page: {error}"))

    def _asked(self, request: Any) -> None:
        if not request.url.startswith((self.server.url, "data:", "blob:")):
            self.wrongs.append(f"asked {request.url}")

    def _dialog(self, dialog: Any) -> None:
        self.wrongs.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def go(self, page: str) -> Page:
        self.page.goto(f"{self.server.url}/{'' if page == 'Runs' else page.lower()}")
        expect(self.page.get_by_role("heading", name=page, exact=True)).to_be_visible(
            timeout=120_000
        )
        return self.page

    def bring(self, name: str, content: bytes) -> None:
        """Upload a recording, and wait for its waveform."""
        self.page.locator("input[type=file]").set_input_files(
            {"name": name, "mimeType": "application/octet-stream", "buffer": content}
        )
        expect(self.page.get_by_test_id("stText").first).to_contain_text(name.split()[0])
        expect(self.page.get_by_role("button", name="Transcribe")).to_be_visible()
        self.settle()

    def settle(self) -> None:
        """Wait until no script runs."""
        self.page.wait_for_function(
            "document.querySelector('[data-testid=stApp]')?.dataset.testScriptState == 'notRunning'"
        )

    def choose(self, label: str, option: str) -> None:
        """Take an option of a list, as the keyboard does: type it, and take what is left; what
        scrolls or is drawn anew closes the list.
        """
        self.settle()
        box, wanted = (
            self.page.get_by_label(label, exact=True),
            self.page.get_by_role("option", name=option),
        )
        for _ in range(5):
            box.fill(option)
            with suppress(TimeoutError):
                wanted.click(timeout=3_000)
                return
        raise AssertionError(f"{label}: no {option}")

    def transcribe(self) -> list[str]:
        """Press the button, and wait for what is heard; earlier transcripts stay behind it."""
        before = self.page.evaluate(TRANSCRIPTS)
        self.page.get_by_role("button", name="Transcribe").click()
        new = f"{TRANSCRIPTS}.filter(it => !before.includes(it))"
        self.page.wait_for_function(
            f"before => {new}.length == 1",
            arg=before,
            timeout=180_000,
        )
        self.settle()
        # The page is drawn once more when the last job has ended.
        expect(self.page.get_by_label(TEXT_FROM).first).to_be_visible()
        return self.texts()

    def texts(self) -> list[str]:
        return [box.input_value() for box in self.page.get_by_label(TEXT_FROM).all()]

    def faults(self) -> list[str]:
        """What was run or asked for, and errors that show."""
        if self.page.is_closed():
            return self.wrongs
        shown = [
            *self.page.get_by_test_id("stException").all_inner_texts(),
            *self.page.get_by_test_id("stAlertContentError").all_inner_texts(),
            *self.page.get_by_text("Traceback").all_inner_texts(),
        ]
        ran = self.page.evaluate("window.__pwned")
        return [*self.wrongs, *shown, *([f"ran {ran}"] if ran is not None else [])]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Chromium, whose microphone hears MICROPHONE after three seconds of silence, in which a busy
    machine begins to listen.
    """
    if not CHROMIUM.is_file():
        pytest.skip(f"no {CHROMIUM}")
    heard = tmp_path_factory.mktemp("microphone") / "heard.wav"
    heard.write_bytes(wav(speech(MICROPHONE, 3.0, 4.0)))
    devices = [
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={heard}",
    ]
    expect.set_options(timeout=120_000)  # machines that are busy are slow
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=[*QUIET, SHARED, *devices]
        )
        yield chromium
        chromium.close()


@pytest.fixture
def visitor(browser: Browser, server: Server) -> Iterator[Callable[..., Visitor]]:
    """Lets visitors in; no browser of theirs may run, ask for or show what it should not."""
    met: list[Visitor] = []

    def enter(**wishes: Any) -> Visitor:
        met.append(Visitor(browser, server, **wishes))
        return met[-1]

    yield enter
    found = [fault for one in met for fault in one.faults()]
    for one in met:
        one.context.close()
    assert found == []
