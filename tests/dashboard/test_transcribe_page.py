"""The page Transcribe with a real desk and a tiny model: what is brought, heard, corrected,
downloaded, kept; and what goes wrong.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from asr.decoding.segments import Segment
from asr.model import loader
from asr.sources import folder
from asr.transcribe import job_queue, models, visitors
from asr.transcribe.job_queue import Options
from asr.transcribe.visitors import Recording, Transcript
from asr.whisper import LANGUAGE_NAMES
from dashboard import session
from support.data import encoded, encoded_by_av
from support.imports import imported
from support.model import hub_folder, hush_timestamps, lock_model, scratch
from support.samples import say_evaluated, speech, stored, transcript
from support.waiting import wait_for

SHORT = speech(5.0, 3)
WAV = encoded(SHORT, subtype="FLOAT")
HOSTILE = (
    "<script>alert(1)</script> **fet** [x](http://evil.example) $x^2$ :red[r] "
    "../../etc/passwd \u202e.wav"
)


def script() -> None:
    from dashboard.transcribe import page as transcribe

    transcribe.page()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A repository with three models, and one desk over it for the whole file."""
    root = tmp_path_factory.mktemp("page")
    for number, name in enumerate(("models/finetuned", "models/kept/other"), 1):
        start = hush_timestamps(scratch(number, init_std=0.5))
        loader.save(start.model, start.tokenizer, root / name)
    hub_folder(root / "models/kept/english", multilingual=False)
    say_evaluated(root)
    for name in ("other", "untold"):
        say_evaluated(root, name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", str(root))
        session.transcription_queue.clear()
        yield SimpleNamespace(root=root, desk=session.transcription_queue())
        session.transcription_queue().worker.stop()
        session.transcription_queue.clear()


@pytest.fixture(autouse=True)
def its_root(place: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, own_root: None) -> None:  # noqa: ARG001
    monkeypatch.setenv("DVC_ROOT", str(place.root))


def enter(key: str = "", link: dict[str, Any] | None = None) -> AppTest:
    """A new tab of the browser that holds this key; of a new browser without one."""
    page = AppTest.from_function(script, default_timeout=120)
    page.session_state["visitor_key"] = key or secrets.token_hex(16)
    for name, value in (link or {}).items():
        page.query_params[name] = value
    return fine(page.run())


@pytest.fixture
def page() -> AppTest:
    return enter()


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[str, str]]:
    """What the download buttons would give: file name and content, by label."""
    given: dict[str, tuple[str, str]] = {}
    button = st.download_button

    def kept(label: str, content: str, name: str, *more: Any, **how: Any) -> bool:
        given[label] = (name, content)
        return button(label, content, name, *more, **how)

    monkeypatch.setattr(st, "download_button", kept)
    return given


def fine(page: AppTest) -> AppTest:
    assert not page.exception, page.exception
    return page


def bring(
    page: AppTest, content: bytes = WAV, name: str = "talk.wav", kind: str = "audio/wav"
) -> AppTest:
    page.file_uploader(key="file").set_value((name, content, kind))
    return fine(page.run())


def press(page: AppTest, key: str) -> AppTest:
    element(page, "button", key).click()
    return fine(page.run())


def key_of(page: AppTest) -> str:
    return str(page.session_state["visitor_key"])


def kept(page: AppTest) -> list[Transcript]:
    """What the visitor's folder has, newest first."""
    return visitors.visitor(key_of(page)).transcripts()


def ended(page: AppTest) -> AppTest:
    """The page after its jobs have ended; a browser would ask twice a second."""
    owner = visitors.visitor(key_of(page)).owner
    wait_for(lambda: not [job for job in session.transcription_queue().queue if job.owner == owner])
    return fine(fine(page.run()).run())


def element(page: AppTest, kind: str, key: str) -> Any:
    """The first element of a kind whose key begins so."""
    return next(one for one in page.get(kind) if (one.key or "").startswith(key))


def go(page: AppTest) -> AppTest:
    return ended(press(page, "go"))


def page_says(page: AppTest, text: str) -> bool:
    """Whether a popover of the page is labelled so."""
    labels = [str(getattr(block.proto, "popover", "")) for block in blocks(page.main)]
    return any(text in label.replace("\\", "") for label in labels)


def page_told(page: AppTest, text: str) -> bool:
    """Whether a caption of the page is this text."""
    return text in [caption.value.replace("\\", "") for caption in page.caption]


def blocks(block: Any) -> Iterator[Any]:
    """All containers in a container."""
    for child in getattr(block, "children", {}).values():
        yield child
        yield from blocks(child)


def texts(page: AppTest) -> list[str]:
    return [area.value for area in page.text_area]


def heard(root: Path, name: str, samples: np.ndarray, **asked: Any) -> list[str]:
    """What the model gives here, with the engine and the decoding that it was evaluated with."""
    return transcript(models.resolve(name), stored(root, samples), **asked)


def test_a_recording_is_heard_as_evaluation_hears_it(
    page: AppTest, place: SimpleNamespace, tmp_path: Path
) -> None:
    assert not page.text_area
    go(bring(page))
    assert texts(page) == heard(tmp_path, "workspace", SHORT)
    assert len(texts(page)) >= 3
    assert page_says(page, "set: Swedish")
    assert page_told(page, "greedy, OpenVINO in fp32 · 10.9 % WER in its test")
    assert place.desk.queue == []


@pytest.mark.parametrize("samples", [np.zeros(32_000, np.float32), np.full(800, 0.1, np.float32)])
def test_a_recording_without_words_is_said_to_have_none(page: AppTest, samples: np.ndarray) -> None:
    go(bring(page, encoded(samples)))
    assert [info.value for info in page.info] == ["No words were heard."]
    assert not page.text_area
    go(bring(page))
    assert not page.info
    assert page.text_area


def test_what_was_corrected_is_what_is_downloaded_and_kept(
    page: AppTest, place: SimpleNamespace, downloads: dict[str, Any], tmp_path: Path
) -> None:
    go(bring(page, name=HOSTILE))
    before = texts(page)
    page.text_area[0].set_value('rättat, "så"\n--> här')
    fine(page.run())
    assert texts(page)[1:] == before[1:]
    found = {name.lower(): content for name, (_, content) in downloads.items()}
    assert set(found) == {"txt", "srt", "vtt", "json", "csv"}
    assert [one["text"] for one in json.loads(found["json"])["segments"]] == [
        'rättat, "så"\n--> här',
        *before[1:],
    ]
    assert found["txt"].splitlines()[0] == 'rättat, "så" --> här'
    assert "00:00:00," in found["srt"]
    assert "--&gt; här" in found["vtt"]
    for name, (file, _) in downloads.items():
        assert file.endswith(f".{name.lower()}")
        assert not set(file) & set("/\\<>:*?\u202e\n")
    element(page, "text_input", "who-").set_value("ann")
    press(page, "save-")
    assert page.success
    corpus = folder.read(place.root / "recordings", tmp_path)
    assert [(row.text, row.speaker) for row in corpus.utterances] == [
        ('rättat, "så" --> här', "ann")
    ]


def test_two_models_hear_the_same_sound_side_by_side(page: AppTest, tmp_path: Path) -> None:
    bring(page)
    page.toggle(key="two").set_value(True)
    fine(page.run())
    page.selectbox(key="second").set_value("kept: other")
    fine(page.run())
    go(page)
    ours, theirs = (heard(tmp_path, name, SHORT) for name in ("workspace", "models/kept/other"))
    assert sorted(texts(page)) == sorted([*ours, *theirs])
    assert ours != theirs
    assert [one.value.replace("\\", "").partition(",")[0] for one in page.subheader] == [
        "workspace",
        "kept: other",
    ]


def test_a_language_and_a_task_are_asked_for_and_not_remembered(
    page: AppTest, tmp_path: Path
) -> None:
    bring(page)
    page.selectbox(key="language").set_value("de")
    page.segmented_control(key="task").set_value("translate")
    fine(page.run())
    assert texts(go(page)) == heard(tmp_path, "workspace", SHORT, language="de", task="translate")
    page.selectbox(key="language").set_value("automatic")
    page.segmented_control(key="task").set_value("transcribe")
    fine(page.run())
    assert texts(go(page)) == heard(tmp_path, "workspace", SHORT)
    assert [(entry.language, entry.language_source) for entry in kept(page)] == [
        ("sv", "own"),
        ("de", "set"),
    ]


def test_the_part_that_was_chosen_is_what_is_heard(page: AppTest) -> None:
    bring(page)
    page.slider[0].set_range(1.0, 3.0)
    fine(page.run())
    go(page)
    found = kept(page)[0].segments
    assert found[0].start >= 1.0
    assert found[-1].end <= 3.0
    assert found[-1].end - found[0].start > 1.5
    assert not page.warning


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("video/mp4", encoded_by_av(SHORT, 16_000, "mp4", "aac")),
        ("video/webm", encoded_by_av(speech(5.0), 48_000, "webm", "libopus")),
        ("audio/flac", encoded(SHORT, format="FLAC")),
    ],
)
def test_video_and_packed_sound_can_be_brought(page: AppTest, kind: str, content: bytes) -> None:
    bring(page, content, f"film.{kind.rpartition('/')[2]}", kind)
    assert not page.button(key="go").disabled


@pytest.mark.parametrize(
    "content",
    [b"", b"no sound", WAV[:1000], b"<html></html>"],
    ids=["empty", "text", "cut", "page"],
)
def test_what_is_no_sound_is_one_line(
    page: AppTest, place: SimpleNamespace, content: bytes
) -> None:
    bring(page, content)
    assert len(page.warning) == 1
    assert str(place.root) not in page.warning[0].value
    assert not [one for one in page.button if one.key == "go"]
    bring(page)  # and then something else
    assert not page.warning
    assert [one for one in page.button if one.key == "go"]


def test_the_microphone_is_heard(page: AppTest, tmp_path: Path) -> None:
    page.segmented_control(key="way").set_value("Microphone")
    fine(page.run())
    page.audio_input(key="microphone").set_value(("audio.wav", WAV, "audio/wav"))
    fine(page.run())
    assert texts(go(page)) == heard(tmp_path, "workspace", SHORT)


def test_a_recording_on_the_server_is_chosen_from_its_folder_alone(
    page: AppTest, place: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shared, outside = tmp_path / "shared", tmp_path / "secret.wav"
    (shared / "deep").mkdir(parents=True)
    outside.write_bytes(WAV)
    for name in (
        "a.wav",
        "deep/b.flac",
        HOSTILE.replace("/", ":"),
        "notes.txt",
        os.fsdecode(b"\xff.wav"),
    ):
        (shared / name).write_bytes(WAV)
    (shared / "link.wav").symlink_to(outside)
    (shared / "gone.wav").symlink_to(shared / "nothing.wav")
    monkeypatch.setenv("EARSHOT_RECORDINGS", str(shared))
    page.segmented_control(key="way").set_value("On the server")
    fine(page.run())
    offered = page.selectbox(key="listed").options
    assert {"a.wav", "deep/b.flac", HOSTILE.replace("/", ":")} <= set(offered)
    assert not {"link.wav", "gone.wav", "notes.txt"} & set(offered)
    page.selectbox(key="listed").set_value("deep/b.flac")
    fine(page.run())
    assert len(texts(go(page))) >= 3
    assert place.root in place.desk.folder.parents


@pytest.mark.parametrize(
    ("choose", "says"),
    [
        (
            lambda page: (
                page.selectbox(key="model").set_value("kept: english")
                and page.selectbox(key="language").set_value("de")
            ),
            "English only",
        ),
        (lambda page: page.selectbox(key="model").set_value("kept: broken"), "broken"),
    ],
    ids=["English only", "broken"],
)
def test_what_a_model_cannot_do_is_one_line(
    place: SimpleNamespace, choose: Callable[[AppTest], Any], says: str
) -> None:
    (place.root / "models/kept/broken").mkdir(exist_ok=True)
    page = bring(enter())
    choose(page)
    fine(page.run())
    go(page)
    assert len(page.error) == 1
    assert says in page.error[0].value.replace("\\", "")
    assert str(place.root) not in page.error[0].value
    assert not page.text_area


@pytest.mark.parametrize(
    "name",
    ["nothing", "a/b/c", "../secret", "/etc/passwd", "models/kept", "data/../x", "./x", "a b/c"],
)
def test_a_hub_id_that_is_typed_is_no_path(page: AppTest, name: str) -> None:
    bring(page)
    page.selectbox(key="model").set_value("a model from the hub …")
    fine(page.run())
    assert page.button(key="go").disabled
    page.text_input(key="model-hub").set_value(name)
    fine(page.run())
    assert page.button(key="go").disabled
    assert page.warning
    page.text_input(key="model-hub").set_value("openai/whisper-tiny")
    assert not fine(page.run()).button(key="go").disabled


def test_a_job_can_be_cancelled_and_the_page_is_free_again(page: AppTest) -> None:
    bring(page, encoded(np.tile(speech(60.0), 15)))
    press(page, "go")
    assert page.button(key="go").disabled
    if [one for one in page.button if (one.key or "").startswith("cancel-")]:
        press(page, "cancel-")
    ended(page)
    assert kept(page)[0].state in ("cancelled", "done")
    assert not page.button(key="go").disabled


def test_a_sound_that_was_swept_away_is_brought_again(
    page: AppTest, place: SimpleNamespace
) -> None:
    go(bring(page))
    before = texts(page)
    for path in place.desk.folder.rglob("*.f32"):
        path.unlink()
    fine(page.run())
    assert texts(page) == before
    press(page, "play-")
    assert len(page.get("audio")) == 3


def test_no_model_yet_says_what_to_do(page: AppTest, place: SimpleNamespace) -> None:
    (place.root / "models/finetuned").rename(place.root / "models/away")
    try:
        bring(page)
    finally:
        (place.root / "models/away").rename(place.root / "models/finetuned")
    assert "No model has been trained here yet; run dvc repro" in page.info[0].value
    assert page.button(key="go").disabled
    assert not fine(page.run()).button(key="go").disabled


def test_the_page_imports_no_torch() -> None:
    recording = Path(os.environ["DVC_ROOT"]) / "a.wav"
    recording.write_bytes(WAV)
    code = f"""
from streamlit.testing.v1 import AppTest
script = "from dashboard.transcribe.page import page; page()"
page = AppTest.from_string(script, default_timeout=120)
page.session_state["visitor_key"] = "0" * 32
page.run()
assert not page.exception
content = open({str(recording)!r}, "rb").read()
page.file_uploader(key="file").set_value(("a.wav", content, "audio/wav"))
assert page.run().button(key="go")
"""
    assert imported(code, "torch", "transformers", "mlflow", "evaluate") == []


def test_a_correction_stays_while_other_segments_are_looked_at(
    page: AppTest, downloads: dict[str, tuple[str, str]]
) -> None:
    go(bring(page, encoded(speech(60.0))))
    before = texts(page)
    page.text_area[0].set_value("rättat")
    fine(page.run())
    element(page, "number_input", "page-").set_value(2)
    fine(page.run())
    assert texts(page) != before
    element(page, "number_input", "page-").set_value(1)
    fine(page.run())
    assert texts(page) == ["rättat", *before[1:]]
    assert downloads["TXT"][1].startswith("rättat\n")


def restart(place: SimpleNamespace) -> None:
    """What a restart of the server leaves: no queue and no samples."""
    worker = place.desk.worker  # that one starts anew is another test's matter
    session.transcription_queue.clear()
    place.desk = session.transcription_queue()
    place.desk.worker = worker


@pytest.mark.parametrize("event", ["a reload", "another tab", "a restart", "another file"])
def test_sound_text_and_corrections_survive(
    page: AppTest, place: SimpleNamespace, event: str
) -> None:
    go(bring(page))
    wanted = ["rättat", *texts(page)[1:]]
    page.text_area[0].set_value("rättat")
    fine(page.run())
    if event == "a restart":
        restart(place)
    if event == "another file":
        bring(page, encoded(speech(2.0, 9)), "other.wav")
    else:
        page = enter(key_of(page))
    assert texts(page) == wanted
    assert [text.value for text in page.text] == (
        ["other.wav" if event == "another file" else "talk.wav", "talk.wav", DELETED]
    )
    press(page, "play-")
    assert len(page.get("audio")) == 3  # of the recording above, of the transcript, of the segment
    go(page)
    assert [(len(visitors.visitor(key_of(page)).corrections(one))) for one in kept(page)] == [0, 1]
    assert page.get("audio_input") == page.warning == page.error == []


DELETED = "Recordings, transcripts, corrections, and the conversation of Talk."


def test_a_job_goes_on_without_its_page_and_its_result_is_there(page: AppTest) -> None:
    bring(page, encoded(speech(60.0)))
    press(page, "go")
    key = key_of(page)
    del page
    back = ended(enter(key))
    assert kept(back)[0].state == "done"
    assert len(texts(back)) == 20  # of more, on its first page
    assert "times real time" in back.selectbox(key="open").options[0]


def test_a_result_comes_to_an_open_page_whatever_is_open_there(page: AppTest) -> None:
    go(bring(page))
    first = page.session_state["open"]
    press(page, "go")
    page.selectbox(key="open").set_value(first)
    fine(page.run())
    assert page.button(key="go").disabled or len(kept(page)) == 2
    ended(page)
    assert page.session_state["open"] == first
    assert not page.button(key="go").disabled


def test_transcribing_again_covers_no_correction(page: AppTest) -> None:
    go(bring(page))
    heard_first = texts(page)
    page.text_area[0].set_value("rättat")
    fine(page.run())
    first = page.session_state["open"]
    go(page)
    assert texts(page) == heard_first
    assert len(page.selectbox(key="open").options) == 2
    page.selectbox(key="open").set_value(first)
    assert texts(fine(page.run())) == ["rättat", *heard_first[1:]]


def test_two_tabs_correct_one_transcript_and_show_what_the_other_did(page: AppTest) -> None:
    go(bring(page))
    other = enter(key_of(page))
    page.text_area[0].set_value("from one")
    fine(page.run())
    other.text_area[1].set_value("from the other")
    fine(other.run())
    for tab in (other, fine(page.run())):
        assert texts(tab)[:2] == ["from one", "from the other"]


def test_another_browser_sees_nothing_and_the_address_tells_nothing(page: AppTest) -> None:
    go(bring(page, name="secret.wav"))
    page.text_area[0].set_value("secret words")
    page.selectbox(key="model").set_value("kept: other")
    fine(page.run())
    told = str(dict(page.query_params))
    assert "kept: other" in told
    assert not [word for word in ("secret", key_of(page), kept(page)[0].id) if word in told]
    stranger = enter()
    assert not stranger.text_area
    assert not [box for box in stranger.selectbox if box.key == "open"]
    assert "secret" not in str([stranger.text, stranger.selectbox, stranger.button])


@pytest.mark.parametrize("way", ["here", "in another tab", "while a job runs"])
def test_one_button_deletes_everything(page: AppTest, place: SimpleNamespace, way: str) -> None:
    go(bring(page))
    if way == "while a job runs":
        bring(page, encoded(np.tile(speech(60.0), 5)), "long.wav")
        press(page, "go")
    tab = enter(key_of(page)) if way == "in another tab" else page
    me = visitors.visitor(key_of(page))
    assert me.folder.is_dir()
    press(tab, "delete-everything")
    wait_for(lambda: not [job for job in place.desk.queue if job.owner == me.owner])
    for each in (tab, fine(page.run()), enter(key_of(page))):
        assert texts(each) == []
        assert not [box for box in each.selectbox if box.key == "open"]
    assert not me.folder.exists()
    assert me.recordings() == me.transcripts() == []


def test_the_page_says_how_long_things_stay_and_from_when_on(page: AppTest) -> None:
    def says(text: str) -> bool:
        return any(text in caption.value for caption in page.caption)

    assert says("until 7 days after its last use")
    assert not says("kept once you leave its field")
    go(bring(page))
    assert says("kept once you leave its field")


def test_text_model_language_and_file_stay_together_whatever_is_chosen_above(
    page: AppTest, tmp_path: Path
) -> None:
    bring(page, name="first.wav")
    press(page, "go")
    bring(page, encoded(speech(2.0, 9)), "second.wav")
    page.selectbox(key="model").set_value("kept: other")
    page.selectbox(key="language").set_value("de")
    ended(page)
    assert [text.value for text in page.text][:2] == ["second.wav", "first.wav"]
    assert texts(page) == heard(tmp_path, "workspace", SHORT)
    assert page.subheader[0].value.startswith("workspace, weights ")
    assert page_says(page, "set: Swedish, by the model")
    first = page.session_state["open"]
    go(page)
    assert [text.value for text in page.text][:2] == ["second.wav", "second.wav"]
    assert page.subheader[0].value.replace("\\", "").startswith("kept: other, weights ")
    assert page_says(page, "set: German")
    page.selectbox(key="open").set_value(first)
    fine(page.run())
    assert [text.value for text in page.text][:2] == ["second.wav", "first.wav"]
    assert texts(page) == heard(tmp_path, "workspace", SHORT)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("workspace", "workspace, weights "),
        ("trained", "workspace, training 7d93b370"),
        ("trained anew", "workspace, weights "),
        ("kept: other", "kept: other, weights "),
    ],
)
def test_every_transcript_says_which_model_made_it_also_when_the_name_means_another_now(
    page: AppTest, place: SimpleNamespace, model: str, says: str
) -> None:
    if model == "trained":
        lock_model(place.root, "7d93b370aaaa")
        worker_sees_a_new_model(place)
    bring(page)
    if model.startswith("kept"):
        page.selectbox(key="model").set_value(model)
    go(page)
    (place.root / "dvc.lock").unlink(missing_ok=True)
    said = page.subheader[0].value.replace("\\", "")
    assert said.startswith(says)
    worker_sees_a_new_model(place)
    if model == "trained anew":
        start = hush_timestamps(scratch(7, init_std=0.5))
        shutil.rmtree(place.root / "models/finetuned")
        loader.save(start.model, start.tokenizer, place.root / "models/finetuned")
        go(page)
        assert page.subheader[0].value.replace("\\", "") != said
        start = hush_timestamps(scratch(1, init_std=0.5))
        loader.save(start.model, start.tokenizer, place.root / "models/finetuned")
        page.selectbox(key="open").set_value(kept(page)[1].request)
    fine(page.run())
    assert page.subheader[0].value.replace("\\", "") == said


def worker_sees_a_new_model(place: SimpleNamespace) -> None:
    for path in (place.root / "models/finetuned").glob("*.safetensors"):
        os.utime(path)


def test_a_detected_language_is_told_and_can_be_changed_with_a_click(
    page: AppTest, place: SimpleNamespace
) -> None:
    start = hush_timestamps(scratch(4, init_std=0.5))
    loader.save(start.model, start.tokenizer, place.root / "models/kept/untold")
    settings = place.root / "models/kept/untold/generation_config.json"
    told_none = {**json.loads(settings.read_text()), "language": None}
    settings.write_text(json.dumps(told_none))
    fine(page.run())
    bring(page)
    page.selectbox(key="model").set_value("kept: untold")
    go(page)
    (entry,) = kept(page)
    assert entry.language_source == "detected"
    assert page_says(page, f"detected: {LANGUAGE_NAMES[str(entry.language)]}")
    element(page, "selectbox", "other-").set_value("fa")
    press(page, "again-")
    ended(page)
    assert [(one.language, one.language_source) for one in kept(page)] == [
        ("fa", "set"),
        (entry.language, "detected"),
    ]
    assert page_says(page, "set: Persian")


def made_by_hand(key: str, *heard_texts: str, state: str = "done") -> None:
    """Put a transcript with these texts into a visitor's folder."""
    me = visitors.visitor(key)
    recording = Recording("ab" * 16, "loops.wav")
    me.keep_recording(recording, WAV)
    segments = tuple(Segment(n / 2, n / 2 + 0.5, text) for n, text in enumerate(heard_texts))
    me.add_transcript(
        Transcript(
            *("1-0", "1", recording, "workspace", Options(), 0.0, 5.0, 1e9),
            state=state,
            segments=segments,
        )
    )


@pytest.mark.parametrize(
    ("heard_texts", "count"),
    [
        (["از " * 30, "hej"], 1),
        (["8 1 7 6 " * 12, "no " * 20], 2),
        (["ha" * 60], 1),
        (["no no no", "one one one one two", "ett två tre fyra fem sex"], 0),
    ],
)
def test_loops_do_not_pass_for_speech(heard_texts: list[str], count: int) -> None:
    key = secrets.token_hex(16)
    made_by_hand(key, *heard_texts)
    page = enter(key)
    marks = [mark for mark in page.markdown if "a loop" in mark.value]
    assert len(marks) == count
    warnings = [warning.value for warning in page.warning]
    assert [warning.split()[0] for warning in warnings] == ([str(count)] if count else [])
    page.text_area[0].set_value("hej")
    assert len([m for m in fine(page.run()).markdown if "a loop" in m.value]) == max(count - 1, 0)


@pytest.mark.parametrize(
    ("corrected", "take_all", "says", "saved"),
    [
        ({}, False, "Nothing to add: you corrected no segment yet.", []),
        ({0: "ein"}, False, "Adds the segment you corrected.", ["ein"]),
        ({0: "ein", 2: "drei"}, False, "Adds the 2 segments you corrected.", ["ein", "drei"]),
        ({0: "ett"}, False, "Nothing to add: you corrected no segment yet.", []),
        ({1: ""}, False, "Nothing to add.", []),
        ({}, True, "Adds all 3 segments.", ["ett", "två", "tre"]),
        ({0: "ein", 1: ""}, True, "Adds all 2 segments.", ["ein", "tre"]),
    ],
)
def test_what_nobody_corrected_is_not_kept_for_training_unless_it_is_asked_for(
    place: SimpleNamespace,
    tmp_path: Path,
    corrected: dict[int, str],
    take_all: bool,
    says: str,
    saved: list[str],
) -> None:
    shutil.rmtree(place.root / "recordings", ignore_errors=True)
    key = secrets.token_hex(16)
    made_by_hand(key, "ett", "två", "tre")
    page = enter(key)
    for number, text in corrected.items():
        page.text_area[number].set_value(text)
    if take_all:
        element(page, "toggle", "all-").set_value(True)
    fine(page.run())
    assert says in [caption.value for caption in page.caption]
    assert element(page, "button", "save-").disabled == (not saved)
    if saved:
        press(page, "save-")
        corpus = folder.read(place.root / "recordings", tmp_path)
        assert sorted(row.text for row in corpus.utterances) == sorted(saved)
    else:
        assert not (place.root / "recordings").exists()


@pytest.mark.parametrize("state", ["running", "waiting"])
def test_what_a_stopped_server_had_heard_is_there_and_not_called_whole(state: str) -> None:
    key = secrets.token_hex(16)
    made_by_hand(key, "ett", "två", state=state)
    page = enter(key)
    assert texts(page) == ["ett", "två"]
    assert "The server stopped before the end" in page.info[0].value
    assert page.info[0].value.endswith("up to 0:01.0 of 0:05.0.")


@pytest.mark.parametrize("state", ["running", "waiting", "cancelled", "failed"])
@pytest.mark.parametrize(("button", "start"), [("rest-", 1.0), ("anew-", 0.0)])
def test_what_broke_off_goes_on_with_one_click_or_begins_anew(
    state: str, button: str, start: float
) -> None:
    key = secrets.token_hex(16)
    made_by_hand(key, "ett", "två", state=state)
    page = ended(press(enter(key), button))
    old, new = kept(page)  # by name; the old one's is "1"
    assert (new.state, new.segments[0].start, new.segments[-1].end) == ("done", start, 5.0)
    assert (old.state, [segment.text for segment in old.segments]) == (state, ["ett", "två"])


def test_what_nothing_was_heard_of_has_no_rest() -> None:
    key = secrets.token_hex(16)
    made_by_hand(key, state="running")
    page = enter(key)
    assert page.info[0].value.endswith("nothing was heard until then.")
    assert [one.label for one in page.button if (one.key or "").startswith(("rest-", "anew-"))] == [
        "Transcribe all again"
    ]


def test_no_text_is_shown_that_a_killed_server_would_take_with_it(
    page: AppTest, place: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_queue, "KEEP_SECONDS", 1e9)  # the first text is kept, and no other
    bring(page, encoded(np.tile(speech(60.0), 5)))
    press(page, "go")
    job = place.desk.find(kept(page)[0].id)
    wait_for(lambda: len(job.segments) > 3)
    fine(page.run())
    assert not job.ended
    (heard,) = kept(page)[0].segments
    assert shown(page) == [f"0:00.0  {heard.text}"]
    job.cancel()
    ended(page)
    assert len(kept(page)[0].segments) > 3, "the control: more was heard"


def shown(page: AppTest) -> list[str]:
    """What a page shows of a transcription that goes on."""
    lines = [line for text in page.text for line in text.value.splitlines()]
    return [line for line in lines if line.startswith("0:")]


def test_a_link_shows_the_same_models_language_task_and_file_in_another_browser(
    page: AppTest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "a.wav").write_bytes(WAV)
    monkeypatch.setenv("EARSHOT_RECORDINGS", str(tmp_path))
    choose = {"model": "kept: other", "second": "kept: english", "language": "fa"}
    page.segmented_control(key="way").set_value("On the server")
    fine(page.run())
    page.selectbox(key="listed").set_value("a.wav")
    fine(page.run())
    page.toggle(key="two").set_value(True)
    fine(page.run())
    for name, value in choose.items():
        page.selectbox(key=name).set_value(value)
    page.segmented_control(key="task").set_value("translate")
    fine(page.run())
    link = dict(page.query_params)
    other = enter(link=link)
    assert {name: other.selectbox(key=name).value for name in choose} == choose
    assert other.segmented_control(key="task").value == "translate"
    assert other.selectbox(key="listed").value == other.text[0].value == "a.wav"


@pytest.mark.parametrize(
    ("link", "says"),
    [
        ({"model": "experiment: gone"}, "is not here"),
        ({"way": "On the server", "listed": "../../etc/passwd"}, "not in the server's folder"),
        ({"language": "xx", "task": "sing", "way": "Nowhere", "two": "maybe"}, ""),
        ({"model": "a model from the hub …", "model-hub": "../x"}, "owner/name"),
    ],
)
def test_a_link_to_what_is_not_here_says_so(
    link: dict[str, str], says: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "a.wav").write_bytes(WAV)
    monkeypatch.setenv("EARSHOT_RECORDINGS", str(tmp_path))
    key = secrets.token_hex(16)
    made_by_hand(key, "ett")
    page = enter(key, link)
    warnings = [warning.value.replace("\\", "") for warning in page.warning]
    assert [says in warning for warning in warnings] == ([True] if says else [])
    assert says or not page.button(key="go").disabled


def test_a_file_of_the_server_that_was_written_anew_is_not_passed_off_as_the_old_one(
    page: AppTest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "a.wav").write_bytes(WAV)
    monkeypatch.setenv("EARSHOT_RECORDINGS", str(tmp_path))
    page.segmented_control(key="way").set_value("On the server")
    fine(page.run())
    page.selectbox(key="listed").set_value("a.wav")
    before = texts(go(fine(page.run())))
    (tmp_path / "a.wav").write_bytes(encoded(speech(2.0, 9)))
    os.utime(tmp_path / "a.wav", (1e9, 1e9))
    back = enter(key_of(page))
    assert texts(back) == before
    assert "a.wav is no longer here" in back.warning[0].value.replace("\\", "")
    assert not back.get("audio")
