"""A language model's server for tests: real HTTP on this machine, which answers well or in one of
many wrong ways.
"""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

WORDS = ["Hej", " världen", ", <b>", "[x](http://evil.example)"]


def event(content: Any) -> bytes:
    """One chunk as OpenAI-compatible servers stream it."""
    chunk = {
        "id": "1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "delta": {"content": content}, "finish_reason": None}],
    }
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


class Handler(BaseHTTPRequestHandler):
    server: ChatServer

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.note(None)
        listed = {
            "object": "list",
            "data": [{"id": name, "object": "model"} for name in self.server.models],
        }
        self.reply(200, json.dumps(listed).encode())

    def do_POST(self) -> None:
        self.note(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        with suppress(BrokenPipeError, ConnectionResetError):
            getattr(self, self.server.fault)()

    def note(self, body: Any) -> None:
        self.server.asked.append((self.path, self.headers.get("Authorization"), body))

    def reply(
        self, status: int, content: bytes, kind: str = "application/json", **headers: str
    ) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(content)),
            **headers,
        }.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def stream(self, *pieces: bytes, permitted: bool = True) -> None:
        """Send these pieces; where they are not permitted, each after a permit of the test."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for piece in pieces:
            if not permitted:
                self.server.permits.acquire()
            self.server.sent += 1
            self.wfile.write(piece)
            self.wfile.flush()

    def refuse(self, status: int) -> None:
        said = f"no good, {self.headers.get('Authorization')}\nand <b>more</b>"
        self.reply(
            status, json.dumps({"error": {"message": said, "type": "t", "code": 1}}).encode()
        )

    def good(self) -> None:
        self.stream(*map(event, self.server.words), b"data: [DONE]\n\n")

    def slow(self) -> None:
        self.stream(*map(event, self.server.words), b"data: [DONE]\n\n", permitted=False)

    def silent(self) -> None:
        self.server.permits.acquire()

    def stops(self) -> None:
        self.stream(event("half"))
        self.server.permits.acquire()

    def cut(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Content-Length", "100000")
        self.end_headers()
        self.wfile.write(event("half"))

    def hangs_up(self) -> None:
        self.close_connection = True

    def html(self) -> None:
        self.reply(200, b"<html><body>Welcome</body></html>", "text/html")

    def html_error(self) -> None:
        self.reply(502, b"<html><body>Bad gateway</body></html>", "text/html")

    def no_newline(self) -> None:
        self.stream(*(b"data: " + b"x" * 65536 for _ in range(200)))

    def endless(self) -> None:
        self.stream(*(event("x" * 65000) for _ in range(200)))

    def packed(self) -> None:
        self.reply(
            200, gzip.compress(event("x" * 100)), "text/event-stream", Content_Encoding="gzip"
        )

    def error_event(self) -> None:
        self.stream(
            event("half"),
            b'data: {"error": {"message": "out of memory, '
            + self.headers["Authorization"].encode()
            + b'"}}\n\n',
        )

    def no_words(self) -> None:
        self.stream(event(None), event(""), b'data: {"choices": []}\n\n', b"data: [DONE]\n\n")

    def odd(self) -> None:
        self.stream(b"data: " + self.server.odd + b"\n\n", b"data: [DONE]\n\n")

    def away(self) -> None:
        self.reply(
            307, b"", Location=f"http://127.0.0.1:{self.server.elsewhere}/v1/chat/completions"
        )

    def unauthorized(self) -> None:
        self.refuse(401)

    def not_found(self) -> None:
        self.refuse(404)

    def busy(self) -> None:
        self.refuse(429)

    def broken(self) -> None:
        self.refuse(500)


class ChatServer(ThreadingHTTPServer):
    """A server on a free port of this machine.

    Attributes:
        fault: the name of the handler's method that answers.
        asked: path, key and body of each request.
        permits: a slow server takes one for each piece that it sends; a silent one, and one that
            stops, waits for the first.
        sent: number of pieces that were streamed.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.fault, self.words, self.models = "good", list(WORDS), ["first", "second"]
        self.asked: list[tuple[str, str | None, Any]] = []
        self.permits, self.sent = threading.Semaphore(0), 0
        self.odd, self.elsewhere = b"", 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


@contextmanager
def serving() -> Iterator[ChatServer]:
    server = ChatServer()
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    )
    thread.start()
    try:
        yield server
    finally:
        server.permits.release(1000)  # who waits for one goes on, and finds nobody listening
        server.shutdown()
        server.server_close()
        thread.join()
