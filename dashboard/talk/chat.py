"""Answers of a language model behind any OpenAI-compatible address: llama.cpp, Ollama, vLLM, or a
service.

The environment says which: OPENAI_BASE_URL, OPENAI_API_KEY (local servers need none), OPENAI_MODEL
(else the first that the server lists). Nothing goes anywhere else. Importing costs nothing, the
first answer 0.8 s for the client library.
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
SILENT_SECONDS = 60.0  # a large model on a CPU reads the conversation before its first word
LIMIT_SECONDS = 300.0
LIMIT_BYTES = 4 << 20  # as sent; some ten thousand words
SHOWN = 200
NO_KEY = "none"  # what is sent where no key is set: the client library wants one


def configured() -> bool:
    """Whether an address is set. A key alone is not enough: what was said goes nowhere that nobody
    named.
    """
    return bool(_base_url())


def host() -> str:
    """The machine that is asked, without what may be secret in its address."""
    found = _address()
    return f"{found.hostname}:{found.port}" if found.port else str(found.hostname)


def answer(messages: list[dict[str, str]]) -> Generator[str, None, None]:
    """Stream the model's answer to a conversation, piece by piece; closing the iterator ends the
    request.

    Args:
        messages: `role` (system, user or assistant) and `content` of each.
    Raises:
        BadParams: an address or a key that cannot be one.
        NetworkFault: no server there, no access, no such model, no answer, or one that broke off.
    """
    _check()
    with _told(), _client() as client:
        model = os.environ.get("OPENAI_MODEL", "").strip() or _first_model(client)
        said = False
        with client.chat.completions.create(model=model, messages=messages, stream=True) as stream:
            for event in stream:
                if piece := _words(event):
                    said = True
                    yield piece
        if not said:
            raise NetworkError(
                f"{host()} sent no words; is OPENAI_BASE_URL an OpenAI-compatible address (most end in /v1)?"
            )


def patient_answer(messages: list[dict[str, str]], seconds: float) -> Generator[str, None, None]:
    """The same, with an empty piece whenever `seconds` pass without one, so that whoever waits can
    look up, and leave.
    """
    arrived: queue.Queue[str | Exception | None] = queue.Queue()
    unwanted = threading.Event()
    threading.Thread(
        target=_listen, args=(messages, arrived, unwanted), daemon=True, name="chat_listen"
    ).start()
    try:
        while True:
            try:
                piece = arrived.get(timeout=seconds)
            except queue.Empty:
                piece = ""
            if piece is None:
                return
            if isinstance(piece, Exception):
                raise piece
            yield piece
    finally:
        unwanted.set()


def _listen(
    messages: list[dict[str, str]],
    arrived: queue.Queue[str | Exception | None],
    unwanted: threading.Event,
) -> None:
    try:
        with closing(answer(messages)) as stream:
            for piece in stream:
                if unwanted.is_set():
                    return
                arrived.put(piece)
        arrived.put(None)
    except (
        Exception
    ) as error:  # whatever it is, who waits must hear of it rather than wait for ever
        arrived.put(error)


def _base_url() -> str:
    return os.environ.get("OPENAI_BASE_URL", "").strip()


def _key() -> str:
    return os.environ.get("OPENAI_API_KEY", "").strip()


def _address() -> SplitResult:
    wanted = "OPENAI_BASE_URL: want an address such as http://127.0.0.1:11434/v1"
    try:
        found = urlsplit(_base_url())
        known = found.scheme in ("http", "https") and found.hostname and (found.port or True)
    except ValueError:
        raise ParamsError(wanted) from None
    if not known or not _base_url().isascii() or not _base_url().isprintable():
        raise ParamsError(wanted)
    return found


def _check() -> None:
    _address()
    if not _key().isascii() or not _key().isprintable() or " " in _key():
        raise ParamsError("OPENAI_API_KEY: holds a sign that no key has")


def _client() -> Any:
    """A client that asks once, follows no redirect with the key, and keeps no more than an answer's
    worth.
    """
    import httpx2
    import openai

    timeout = httpx2.Timeout(SILENT_SECONDS, connect=CONNECT_SECONDS)
    headers = {"Accept-Encoding": "identity"}
    web = httpx2.Client(
        timeout=timeout, headers=headers, follow_redirects=False, event_hooks={"response": [_bound]}
    )
    return openai.OpenAI(
        base_url=_base_url(),
        api_key=_key() or NO_KEY,
        timeout=timeout,
        max_retries=0,
        http_client=web,
        default_headers=headers,
    )


def _bound(response: Any) -> None:
    """Let a response be no longer than an answer is: one without end would fill the memory, and so
    would a packed one.
    """
    import httpx2

    if response.headers.get("content-encoding", "identity") != "identity":
        raise NetworkError(f"{host()} sent a packed answer that nobody asked for")
    stream, deadline = response.stream, time.monotonic() + LIMIT_SECONDS

    class Bounded(httpx2.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            size = 0
            for piece in stream:
                size += len(piece)
                if size > LIMIT_BYTES or time.monotonic() > deadline:
                    raise NetworkError(
                        f"{host()} answered without end; more than {LIMIT_BYTES >> 20} MB or {LIMIT_SECONDS:.0f} s"
                    )
                yield piece

        def close(self) -> None:
            stream.close()

    response.stream = Bounded()


def _first_model(client: Any) -> str:
    for model in getattr(client.models.list(), "data", None) or []:
        if isinstance(name := getattr(model, "id", None), str) and name:
            return name
    raise NetworkError(f"{host()} lists no model; set OPENAI_MODEL to the name of one")


def _words(event: Any) -> str:
    """The words in one event; the client library does not check what a server sends."""
    choices = getattr(event, "choices", None)
    first = choices[0] if isinstance(choices, list) and choices else None
    piece = getattr(getattr(first, "delta", None), "content", None)
    return piece.encode("utf-8", "replace").decode() if isinstance(piece, str) else ""


@contextmanager
def _told() -> Iterator[None]:
    """Turn the client library's errors into one line each; they are not chained, for a request
    holds the key.
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
        raise NetworkError(_refusal(error.status_code, _one_line(_message(error)))) from None
    except openai.APIError as error:
        raise NetworkError(f"{host()} gave up: {_one_line(error.message)}") from None
    except (
        ValueError,
        TypeError,
        AttributeError,
        RecursionError,
    ):  # what the client library stumbles over in an answer of another kind
        raise NetworkError(
            f"{host()} sent what no OpenAI-compatible server sends; check OPENAI_BASE_URL (most end in /v1)"
        ) from None


def _refusal(status: int, said: str) -> str:
    what = f"{host()} answered {status}{f' ({said})' if said else ''}"
    if status in (401, 403):
        return f"{what}: it wants another key; set OPENAI_API_KEY"
    if status == 404:
        return f"{what}: check OPENAI_MODEL, and OPENAI_BASE_URL (most end in /v1)"
    if status == 429:
        return f"{what}: too many questions, or the credit is used up; try again later"
    return f"{what}; its own log may say more" if status >= 500 else what


def _message(error: Any) -> str:
    """What a server says about its refusal, in the places where servers say it; a page of HTML is
    not shown.
    """
    said = (
        error.body.get("message") or error.body.get("detail")
        if isinstance(error.body, dict)
        else ""
    )
    return said if isinstance(said, str) else ""


def _one_line(text: str) -> str:
    """A server's words without the key, should it send it back."""
    for secret in (_key(), _address().password):
        for shape in {secret, quote(secret, safe="")} if secret else ():
            text = text.replace(shape, "…")
    text = "".join(sign if sign.isprintable() else " " for sign in text)
    return " ".join(text.split())[:SHOWN]
