"""The dashboard as people use it: the real server on a finished run, in Chromium; every browser's
slips are faults (`Visitor.faults`).
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from playwright.sync_api import Page, expect

from support.browser import Server, Visitor
from support.experiments import SENTENCES, speech, wav

PAGES = ("Runs", "Errors", "Data", "Transcribe", "Talk")
Enter = Callable[..., Visitor]
HEAVY = {"torch", "transformers", "mlflow", "datasets", "evaluate"}


def test_every_page_opens_from_the_top(visitor: Enter) -> None:
    one = visitor()
    page = one.go("Runs")
    for name in (*PAGES[1:], PAGES[0]):
        page.get_by_role("link", name=name, exact=True).click()
        expect(page.get_by_role("heading", name=name, exact=True)).to_be_visible()
        one.settle()


def test_two_runs_are_compared(visitor: Enter) -> None:
    one = visitor()
    page = one.go("Runs")
    one.choose("Baseline", "brief")
    expect(page.get_by_role("heading", name="Against the baseline")).to_be_visible()
    row = page.get_by_role("row").filter(has_text="learnt")
    expect(row).to_have_count(1)
    expect(row).to_contain_text(re.compile("better|worse|not distinguishable"))
    assert one.faults() == []


def test_choices_survive_reload_menu_back_and_a_sent_link(visitor: Enter) -> None:
    one = visitor()
    page = one.go("Runs")
    _tick(page, 1)  # the very first click
    page.wait_for_url(re.compile("runs="))
    one.choose("Baseline", "brief")
    page.wait_for_url(re.compile("baseline="))
    page.get_by_label("Filter").fill("r")
    page.get_by_label("Filter").press("Enter")
    page.wait_for_url(re.compile("filter=r"))
    address = page.url
    for way in ("menu", "back", "reload", "link"):
        if way in ("menu", "back"):
            page.get_by_role("link", name="Errors", exact=True).click()
            expect(page.get_by_role("heading", name="Errors", exact=True)).to_be_visible()
        if way == "menu":
            page.get_by_role("link", name="Runs", exact=True).click()
        elif way == "back":
            page.go_back()
        elif way == "reload":
            page.reload()
        else:
            page = visitor().page
            page.goto(address)
        expect(page.get_by_label("Filter")).to_have_value("r")
        expect(page.get_by_role("heading", name="Against the baseline")).to_be_visible()
        expect(page.get_by_text("Tick runs to compare them")).to_have_count(0)
        assert page.url == address, way
    page.get_by_label("Filter").fill("")
    page.get_by_label("Filter").press("Enter")
    page.wait_for_url(lambda url: "filter=" not in url)
    page.go_back()  # undoes a choice
    expect(page.get_by_label("Filter")).to_have_value("r")


def _tick(page: Page, number: int) -> None:
    """Press the box of a row of the table of runs."""
    table = page.get_by_test_id("stDataFrame").first
    expect(table.locator("canvas").first).to_be_visible()
    table.click(position={"x": 15, "y": 35 * number + 17})


def test_the_page_reads_what_evaluate_reads(visitor: Enter, server: Server) -> None:
    table = pq.read_table(server.workspace.root / "reports/evaluate/utterances.parquet").to_pylist()
    scored = {row["id"]: row["hypothesis"] for row in table if row["model"] == "finetuned"}
    one = visitor()
    one.go("Transcribe")
    for name in ("test-0-0.flac", "test-3-0.flac"):
        one.bring(name, (server.workspace.root / "corpus" / name).read_bytes())
        expect(one.page.get_by_text(name, exact=True).last).to_be_visible()
        assert one.transcribe() == [scored[name]]
    assert scored["test-3-0.flac"] == SENTENCES[3], "the model knows its sentences"


def test_a_segment_plays_and_every_format_can_be_read(visitor: Enter) -> None:
    one = visitor()
    page = one.go("Transcribe")
    one.bring(
        "två meningar.wav",
        wav(np.concatenate([speech(SENTENCES[0], 0.3, 1.2), speech(SENTENCES[4], 0.6, 0.3)])),
    )
    texts = one.transcribe()
    assert " ".join(texts) == f"{SENTENCES[0]} {SENTENCES[4]}"
    page.get_by_role("button", name=re.compile(r"^0:00\.")).click()
    player = page.locator("audio").nth(2)  # after those of the recording and of the transcript
    expect(player).to_be_attached()
    page.wait_for_function("[...document.querySelectorAll('audio')].at(-1).currentTime > 0.2")
    assert 0.5 < player.evaluate("it => it.duration") < 3
    got = {kind: _downloaded(page, kind) for kind in ("TXT", "SRT", "VTT", "JSON", "CSV")}
    assert got["TXT"].splitlines() == texts
    told = json.loads(got["JSON"])
    assert told["text"] == " ".join(texts)
    assert [
        (float(row["start"]), float(row["end"]), row["text"])
        for row in csv.DictReader(io.StringIO(got["CSV"]))
    ] == [(segment["start"], segment["end"], segment["text"]) for segment in told["segments"]]
    for kind, mark in (("SRT", ","), ("VTT", ".")):
        cues = re.findall(
            rf"(\d\d:\d\d:\d\d\{mark}\d{{3}}) --> (\d\d:\d\d:\d\d\{mark}\d{{3}})\n(.+)\n", got[kind]
        )
        assert [cue[2] for cue in cues] == texts
        assert cues[0][0].startswith(f"00:00:00{mark}")
        assert all(start < end for start, end, _ in cues)


def test_what_was_brought_and_corrected_outlives_a_reload_in_this_browser_alone(
    visitor: Enter, server: Server
) -> None:
    one, stranger = visitor(), visitor()
    page = one.go("Transcribe")
    one.bring("elva.wav", wav(speech(SENTENCES[3])))
    one.transcribe()
    page.get_by_label(re.compile("^Text from")).fill("rättat")
    page.keyboard.press("Control+Enter")
    one.settle()
    page.get_by_role("link", name="Talk", exact=True).click()
    expect(page.get_by_role("heading", name="Talk", exact=True)).to_be_visible()
    page.get_by_role("link", name="Transcribe", exact=True).click()
    corrected = page.get_by_label(re.compile("^Text from"))
    expect(corrected).to_have_value("rättat")
    page.reload()
    expect(corrected).to_have_value("rättat")
    expect(page.get_by_test_id("stText").first).to_have_text("elva.wav")
    tab = visitor(beside=one).go("Transcribe")
    expect(tab.get_by_label(re.compile("^Text from"))).to_have_value("rättat")
    other = stranger.go("Transcribe")
    expect(other.locator("input[type=file]")).to_be_attached()
    stranger.settle()
    assert stranger.texts() == []
    expect(other.get_by_text("elva.wav")).to_have_count(0)
    key = page.evaluate("localStorage.getItem('earshot-visitor')")
    assert re.fullmatch("[0-9a-f]{32}", key)
    assert other.evaluate("localStorage.getItem('earshot-visitor')") != key
    assert key not in page.url + server.said.read_text()
    page.get_by_role("button", name="Delete everything I brought").click()
    page.get_by_role("button", name="Delete now").click()
    expect(corrected).to_have_count(0)
    tab.reload()
    expect(tab.locator("input[type=file]")).to_be_attached()
    expect(tab.get_by_text("elva.wav")).to_have_count(0)


def _downloaded(page: Page, kind: str) -> str:
    with page.expect_download() as waiting:
        page.get_by_role("button", name=kind, exact=True).click()
    assert waiting.value.suggested_filename == f"två-meningar.{kind.lower()}"
    return Path(waiting.value.path()).read_text(encoding="utf-8")


def test_it_listens_on_this_machine_alone(server: Server) -> None:
    sockets = {
        link.readlink().name
        for link in Path(f"/proc/{server.process.pid}/fd").iterdir()
        if link.is_symlink()
    }
    rows = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
    ]
    listening = [row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets]
    assert listening == [f"0100007F:{server.port:04X}"]


def test_the_server_never_imports_what_is_heavy(visitor: Enter, server: Server) -> None:
    one = visitor()
    for name in ("Runs", "Errors", "Data", "Talk", "Transcribe"):
        one.go(name)
    one.bring("fyra.wav", wav(speech(SENTENCES[1])))
    assert one.transcribe() == [SENTENCES[1]]
    imported = set((server.workspace.root / "imports.log").read_text().split())
    assert {"streamlit", "pandas"} <= imported, "the watch itself must see some"
    assert not imported & HEAVY
    decoder = server.decoder()
    for library in ("libtorch", "libopenvino"):
        assert library not in _maps(server.process.pid)
    assert "libopenvino" in _maps(decoder), "it is there where it belongs"
    assert "libtorch" not in _maps(decoder), "a converted model needs none"


def _maps(pid: int) -> str:
    return Path(f"/proc/{pid}/maps").read_text()


def test_no_foreign_socket_is_opened(server: Server) -> None:
    """By the server, the decoding process or anything else that they start; `test_pipeline` shows
    that the watch sees one.
    """
    assert not server.workspace.log.exists(), server.workspace.log.read_text()
