"""Each page in Chromium, beyond the main path that tests/dashboard/test_browser.py walks.

make harness NAME=browser       # 3 minutes
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from playwright.sync_api import Browser, Page, TimeoutError, expect

from asr.sources import folder
from support.browser import MICROPHONE, Server, Visitor
from support.data import add_sound
from support.experiments import SENTENCES, speech, wav

PAGES = ("Runs", "Errors", "Data", "Transcribe", "Talk")
Enter = Callable[..., Visitor]


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 1280), ("light", 390)])
def test_every_page_fits_and_is_drawn(
    visitor: Enter, tmp_path: Path, theme: str, width: int
) -> None:
    """EARSHOT_SCREENSHOTS names a folder for pictures to be looked at."""
    pictures = Path(os.environ.get("EARSHOT_SCREENSHOTS") or tmp_path)
    one = visitor(theme=theme, width=width)
    for name in PAGES:
        page = one.go(name)
        if name == "Transcribe":
            one.bring("sju.wav", wav(speech(SENTENCES[2])))
            one.transcribe()
        one.settle()
        assert one.faults() == []
        assert overhang(page) <= 0, f"{name} is wider than the window"
        height = page.get_by_test_id("stMain").evaluate("it => it.scrollHeight")
        page.set_viewport_size({"width": width, "height": min(max(height, 900), 4000)})
        assert len(page.screenshot(path=pictures / f"{name.lower()}-{theme}-{width}.png")) > 5_000
        page.set_viewport_size({"width": width, "height": 900})


def overhang(page: Page) -> int:
    """Pixels by which the page is wider than its window."""
    return int(page.get_by_test_id("stMain").evaluate("it => it.scrollWidth - it.clientWidth"))


PLANTED = {
    "error in the page: planted": "setTimeout(() => { throw new Error('planted') })",
    "dialog: planted": "setTimeout(() => alert('planted'))",
    "asked http://elsewhere.test/": "fetch('http://elsewhere.test/').catch(() => 0) && 0",
    "ran 7": "window.__pwned = 7",
    "an exception": """main.insertAdjacentHTML('beforeend',
        '<div data-testid="stException">an exception</div>')""",
}


def test_the_watch_sees_a_page_that_is_too_wide_fails_or_runs_what_it_should_not(
    browser: Browser, server: Server
) -> None:
    """The control of what all other tests look for."""
    one = Visitor(browser, server)
    page = one.go("Runs")
    one.settle()
    assert (one.faults(), overhang(page)) == ([], 0)
    main = "const main = document.querySelector('[data-testid=stMain]');"
    for script in PLANTED.values():
        page.evaluate(f"() => {{ {main} {script} }}")
    page.wait_for_timeout(300)
    assert sorted(one.faults()) == sorted(PLANTED)
    page.evaluate(
        f"() => {{ {main} main.insertAdjacentHTML('beforeend', "
        "'<p style=\"width: 2000px; flex-shrink: 0\">wide</p>') }"
    )
    assert overhang(page) > 0
    one.context.close()


def test_what_is_chosen_on_errors_survives_reload_menu_back_and_a_link(visitor: Enter) -> None:
    one = visitor()
    page = one.go("Errors")
    one.settle()
    word = SENTENCES[0].split()[0]
    page.get_by_label("Search words").fill(word)
    page.get_by_label("Search words").press("Enter")
    one.settle()
    page.get_by_text("With punctuation", exact=True).click()
    one.settle()
    chosen = errors_shown(page)
    assert chosen[0] == word
    page.reload()
    expect(page.get_by_label("Search words")).to_have_value(word)
    one.settle()
    assert errors_shown(page) == chosen
    for way in ("menu", "back"):
        page.get_by_role("link", name="Data", exact=True).click()
        expect(page.get_by_role("heading", name="Data", exact=True)).to_be_visible()
        one.settle()
        if way == "menu":
            page.get_by_role("link", name="Errors", exact=True).click()
        else:
            page.go_back()
        expect(page.get_by_label("Search words")).to_have_value(word)
        one.settle()
        assert errors_shown(page) == chosen, way
    other = visitor()
    other.page.goto(page.url)
    expect(other.page.get_by_label("Search words")).to_have_value(word)
    other.settle()
    assert errors_shown(other.page) == chosen
    about = page.locator(".marked .about").last
    row = about.inner_text()
    about.get_by_role("link").click()
    expect(page.get_by_text("This utterance was linked")).to_be_in_viewport()
    expect(page.locator(".st-key-linked-utterance")).to_contain_text(row)


def errors_shown(page: Page) -> tuple[str, list[str], list[str]]:
    """What is searched for, the scores, and the utterances."""
    return (
        page.get_by_label("Search words").input_value(),
        page.get_by_test_id("stMetricValue").all_inner_texts(),
        page.locator(".marked .about").all_inner_texts(),
    )


def test_the_brush_moves_the_slider_and_the_slider_the_sound(visitor: Enter) -> None:
    one = visitor()
    page = one.go("Transcribe")
    one.bring(
        "två.wav",
        wav(np.concatenate([speech(SENTENCES[0], 0.5, 0.5), speech(SENTENCES[5], 0.5, 1.0)])),
    )
    length = page.locator("audio").evaluate("it => it.duration")
    chart = page.get_by_test_id("stVegaLiteChart").locator("svg, canvas").first
    box = chart.bounding_box()
    assert box
    page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.8 * box["width"], box["y"] + 40, steps=5)
    page.mouse.move(box["x"] + 0.98 * box["width"], box["y"] + 40, steps=5)
    page.mouse.up()
    begin, end = page.get_by_role("slider").all()
    expect(begin).not_to_have_attribute("aria-valuetext", "0.0 s")
    start, stop = (float(one.get_attribute("aria-valuetext").split()[0]) for one in (begin, end))
    assert start == pytest.approx(0.6 * length, abs=0.3)
    assert stop == pytest.approx(0.98 * length, abs=0.3)
    assert one.transcribe() == [SENTENCES[5]], "only the second half is read"
    brushed = page.locator("audio").first.evaluate("it => it.duration")
    for _ in range(20):  # what is drawn anew lets go of the keyboard
        begin.press("ArrowLeft")
        with suppress(TimeoutError):
            page.wait_for_function(
                f"document.querySelector('audio').duration > {brushed + 0.05}", timeout=3_000
            )
            break
    moved = float(begin.get_attribute("aria-valuetext").split()[0])
    assert moved < start
    page.wait_for_function(
        f"Math.abs(document.querySelector('audio').duration - {stop - moved}) < 0.11"
    )
    expect(page.locator(".brush_brush path").first).to_be_hidden()


def test_what_the_microphone_hears_is_read(visitor: Enter) -> None:
    one = visitor()
    page = one.go("Transcribe")
    page.get_by_text("Microphone", exact=True).click()
    page.get_by_role("button", name="Record").click()
    expect(page.get_by_text("00:05")).to_be_visible()
    page.get_by_role("button", name="Stop recording").click()
    expect(page.get_by_role("button", name="Transcribe")).to_be_visible()
    assert MICROPHONE in one.transcribe(), "silence before it may be taken for words"


def test_a_video_is_read(visitor: Enter) -> None:
    one = visitor()
    one.go("Transcribe")
    for ending, picture, sound in (
        ("mp4", "mpeg4", "aac"),
        ("mkv", "mpeg4", "flac"),
        ("webm", "libvpx", "libopus"),
    ):
        one.bring(f"film.{ending}", video(speech(SENTENCES[2]), ending, picture, sound))
        assert one.transcribe() == [SENTENCES[2]], ending


def video(samples: np.ndarray, ending: str, picture: str, sound: str | None) -> bytes:
    """A grey picture, ten times a second, with sound."""
    file = io.BytesIO()
    with av.open(file, "w", format={"mkv": "matroska"}.get(ending, ending)) as container:
        seen = container.add_stream(picture, rate=10, width=64, height=48, pix_fmt="yuv420p")
        heard = container.add_stream(sound, rate=48_000, layout="mono") if sound else None
        for _ in range(10 * len(samples) // 22_050):
            grey = np.full((48, 64, 3), 128, np.uint8)
            container.mux(seen.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(seen.encode(None))
        if heard:
            add_sound(container, heard, samples, 22_050)
    return file.getvalue()


def test_a_file_without_sound_says_so(visitor: Enter) -> None:
    one = visitor()
    page = one.go("Transcribe")
    for name, content in (
        ("silent.mp4", video(speech("noll"), "mp4", "mpeg4", None)),
        ("text.wav", b"no sound at all"),
    ):
        page.locator("input[type=file]").set_input_files(
            {"name": name, "mimeType": "video/mp4", "buffer": content}
        )
        expect(
            page.get_by_text(re.compile("no sound|no audio|cannot be decoded|not.*sound"))
        ).to_be_visible()
        expect(page.get_by_role("button", name="Transcribe")).to_have_count(0)


def test_an_upload_over_200_mb_is_refused_with_the_way_out(visitor: Enter, tmp_path: Path) -> None:
    with (tmp_path / "long.wav").open("wb") as file:
        file.truncate(201 << 20)
    page = visitor().go("Transcribe")
    page.locator("input[type=file]").set_input_files(tmp_path / "long.wav")
    expect(
        page.get_by_test_id("stFileUploader").get_by_text("File must be 200.0MB or smaller")
    ).to_be_attached()
    expect(page.get_by_text("put them into the server's folder")).to_be_visible()
    expect(page.get_by_role("button", name="Transcribe")).to_have_count(0)


def test_two_models_side_by_side(visitor: Enter) -> None:
    """The workspace knows the sentence; branch main holds the tiny run, which has hardly learnt
    anything, and hears no words.
    """
    one = visitor()
    page = one.go("Transcribe")
    one.bring("fyra.wav", wav(speech(SENTENCES[1])))
    page.get_by_text("Compare with a second model").click()
    one.choose("Second model", "experiment: learnt")
    one.choose("Model", "branch: main")
    texts = one.transcribe()
    expect(page.get_by_text("No words were heard.")).to_be_visible()
    expect(page.get_by_role("heading", name="branch: main")).to_be_visible()
    expect(page.get_by_role("heading", name="experiment: learnt")).to_be_visible()
    assert texts == [SENTENCES[1]]


def test_a_corrected_text_is_kept_where_the_next_training_finds_it(
    visitor: Enter, server: Server, tmp_path: Path
) -> None:
    one = visitor()
    page = one.go("Transcribe")
    one.bring("noll.wav", wav(speech(SENTENCES[5])))
    one.transcribe()
    corrected = 'noll, "<b>noll</b>", 零'
    page.get_by_label(re.compile("^Text from")).fill(corrected)
    page.keyboard.press("Control+Enter")
    one.settle()
    page.get_by_text("Add to the training data").click()
    expect(page.get_by_text("Adds the segment you corrected.")).to_be_visible()
    page.get_by_label("Speaker").fill("Åsa, 7")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.get_by_text("Added 1 pair")).to_be_visible()
    corpus = folder.read(server.workspace.root / "recordings", tmp_path)
    (kept,) = [one for one in corpus.utterances if one.text == corrected]
    assert kept.speaker == "Åsa, 7"
    samples, rate = soundfile.read(io.BytesIO(kept.audio()), dtype="float32")
    said, spoken = soundfile.read(io.BytesIO(wav(speech(SENTENCES[5]))), dtype="float32")
    assert len(samples) / rate < len(said) / spoken  # without the silence at its ends
    energy, whole = np.square(samples).sum() / rate, np.square(said).sum() / spoken
    assert energy == pytest.approx(whole, rel=0.02), "a word is cut"
    assert np.abs(samples).max() == pytest.approx(np.abs(said).max(), rel=0.2)
