"""A hub on 127.0.0.1 as huggingface.co answers, with a second server for large files to which it
sends one on, and ways to fail.

Repositories are `{name: {revision: {path: content}}}`; a commit is the hash of its files. Parquet
files are stored as large ones. Each fault in `hub.faults` or `cdn.faults` answers one request in
its turn; afterwards all is well again. `asked` keeps what came.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from support.servers import QuietHandler, QuietServer

Repository = dict[str, dict[str, bytes]]
ADDRESS = re.compile(
    r"(?:/api)?/datasets/([^/]+/[^/]+)(?:/(revision|resolve|tree)/([^/]+)(?:/(.+))?)?"
)
PAGE_ROWS = 4  # entries of a tree that are listed at once
LARGE = (".parquet", ".gz")
PAGE = b"<!DOCTYPE html><html><body>Please log in</body></html>"


def commit_of(files: dict[str, bytes]) -> str:
    return hashlib.sha1(
        repr(
            sorted((path, hashlib.sha1(content).hexdigest()) for path, content in files.items())
        ).encode()
    ).hexdigest()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


Fault = Callable[["Conversation"], None]


class Server(QuietServer):
    def __init__(self, handler: type[BaseHTTPRequestHandler]):
        super().__init__(handler)
        self.faults: deque[Fault] = deque()
        self.asked: list[tuple[str, str, dict[str, str]]] = []  # method, path and headers
        self.closing, self.reached = threading.Event(), threading.Event()


class Hub(Server):
    """`gated` and `private` are names that `token` alone opens, `barred` those that not even it
    does.
    """

    def __init__(self, repositories: dict[str, Repository], cdn: Server):
        super().__init__(HubConversation)
        self.repositories, self.cdn = repositories, cdn
        self.gated: set[str] = set()
        self.private: set[str] = set()
        self.barred: set[str] = set()
        self.token = ""
        self.sizes: dict[str, int] = {}  # what the listing says of a path, where it lies

    def fetched(self) -> list[tuple[str, str | None]]:
        """Large files that were asked for, with the range."""
        return [
            (path.rpartition("/")[2].partition("?")[0], headers.get("range"))
            for _, path, headers in self.cdn.asked
        ]


class Conversation(QuietHandler):
    wbufsize = 1 << 16
    server: Any

    def do_GET(self) -> None:
        self.server.asked.append(
            (self.command, self.path, {key.lower(): value for key, value in self.headers.items()})
        )
        self.server.faults.popleft()(self) if self.server.faults else self.work()

    do_HEAD = do_GET

    def work(self) -> None:
        raise NotImplementedError

    def say(
        self, status: int, content: bytes = b"", length: int | None = None, **headers: str
    ) -> None:
        self.send_response(status)
        for key, value in {
            "Content-Length": str(len(content) if length is None else length),
            **headers,
        }.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def refuse(self, status: int, code: str, message: str) -> None:
        self.say(
            status,
            json.dumps({"error": message}).encode(),
            X_Error_Code=code,
            X_Error_Message=message,
            Content_Type="application/json",
        )

    def large(self) -> tuple[bytes, int]:
        """The large file that is asked for, and the byte from which on."""
        content = self.server.large[self.path.rpartition("/")[2].partition("?")[0]]
        given = self.headers.get("Range", "bytes=0-")
        return content, int(given.removeprefix("bytes=").partition("-")[0])


class CdnConversation(Conversation):
    def work(self) -> None:
        content, start = self.large()
        if not start:
            return self.say(200, content)
        return self.say(
            206, content[start:], Content_Range=f"bytes {start}-{len(content) - 1}/{len(content)}"
        )


class HubConversation(Conversation):
    def work(self) -> None:
        hub, sent = self.server, self.headers.get("Authorization")
        asked = ADDRESS.fullmatch(urlsplit(self.path).path)
        assert asked, self.path
        name, revision, path = asked[1], unquote(asked[3] or "main"), unquote(asked[4] or "")
        known = sent == f"Bearer {hub.token}"
        if sent and not known:
            return self.refuse(401, "", "Invalid credentials in Authorization header")
        if name not in hub.repositories or (name in hub.private and not known):
            status, message = (
                (404, "Repository not found") if sent else (401, "Invalid username or password.")
            )
            return self.refuse(status, "RepoNotFound", message)
        commits = {commit_of(files): files for files in hub.repositories[name].values()}
        files = hub.repositories[name].get(revision) or commits.get(revision)
        if files is None:
            return self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if path:
            return self.give(name, files, path, known)
        if asked[2] == "tree":
            return self.list(
                files, int(parse_qs(urlsplit(self.path).query).get("cursor", ["0"])[-1])
            )
        return self.tell(name, files)

    def tell(self, name: str, files: dict[str, bytes]) -> None:
        """Of its files this address may leave some out, and here it does."""
        told = {
            "id": name,
            "sha": commit_of(files),
            "siblings": [{"rfilename": path} for path in sorted(files)[:1]],
            "private": False,
        }
        self.say(200, json.dumps(told).encode(), Content_Type="application/json")

    def list(self, files: dict[str, bytes], start: int) -> None:
        """Some entries, and where the next ones are."""
        entries: list[dict[str, Any]] = [
            {"type": "directory", "oid": "0" * 40, "size": 0, "path": "sv-SE"}
        ]
        for path, content in sorted(files.items()):
            size = self.server.sizes.get(path, len(content))
            entry = {
                "type": "file",
                "oid": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(),
                "size": size,
                "path": path,
            }
            large = (
                {"lfs": {"oid": sha256(content), "size": size, "pointerSize": 130}}
                if path.endswith(LARGE)
                else {}
            )
            entries.append(entry | large)
        more = start + PAGE_ROWS < len(entries)
        link = (
            {"Link": f'<{self.server.uri}{self.path}&cursor={start + PAGE_ROWS}>; rel="next"'}
            if more
            else {}
        )
        self.say(
            200,
            json.dumps(entries[start : start + PAGE_ROWS]).encode(),
            Content_Type="application/json",
            **link,
        )

    def give(self, name: str, files: dict[str, bytes], path: str, known: bool) -> None:
        commit = commit_of(files)
        if path not in files:
            return self.refuse(404, "EntryNotFound", "Entry not found")
        if not path.endswith(LARGE):
            return self.say(
                200, files[path], X_Repo_Commit=commit, ETag=f'"{sha256(files[path])[:40]}"'
            )
        if name in self.server.barred:
            return self.refuse(
                403,
                "GatedRepo",
                f"Access to dataset {name} is restricted and you are not in the authorized list.",
            )
        if name in self.server.gated and not known:
            return self.refuse(401, "GatedRepo", f"Access to dataset {name} is restricted.")
        content = files[path]
        self.server.cdn.large[sha256(content)] = content
        place = f"{self.server.cdn.uri}/repos/{sha256(content)}?X-Amz-Signature=signed-for-one"
        linked = {"X_Linked_Size": str(len(content)), "X_Linked_ETag": f'"{sha256(content)}"'}
        linked |= {"X_Xet_Hash": sha256(content), "X_Xet_Refresh_Route": f"{self.server.uri}/no"}
        return self.say(302, Location=place, X_Repo_Commit=commit, **linked)


def busy(status: int, **headers: str) -> Fault:
    return lambda one: one.say(status, b"busy", **headers)


def web_page(one: Conversation) -> None:
    one.say(200, PAGE, Content_Type="text/html")


def cut(count: int) -> Fault:
    """Ends the connection after so many bytes."""

    def fault(one: Conversation) -> None:
        content, start = one.large()
        one.say(206 if start else 200, content[start : start + count], len(content) - start)
        one.reset()

    return fault


def stuck(count: int) -> Fault:
    """Sends so many bytes, and no more until the server closes, when the connection ends."""

    def fault(one: Conversation) -> None:
        content, start = one.large()
        one.say(206 if start else 200, content[start : start + count], len(content) - start)
        one.wfile.flush()
        one.server.reached.set()
        one.server.closing.wait(60)
        one.reset()

    return fault


def whole(change: Callable[[bytes], bytes]) -> Fault:
    """Sends another file in one piece, with its own length, whatever range was asked for."""
    return lambda one: one.say(200, change(one.large()[0]))


def flipped(content: bytes) -> bytes:
    return content[:50] + bytes([content[50] ^ 1]) + content[51:]


@contextmanager
def served(repositories: dict[str, Repository]) -> Iterator[Hub]:
    cdn: Any = Server(CdnConversation)
    cdn.large = {}
    hub = Hub(repositories, cdn)
    for one in (hub, cdn):
        threading.Thread(
            target=one.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()
    try:
        yield hub
    finally:
        for one in (hub, cdn):
            one.closing.set()
            one.shutdown()
            one.server_close()
