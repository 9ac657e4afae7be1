"""Answers of a language model at any OpenAI-compatible address: llama.cpp, Ollama, a service.

The environment sets OPENAI_BASE_URL, OPENAI_API_KEY (local servers need none) and OPENAI_MODEL (by
default the first that the server lists). Nothing is sent to any other address. Importing costs
nothing; the first answer costs 0.8 s to import the client library.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit

from asr.errors import NetworkError, ParamsError

CONNECT_SECONDS = 5.0
SILENT_SECONDS = 60.0  # a large model on a CPU needs long to read the conversation
LIMIT_SECONDS = 300.0
LIMIT_BYTES = 4 << 20  # of a response as sent; some ten thousand words
MAX_MESSAGE = 200  # characters of a server's message that are shown
NO_KEY = "none"  # sent where no key is set: the client library wants one

Piece = str | Exception | None  # a piece of an answer, the error that ended it, or its end


def configured() -> bool:
    """Whether an address is set.

    A key alone is not enough: conversations are sent only to an address that was set explicitly.
    """
    return bool(_base_url())


def host() -> str:
    """The server's host and port, without the parts of its address that may be secret."""
    address = _address()
    return f"{address.hostname}:{address.port}" if address.port else str(address.hostname)


def answer(messages: list[dict[str, str]]) -> Generator[str, None, None]:
    """Stream the model's answer, piece by piece; closing the iterator ends the request.

    Args:
        messages: `role` (system, user or assistant) and `content` of each.
    Raises:
        ParamsError: OPENAI_BASE_URL is not an address, or OPENAI_API_KEY cannot be a key.
        NetworkError: no server, no access, no such model, no answer, or an incomplete answer.
    """
    _check_settings()
    with _one_line_errors(), _client() as client:
        model = os.environ.get("OPENAI_MODEL", "").strip() or _first_model(client)
        is_empty = True
        with client.chat.completions.create(model=model, messages=messages, stream=True) as stream:
            for event in stream:
                if piece := _event_text(event):
                    is_empty = False
                    yield piece
        if is_empty:
            raise NetworkError(
                f"{host()} sent no words; is OPENAI_BASE_URL an OpenAI-compatible address "
                "(most end in /v1)?"
            )


def patient_answer(messages: list[dict[str, str]], seconds: float) -> Generator[str, None, None]:
    """Do the same as `answer`, but yield an empty piece whenever `seconds` pass without a piece.

    So the caller can stop while the model is silent. The request runs in a thread, which ends at
    the next piece after the iterator is closed.
    """
    pieces: queue.Queue[Piece] = queue.Queue()
    closed = threading.Event()
    threading.Thread(
        target=_read_answer, args=(messages, pieces, closed), daemon=True, name="chat_reader"
    ).start()
    try:
        while True:
            try:
                piece = pieces.get(timeout=seconds)
            except queue.Empty:
                piece = ""
            if piece is None:
                return
            if isinstance(piece, Exception):
                raise piece
            yield piece
    finally:
        closed.set()


def _read_answer(
    messages: list[dict[str, str]], pieces: queue.Queue[Piece], closed: threading.Event
) -> None:
    """Put the pieces of an answer into the queue until `closed` is set, then its end or error."""
    try:
        with closing(answer(messages)) as stream:
            for piece in stream:
                if closed.is_set():
                    return
                pieces.put(piece)
        pieces.put(None)
    except Exception as error:  # of any kind; otherwise the caller would wait for ever
        pieces.put(error)


def _base_url() -> str:
    return os.environ.get("OPENAI_BASE_URL", "").strip()


def _key() -> str:
    return os.environ.get("OPENAI_API_KEY", "").strip()


def _address() -> SplitResult:
    """OPENAI_BASE_URL, split into its parts.

    Raises:
        ParamsError: it is not the address of a server.
    """
    error = ParamsError("OPENAI_BASE_URL: want an address such as http://127.0.0.1:11434/v1")
    url = _base_url()
    try:
        address = urlsplit(url)
        _ = address.port  # raises where it is not a number
    except ValueError:
        raise error from None
    if address.scheme not in ("http", "https") or not address.hostname:
        raise error
    if not url.isascii() or not url.isprintable():
        raise error
    return address


def _check_settings() -> None:
    _address()
    key = _key()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ParamsError("OPENAI_API_KEY: holds a sign that no key has")


def _client() -> Any:
    """A client without retries and redirects, which could leak the key; responses are limited."""
    import httpx2
    import openai

    timeout = httpx2.Timeout(SILENT_SECONDS, connect=CONNECT_SECONDS)
    headers = {"Accept-Encoding": "identity"}
    http_client = httpx2.Client(
        timeout=timeout,
        headers=headers,
        follow_redirects=False,
        event_hooks={"response": [_limit_response]},
    )
    return openai.OpenAI(
        base_url=_base_url(),
        api_key=_key() or NO_KEY,
        timeout=timeout,
        max_retries=0,
        http_client=http_client,
        default_headers=headers,
    )


def _limit_response(response: Any) -> None:
    """Limit the bytes and seconds of a response, which could otherwise fill the memory.

    A compressed response is refused, because its size as sent does not limit its size in memory.
    """
    import httpx2

    if response.headers.get("content-encoding", "identity") != "identity":
        raise NetworkError(f"{host()} sent a packed answer that nobody asked for")
    stream = response.stream
    deadline = time.monotonic() + LIMIT_SECONDS

    class LimitedStream(httpx2.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            size = 0
            for piece in stream:
                size += len(piece)
                if size > LIMIT_BYTES or time.monotonic() > deadline:
                    raise NetworkError(
                        f"{host()} answered without end; "
                        f"more than {LIMIT_BYTES >> 20} MB or {LIMIT_SECONDS:.0f} s"
                    )
                yield piece

        def close(self) -> None:
            stream.close()

    response.stream = LimitedStream()


def _first_model(client: Any) -> str:
    """The first model that the server lists."""
    # The client library does not check what a server sends, neither here nor in _event_text.
    for model in getattr(client.models.list(), "data", None) or []:
        name = getattr(model, "id", None)
        if isinstance(name, str) and name:
            return name
    raise NetworkError(f"{host()} lists no model; set OPENAI_MODEL to the name of one")


def _event_text(event: Any) -> str:
    """The text in one event of the stream; empty if it has none."""
    choices = getattr(event, "choices", None)
    first = choices[0] if isinstance(choices, list) and choices else None
    text = getattr(getattr(first, "delta", None), "content", None)
    if not isinstance(text, str):
        return ""
    return text.encode("utf-8", "replace").decode()  # half a surrogate cannot be shown


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Turn the client library's errors into one line each.

    They are not chained, because the original error holds the request with the key.
    """
    import openai

    try:
        yield
    except openai.APITimeoutError:
        raise NetworkError(
            f"{host()} does not answer; it may be down, or busy with a large model"
        ) from None
    except openai.APIConnectionError:
        raise NetworkError(
            f"{host()} cannot be reached, or broke off; is the server of OPENAI_BASE_URL running?"
        ) from None
    except openai.APIStatusError as error:
        raise NetworkError(_status_text(error.status_code, _one_line(_message(error)))) from None
    except openai.APIError as error:
        raise NetworkError(f"{host()} gave up: {_one_line(error.message)}") from None
    # Raised by the client library for an answer of an unexpected structure.
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise NetworkError(
            f"{host()} sent what no OpenAI-compatible server sends; "
            "check OPENAI_BASE_URL (most end in /v1)"
        ) from None


def _status_text(status: int, message: str) -> str:
    """An error status of the server, its message, and what to do about it."""
    text = f"{host()} answered {status}"
    if message:
        text += f" ({message})"
    if status in (401, 403):
        return f"{text}: it wants another key; set OPENAI_API_KEY"
    if status == 404:
        return f"{text}: check OPENAI_MODEL, and OPENAI_BASE_URL (most end in /v1)"
    if status == 429:
        return f"{text}: too many questions, or the credit is used up; try again later"
    return f"{text}; its own log may say more" if status >= 500 else text


def _message(error: Any) -> str:
    """A server's message about its error, from the fields that servers use.

    A body that is not JSON, such as a page of HTML, is not shown.
    """
    if not isinstance(error.body, dict):
        return ""
    message = error.body.get("message") or error.body.get("detail")
    return message if isinstance(message, str) else ""


def _one_line(text: str) -> str:
    """A server's text on one short line, without the key, which a server might send back."""
    for secret in (_key(), _address().password):
        if secret:
            for spelling in {secret, quote(secret, safe="")}:
                text = text.replace(spelling, "…")
    text = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(text.split())[:MAX_MESSAGE]
