"""Answers over real HTTP from a server on this machine, which goes wrong in every way we could
think of.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from http.client import HTTPConnection

import pytest

from asr.errors import NetworkError, ParamsError
from dashboard.talk import chat
from support.chat_server import WORDS, ChatServer, event, serving
from support.imports import imported
from support.waiting import wait_for

KEY = "sk-very+secret/0123"
ASKED = [{"role": "user", "content": "Hej"}]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    for name in ("OPENAI_MODEL", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving() as one:
        monkeypatch.setenv("OPENAI_BASE_URL", one.address)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        yield one


def test_the_answer_is_what_the_server_said(server: ChatServer) -> None:
    assert list(chat.answer(ASKED)) == WORDS
    (listed, asked) = server.asked
    assert listed[0] == "/v1/models"
    assert asked == (
        "/v1/chat/completions",
        f"Bearer {KEY}",
        {"model": "first", "messages": ASKED, "stream": True},
    )


def test_it_comes_piece_by_piece_and_can_be_left(server: ChatServer) -> None:
    server.fault = "slow"
    server.permits.release()
    pieces = chat.answer(ASKED)
    assert next(pieces) == WORDS[0]
    pieces.close()
    assert server.sent == 1, "the second piece was waited for"


def test_who_waits_can_look_up_and_leave(server: ChatServer) -> None:
    """The server sends its next word, and its end, only after one has looked up."""
    server.fault = "slow"
    words, looks = [], 0
    for piece in chat.patient_answer(ASKED, 0.05):
        if piece:
            words.append(piece)
        else:
            looks += 1
            server.permits.release()
    assert words == WORDS
    assert looks >= len(WORDS) + 1


def test_who_waits_for_a_silent_server_can_leave(server: ChatServer) -> None:
    server.fault = "silent"
    waiting = chat.patient_answer(ASKED, 0.05)
    assert next(waiting) == ""
    waiting.close()
    assert "chat_reader" in [one.name for one in threading.enumerate()], "its end was waited for"


def test_who_waits_hears_of_an_error(server: ChatServer) -> None:
    server.fault = "broken"
    with pytest.raises(NetworkError, match="500"):
        list(chat.patient_answer(ASKED, 0.05))


def test_the_model_that_is_set_is_asked(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_MODEL", "mine")
    monkeypatch.delenv("OPENAI_API_KEY")
    list(chat.answer(ASKED))
    assert [(path, key, body["model"]) for path, key, body in server.asked] == [
        ("/v1/chat/completions", "Bearer none", "mine")
    ]


FAULTS = {
    "cut": "broke off",
    "hangs_up": "broke off",
    "html": "sent no words",
    "html_error": "answered 502; its own log",
    "no_newline": "without end",
    "endless": "without end",
    "packed": "packed",
    "error_event": "gave up: out of memory",
    "no_words": "sent no words",
    "unauthorized": "OPENAI_API_KEY",
    "not_found": "OPENAI_MODEL",
    "busy": "try again later",
    "broken": "answered 500",
    "away": "answered 307",
}


def fault_of() -> str:
    with pytest.raises(NetworkError) as caught:
        list(chat.answer(ASKED))
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return str(caught.value)


@pytest.mark.parametrize("fault", FAULTS)
def test_what_goes_wrong_is_one_line_without_the_key(
    server: ChatServer,
    fault: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    server.fault = fault
    said = fault_of()
    assert FAULTS[fault] in said
    assert str(server.server_port) in said
    assert said.isprintable()
    assert len(said) < 400
    assert KEY not in said + caplog.text
    assert "secret" not in said
    assert len(server.asked) == 2, "asked once, not again and again"


@pytest.mark.parametrize("fault", ["silent", "stops"])
def test_a_server_that_falls_silent_is_left(
    server: ChatServer, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would stay silent for ever; the model is named, so that one request is all there is."""
    monkeypatch.setenv("OPENAI_MODEL", "mine")
    monkeypatch.setattr(chat, "SILENT_SECONDS", 0.5)
    server.fault = fault
    said = fault_of()
    assert f"{server.server_port} does not answer" in said
    assert said.isprintable()
    wait_for(lambda: server.asked)
    assert len(server.asked) == 1, "asked once, not again and again"


def test_the_control_the_servers_do_send_the_key_back(server: ChatServer) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    for fault in ("unauthorized", "broken", "error_event"):
        server.fault = fault
        connection = HTTPConnection("127.0.0.1", server.server_port)
        connection.request("POST", "/v1/chat/completions", b"{}", headers)
        assert KEY.encode() in connection.getresponse().read()
        connection.close()


def test_the_key_does_not_follow_a_redirect(server: ChatServer) -> None:
    with serving() as other:
        server.fault, server.elsewhere = "away", other.server_port
        fault_of()
        assert other.asked == []


@pytest.mark.parametrize(
    "odd",
    [
        b"5", b"[1]", b'"text"', b"null", b"{", b'{"choices": 5}', b'{"choices": [5]}',
        b'{"choices": [{"delta": 5}]}', b"\xff\xfe",
        (b'{"choices": [{"delta": ' b'{"content": {"a": 1}}}]}'),
        (b'{"choices": {"0": {"delta": ' b'{"content": "x"}}}}'), b"[" * 100_000,
        b'{"error": 5}', b'{"error": ["x"]}', b'{"error": {"message": 5}}', b"1" * 10_000,
    ],
)  # fmt: skip
def test_odd_events_are_faults_too(server: ChatServer, odd: bytes) -> None:
    server.fault, server.odd = "odd", odd
    assert fault_of().isprintable()


def test_half_a_character_does_not_reach_the_page(server: ChatServer) -> None:
    server.fault, server.odd = "odd", event("X").replace(b"X", b"a\\ud83d")[6:].strip()
    (piece,) = chat.answer(ASKED)
    assert piece.encode() == b"a?"


def test_a_server_without_models_says_what_to_set(server: ChatServer) -> None:
    server.models = []
    assert "OPENAI_MODEL" in fault_of()


def test_nobody_there(server: ChatServer) -> None:
    server.server_close()
    assert "cannot be reached" in fault_of()


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:11434",
        "file:///etc/passwd",
        "http://",
        "http://[",
        "http://a:port/",
        "http://å/",
        "http://a\nb",
    ],
)
def test_an_address_that_is_none(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    assert chat.configured()
    with pytest.raises(ParamsError, match="http://127"):
        next(chat.answer(ASKED))


@pytest.mark.parametrize("key", ["a\nb", "nyckel-å", "a b"])
def test_a_key_that_no_header_takes_is_not_shown(
    server: ChatServer, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(ParamsError) as caught:
        next(chat.answer(ASKED))
    assert key not in str(caught.value)
    assert server.asked == []


def test_a_password_in_the_address_is_not_shown(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", server.address.replace("//", "//me:hidden@"))
    server.fault = "broken"
    assert "hidden" not in fault_of()
    assert chat.host() == f"127.0.0.1:{server.server_port}"


def test_no_address_is_not_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for value in ("", "  "):
        monkeypatch.setenv("OPENAI_BASE_URL", value)
        assert not chat.configured()
    with pytest.raises(ParamsError):
        next(chat.answer(ASKED))


def test_importing_costs_no_client() -> None:
    assert imported("import dashboard.talk.chat", "openai", "httpx2", "torch") == []
