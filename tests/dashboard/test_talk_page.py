"""The page Talk with a real server of a language model, real speech, and a desk that hears what a
test says was said.
"""

from __future__ import annotations

import io
import json
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from streamlit.testing.v1 import AppTest

from asr.audio.sample_file import SampleFile
from asr.decoding.segments import Segment
from asr.errors import DataError
from asr.transcribe.job_queue import Job, Options
from dashboard.talk import recorder
from dashboard.talk.conversation import prompt
from support.chat_server import ChatServer, serving
from support.repository import SHIPPED
from support.waiting import wait_for

HOSTILE = [
    "<script>document.title='x'</script>", "<img src=http://evil.example/x.png onerror=alert(1)>",
    "![x](http://evil.example/x.png)",
    "[click](javascript:alert(1))", "$\\href{http://evil.example}{x}$", ":red[x] :material/delete:",
    "# heading\n---\n| a | b |",
    "\u202etxt.exe", "</span><style>*{display:none}</style>", "`code` ~~~\nx\n~~~",
    "a\0b", "\ud83d",
]  # fmt: skip


def script() -> None:
    from dashboard.talk import page as talk

    talk.page()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    for name in (
        "OPENAI_MODEL",
        "OPENAI_API_KEY",
        "http_proxy",
        "HTTP_PROXY",
        "all_proxy",
        "ALL_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)
    with serving() as one:
        monkeypatch.setenv("OPENAI_BASE_URL", one.address)
        yield one


@pytest.fixture(autouse=True)
def a_model(tmp_path: Path) -> None:
    (tmp_path / "models/finetuned").mkdir(parents=True)


@pytest.fixture
def page(server: ChatServer) -> AppTest:
    assert server.address
    return shown()


def shown(key: str = "") -> AppTest:
    """A new tab of the browser that holds this key; of a new browser without one."""
    page = AppTest.from_function(script, default_timeout=120)
    page.session_state["visitor_key"] = key or secrets.token_hex(16)
    return fine(page.run())


def fine(page: AppTest) -> AppTest:
    assert not page.exception
    return page


def write(page: AppTest, text: str) -> AppTest:
    return fine(page.chat_input[0].set_value(text).run())


def conversation(page: AppTest) -> list[tuple[str, str]]:
    return [(one.name, text.value) for one in page.chat_message for text in one.text]


def wav() -> tuple[str, bytes, str]:
    file = io.BytesIO()
    soundfile.write(file, np.zeros(16_000, np.float32), 16_000, format="WAV")
    return "recording.wav", file.getvalue(), "audio/wav"


@pytest.fixture
def hearing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Job]:
    """What the desk gives back when something is recorded."""

    def hear(text: str, state: str = "done", fault: str | None = None) -> Job:
        samples = tmp_path / "1.f32"
        samples.write_bytes(bytes(64_000))
        job = Job(
            "me",
            SampleFile(samples),
            Options(),
            0.0,
            1.0,
            state=state,
            fault=fault,
            segments=[Segment(0, 1, text)],
        )
        monkeypatch.setattr(recorder, "transcribe", lambda *_: job)
        return job

    return hear


def test_without_an_address_it_says_which_variables_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    page = shown()
    assert not page.chat_input
    said = " ".join(one.value for one in (*page.info, *page.code, *page.caption)).replace("\\", "")
    for wanted in (
        "OPENAI_BASE_URL=http://127.0.0.1:11434/v1",
        "ollama pull",
        "llama-server",
        "OPENAI_MODEL",
        "OPENAI_API_KEY",
    ):
        assert wanted in said
    monkeypatch.setenv("OPENAI_BASE_URL", "nonsense")
    page = shown()
    assert "want an address" in page.warning[0].value
    assert not page.chat_input


def test_a_written_message_is_answered_and_spoken(page: AppTest, server: ChatServer) -> None:
    write(page, "Hej du")
    assert conversation(page) == [("user", "Hej du"), ("assistant", "".join(server.words))]
    said = page.session_state["talk"].answer_sound
    assert soundfile.info(io.BytesIO(said)).duration > 0.5
    assert page.get("audio")
    (asked,) = [body for path, _, body in server.asked if path.endswith("completions")]
    assert [message["role"] for message in asked["messages"]] == ["system", "user"]
    assert "English" in asked["messages"][0]["content"]
    write(page, "Och du?")
    assert [one[0] for one in conversation(page)] == ["user", "assistant", "user", "assistant"]
    assert [message["role"] for message in server.asked[-1][2]["messages"]] == [
        "system",
        "user",
        "assistant",
        "user",
    ]


def test_muted_nothing_is_spoken(page: AppTest) -> None:
    fine(page.toggle[0].set_value(False).run())
    write(page, "Hej")
    assert page.session_state["talk"].answer_sound is None
    assert not page.get("audio")


def test_the_language_is_that_of_the_workspace_and_can_be_chosen(
    server: ChatServer, tmp_path: Path
) -> None:
    (tmp_path / "params.yaml").write_text(SHIPPED.read_text())
    page = shown()
    assert page.selectbox[0].value == "sv"
    fine(page.selectbox[0].set_value("de").run())
    write(page, "Hallo")
    assert "German" in server.asked[-1][2]["messages"][0]["content"]


def test_hostile_answers_are_shown_as_text(page: AppTest, server: ChatServer) -> None:
    fine(page.toggle[0].set_value(False).run())
    server.words = [f"{one}\n" for one in HOSTILE]
    write(page, "".join(HOSTILE[:-1]))
    wanted = "".join(server.words).replace("\ud83d", "?").rstrip()
    assert conversation(page) == [("user", "".join(HOSTILE[:-1])), ("assistant", wanted)]
    others = [
        one.value
        for kind in ("markdown", "caption", "info", "warning", "error", "code")
        for one in page.get(kind)
    ]
    assert not any("evil" in value or "script" in value for value in others)
    assert not page.get("html")


def test_a_fault_is_one_line_and_one_can_ask_again(page: AppTest, server: ChatServer) -> None:
    server.fault = "broken"
    write(page, "Hej")
    assert conversation(page) == [("user", "Hej")]
    assert "answered 500" in page.warning[0].value
    server.fault = "good"
    fine(page.button(key="talk_again").click().run())
    assert conversation(page)[-1] == ("assistant", "".join(server.words))
    assert not page.warning


def test_half_an_answer_is_kept_with_what_went_wrong(page: AppTest, server: ChatServer) -> None:
    server.fault = "cut"
    write(page, "Hej")
    assert conversation(page)[-1] == ("assistant", "half")
    assert "broke off" in page.warning[0].value


def test_clear_forgets_everything(page: AppTest) -> None:
    assert page.button(key="talk_clear").disabled
    write(page, "Hej")
    fine(page.button(key="talk_clear").click().run())
    assert conversation(page) == []
    assert page.session_state["talk"].answer_sound is None
    assert not page.get("audio")


def test_what_was_said_is_seen_corrected_and_sent(
    page: AppTest, server: ChatServer, hearing: Callable[..., Job]
) -> None:
    hearing("hej dår")
    fine(page.audio_input[0].set_value(wav()).run())
    assert page.text_area[0].value == "hej dår"
    assert page_says_when_it_is_kept(page)
    assert conversation(page) == []
    page.text_area[0].set_value("Hej där")
    fine(next(button for button in page.button if button.label == "Send").click().run())
    assert conversation(page)[0] == ("user", "Hej där")
    assert server.asked[-1][2]["messages"][-1] == {"role": "user", "content": "Hej där"}
    assert page.audio_input[0].value is None
    assert not page.text_area
    assert not page_says_when_it_is_kept(page)


def page_says_when_it_is_kept(page: AppTest) -> bool:
    """Whether it warns that a reload loses what is not sent."""
    return any("kept once you send it" in caption.value for caption in page.caption)


def test_what_was_said_can_be_thrown_away(
    page: AppTest, server: ChatServer, hearing: Callable[..., Job]
) -> None:
    hearing("hej")
    fine(page.audio_input[0].set_value(wav()).run())
    fine(next(button for button in page.button if button.label == "Discard").click().run())
    assert conversation(page) == []
    assert page.audio_input[0].value is None
    assert server.asked == []


def test_while_it_waits_and_when_it_is_cancelled(
    page: AppTest, hearing: Callable[..., Job]
) -> None:
    job = hearing("", state="running")
    fine(page.audio_input[0].set_value(wav()).run())
    assert not page.text_area
    fine(page.button(key="talk_cancel").click().run())
    assert job.cancelled.is_set()
    job.state = "cancelled"
    fine(page.run())
    assert "Cancelled" in page.info[0].value


def test_nothing_heard_and_a_transcription_that_failed(
    page: AppTest, hearing: Callable[..., Job]
) -> None:
    hearing(" ")
    fine(page.audio_input[0].set_value(wav()).run())
    assert "No words" in page.info[0].value
    hearing("", state="failed", fault="no [model](http://evil.example)")
    fine(page.audio_input[0].set_value(wav()).run())
    assert "\\[model\\]" in page.warning[0].value


def test_a_recording_that_cannot_be_read(page: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[bytes] = []

    def refuse(_: str, sound: bytes) -> Job:
        tried.append(sound)
        raise DataError("no sound in it")

    monkeypatch.setattr(recorder, "transcribe", refuse)
    fine(page.audio_input[0].set_value(wav()).run())
    assert page.warning[0].value == "no sound in it"
    fine(page.run())
    assert len(tried) == 1


def test_speech_that_fails_leaves_the_answer(page: AppTest, server: ChatServer) -> None:
    server.words = ["…", "🙂"]
    write(page, "Hej")
    assert conversation(page)[-1] == ("assistant", "…🙂")
    assert "nothing in it that can be said" in page.warning[0].value


@pytest.mark.usefixtures("server")
def test_another_browser_sees_nothing_of_a_conversation() -> None:
    one, other = shown(), shown()
    write(one, "mine")
    assert conversation(fine(other.run())) == []


def test_a_conversation_survives_a_reload_and_is_shared_by_the_tabs_of_a_browser(
    page: AppTest, server: ChatServer
) -> None:
    write(page, "mine")
    answer = "".join(server.words)
    said = [("user", "mine"), ("assistant", answer)]
    other = shown(page.session_state["visitor_key"])
    assert conversation(other) == said
    write(other, "more")
    write(page, "and more")
    both = [*said, ("user", "more"), ("assistant", answer), ("user", "and more")]
    assert conversation(fine(other.run())) == [*both, ("assistant", answer)]
    assert len(server.asked[-1][2]["messages"]) == 1 + len(both)


def test_everything_can_be_deleted_from_this_page_too(page: AppTest) -> None:
    write(page, "mine")
    fine(page.button(key="delete-everything").click().run())
    assert conversation(page) == []
    assert conversation(shown(page.session_state["visitor_key"])) == []


@pytest.mark.parametrize("is_training", [False, True])
def test_no_other_model_is_advised_where_none_can_be_chosen(
    page: AppTest, tmp_path: Path, is_training: bool
) -> None:
    (tmp_path / "models/finetuned").rmdir()
    if is_training:
        locks = {"write": {str(tmp_path / "models/finetuned"): {"pid": os.getpid()}}}
        (tmp_path / ".dvc/tmp").mkdir(parents=True)
        (tmp_path / ".dvc/tmp/rwlock").write_text(json.dumps(locks))
    fine(page.run())
    assert not page.get("audio_input")
    said = page.info[0].value.replace("\\", "")
    assert said.startswith(
        "The model is being trained now" if is_training else "No model has been trained here yet"
    )
    assert "choose" not in said
    assert page.chat_input


@pytest.mark.parametrize(
    ("roles", "wanted"),
    [
        ("", "s"),
        ("u", "su"),
        ("uau", "suau"),
        ("uu", "su"),
        ("uauu", "suau"),
        ("ua" * 10 + "u", "s" + "ua" * 9 + "u"),
        ("auau", "suau"),
    ],
)
def test_the_model_is_told_turn_by_turn(roles: str, wanted: str) -> None:
    names = {"s": "system", "u": "user", "a": "assistant"}
    messages = [{"role": names[role], "content": str(number)} for number, role in enumerate(roles)]
    told = prompt(messages, "sv")
    assert [message["role"] for message in told] == [names[role] for role in wanted]
    assert told[0]["content"].endswith("Answer in Swedish.")
    assert not messages or told[-1]["content"].endswith(messages[-1]["content"])


def test_no_threads_are_left(page: AppTest) -> None:
    write(page, "Hej")
    wait_for(lambda: "chat_reader" not in [one.name for one in threading.enumerate()])
