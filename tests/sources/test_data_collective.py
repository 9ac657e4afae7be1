"""Releases from Mozilla Data Collective: the real SDK against a platform on 127.0.0.1, and all that
can go wrong on the way.
"""

from __future__ import annotations

import io
import json
import logging
import random
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asr import paths
from asr.errors import DataError, DiskError, NetworkError, ParamsError, UserError
from asr.sources import data_collective
from asr.sources.utterances import Corpus
from asr.storage.shards import SPLITS
from support.data import encoded, voice
from support.hub import (
    PAGE,
    CdnConversation,
    Conversation,
    Server,
    busy,
    cut,
    flipped,
    sha256,
    web_page,
    whole,
)

KEY = "mdc-DoNotShowMeToAnybody"
ID = "cmfh0j9o10006ns07jq45h7xk"
NAME = "cv-corpus-99.0-sv-SE.tar.gz"
BLOCK = 1 << 16  # bytes that the SDK writes at once; of a block that breaks off nothing is kept
CLIP = encoded(voice(0.1), format="MP3")


def release() -> bytes:
    """An archive as Common Voice packs it: one clip in each split, and a long one in none."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:gz") as tar:
        for split, tsv in zip(SPLITS, ("train", "dev", "test"), strict=True):
            line = (
                f"client_id\tpath\tsentence\nclient-{split}\t{split}.mp3\ttext of {split}\n"
            ).encode()
            for name, content in (
                (f"{tsv}.tsv", line),
                (f"clips/{split}.mp3", CLIP + split.encode()),
            ):
                info = tarfile.TarInfo(f"cv-corpus-99.0/sv-SE/{name}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        info = tarfile.TarInfo("cv-corpus-99.0/sv-SE/clips/long.mp3")
        info.size = 4 * BLOCK
        tar.addfile(info, io.BytesIO(random.Random(1).randbytes(info.size)))
    return held.getvalue()


RELEASE = release()
DETAILS = {
    "id": ID,
    "slug": "common-voice-sv",
    "filename": NAME,
    "sizeBytes": len(RELEASE),
    "checksum": sha256(RELEASE),
}


class PlatformConversation(Conversation):
    """`/api/datasets/<id>`, which anyone may ask, and `/api/datasets/<id>/download`, which wants
    the key.
    """

    def work(self) -> None:
        details = self.server.details.get(self.path.split("/")[3])
        if not details:
            return self.tell(404, message="Dataset not found")
        if self.command == "GET":
            return self.tell(200, **details, licenseAbbreviation="CC0-1.0")
        if self.headers.get("Authorization") != f"Bearer {KEY}":
            return self.tell(401, message="Unauthorized")
        place = (
            f"{self.server.cdn.uri}/archives"
            f"/{sha256(self.server.content)}?X-Amz-Signature=signed-for-one"
        )
        return self.tell(
            200, downloadUrl=place, sizeBytes=details["sizeBytes"], checksum=details["checksum"]
        )

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.do_GET()

    def tell(self, status: int, **told: Any) -> None:
        content = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture(scope="module")
def served_once() -> Iterator[Any]:
    platform: Any = Server(PlatformConversation)
    platform.cdn = Server(CdnConversation)
    for one in (platform, platform.cdn):
        threading.Thread(
            target=one.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()
    yield platform
    for one in (platform, platform.cdn):
        one.shutdown()
        one.server_close()


@pytest.fixture
def there(served_once: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The platform without faults, as new, and a key; nobody waits."""
    pytest.importorskip(
        "datacollective",
        reason="Mozilla's SDK is not installed: pip install -c requirements.txt -e '.[dev]'",
    )
    monkeypatch.setenv("MDC_API_URL", f"{served_once.uri}/api")
    monkeypatch.setenv("MDC_API_KEY", KEY)
    monkeypatch.setattr(data_collective, "WAIT_SCALE", 0.0005)
    served_once.details, served_once.content = {ID: dict(DETAILS)}, RELEASE
    served_once.cdn.large = {sha256(RELEASE): RELEASE}
    for one in (served_once, served_once.cdn):
        one.faults.clear()
        one.asked.clear()
    return served_once


def read(working: Path, dataset_id: str = ID) -> Corpus:
    working.mkdir(exist_ok=True)
    return data_collective.read(dataset_id, working, "official")


def refused(kind: type[UserError], match: str, dataset_id: str = ID) -> None:
    """One line with a way out, that shows neither the key nor a signed address."""
    with pytest.raises(kind, match=match) as caught:
        data_collective.fetch(dataset_id)
    said = str(caught.value)
    assert caught.type is kind
    assert "\n" not in said
    assert ";" in said
    assert KEY not in said
    assert "signed-for-one" not in said


def ranges(there: Any) -> list[str | None]:
    return [headers.get("range") for _, _, headers in there.cdn.asked]


def test_a_release_is_fetched_and_listed(there: Any, tmp_path: Path) -> None:
    corpus = read(tmp_path / "work")
    rows = [(one.id, one.split, one.text, one.speaker, one.audio()) for one in corpus.utterances]
    assert rows == [
        (f"{split}.mp3", split, f"text of {split}", f"client-{split}", CLIP + split.encode())
        for split in SPLITS
    ]
    about = {
        "name": "cv-corpus-99.0-sv-SE",
        "licence": "CC0-1.0",
        "dataset": ID,
        "archive": NAME,
        "bytes": len(RELEASE),
    }
    assert {key: corpus.about[key] for key in about} == about
    assert corpus.about["sha256"] == sha256(RELEASE)
    read(tmp_path / "again")
    assert ranges(there) == [None]  # it is here already
    data_collective.forget(ID)
    assert not paths.cache("collective", ID).exists()


def test_a_connection_that_breaks_goes_on_where_it_stood(there: Any) -> None:
    there.cdn.faults += [cut(BLOCK + 9), cut(BLOCK + 9), cut(0)]
    archive, _ = data_collective.fetch(ID)
    assert archive.read_bytes() == RELEASE
    assert ranges(there) == [None, f"bytes={BLOCK}-", f"bytes={2 * BLOCK}-", f"bytes={2 * BLOCK}-"]


def test_a_platform_that_knows_no_ranges_sends_all_anew(there: Any) -> None:
    there.cdn.faults += [cut(BLOCK), whole(lambda content: content)]
    archive, _ = data_collective.fetch(ID)
    assert archive.read_bytes() == RELEASE
    assert len(ranges(there)) == 3


def test_a_killed_download_goes_on_where_it_stood(there: Any) -> None:
    """What the SDK leaves when it is killed: a part, and the checksum that it is a part of."""
    place = paths.cache("collective", ID)
    place.mkdir(parents=True)
    (place / f"{NAME}.part").write_bytes(RELEASE[:500])
    (place / f"{NAME}.checksum").write_text(sha256(RELEASE))
    archive, _ = data_collective.fetch(ID)
    assert archive.read_bytes() == RELEASE
    assert ranges(there) == ["bytes=500-"]


def test_a_part_that_was_whole_when_it_was_killed_is_taken(there: Any) -> None:
    place = paths.cache("collective", ID)
    place.mkdir(parents=True)
    (place / f"{NAME}.part").write_bytes(RELEASE)
    archive, _ = data_collective.fetch(ID)
    assert archive.read_bytes() == RELEASE
    assert ranges(there) == []


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            lambda content: content[:-1],
            r"came twice in the wrong length \([\d,]+ bytes, want [\d,]+\)",
        ),
        (flipped, r"came twice with a wrong checksum"),
        (lambda _: PAGE, r"came twice in the wrong length"),
    ],
)
def test_an_archive_that_is_not_what_the_platform_lists(
    there: Any, change: Any, match: str
) -> None:
    there.cdn.faults += [whole(change)]
    assert data_collective.fetch(ID)[0].read_bytes() == RELEASE
    data_collective.forget(ID)
    there.cdn.faults += [whole(change), whole(change)]
    refused(NetworkError, rf"{ID}: {NAME} {match}.*; try again later")
    assert not list(paths.cache("collective", ID).iterdir())


def test_the_sdk_alone_would_take_it(there: Any) -> None:
    """The control: what the check above is for."""
    import datacollective

    there.cdn.faults += [whole(flipped)]
    place = paths.cache("collective", ID)
    place.mkdir(parents=True)
    assert datacollective.download_dataset(
        ID, str(place), show_progress=False
    ).read_bytes() == flipped(RELEASE)


def test_a_checksum_of_another_kind_is_left_alone(there: Any) -> None:
    there.details[ID]["checksum"] = "crc32:12345678"
    assert data_collective.fetch(ID)[1]["sha256"] == sha256(RELEASE)


def test_a_platform_that_is_busy_is_asked_again(
    there: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(data_collective.time, "sleep", waited.append)
    monkeypatch.setattr(data_collective, "WAIT_SCALE", 1.0)
    there.faults += [busy(429, Retry_After="290"), busy(503), lambda one: one.reset()]
    data_collective.fetch(ID)
    assert waited == [290, 2, 4]
    data_collective.forget(ID)
    there.faults += [busy(429, Retry_After="86400")]
    refused(
        NetworkError, r"the platform is busy \(429\); run again later: it goes on where it stopped"
    )
    there.faults += [busy(500)] * (data_collective.MAX_TRIES + 1)
    refused(NetworkError, r"the platform is busy \(500\)")


def test_no_network(there: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MDC_API_URL", "http://127.0.0.1:9/api")
    refused(
        NetworkError,
        r"the platform cannot be reached \(ConnectionError\); check the network, then run again",
    )
    assert not there.asked


@pytest.mark.usefixtures("there")
def test_a_key_that_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MDC_API_KEY", KEY + "2")
    refused(
        NetworkError,
        r"the platform does not know MDC_API_KEY; make another at https://mozilladatacollective.com/api-reference",
    )


def test_terms_that_are_not_accepted(there: Any) -> None:
    there.faults += [lambda one: one.work(), lambda one: one.work(), busy(403)]
    refused(
        NetworkError,
        (
            r"given to those who accept its terms; do so at "
            rf"https://mozilladatacollective.com/datasets/{ID} with the account"
        ),
    )


@pytest.mark.parametrize("status", [404, 410])
def test_a_release_that_is_gone(there: Any, status: int) -> None:
    there.faults += [busy(status)]
    refused(
        NetworkError,
        r"the platform has it not, or not any more; want an id from https://mozilladatacollective.com/datasets",
    )
    refused(NetworkError, r"another: the platform has it not", "another")


def test_a_release_that_costs_money(there: Any) -> None:
    there.faults += [lambda one: one.work(), lambda one: one.work(), busy(402)]
    refused(NetworkError, r"the platform refuses \(402\); see https://")


@pytest.mark.parametrize(
    "fault", [web_page, lambda one: one.say(200, b"{}"), lambda one: one.say(200, b"[1]")]
)
def test_another_service_has_the_place(there: Any, fault: Any) -> None:
    there.faults += [fault]
    refused(
        NetworkError,
        (
            r"something else answers in the platform's place \(a login page, a proxy\?\); "
            r"check the network"
        ),
    )


@pytest.mark.parametrize("name", ["../../secret.tar.gz", "/tmp/x.tar.gz", None, "", ".."])
def test_a_name_that_leaves_the_folder_is_refused(there: Any, name: str | None) -> None:
    there.details[ID]["filename"] = name
    refused(DataError, rf"{ID}: the platform names no archive of it; see https://")
    assert not there.cdn.asked


def test_an_archive_of_something_else(there: Any, tmp_path: Path) -> None:
    there.content = b"no archive"
    there.cdn.large = {sha256(b"no archive"): b"no archive"}
    there.details[ID] |= {"sizeBytes": 10, "checksum": sha256(b"no archive")}
    with pytest.raises(DataError, match=rf"{NAME}: not a whole archive"):
        read(tmp_path / "work")


def test_a_disk_that_is_too_small_is_told_before(there: Any) -> None:
    there.details[ID]["sizeBytes"] = 10**18
    refused(DiskError, rf"{NAME} will take 1,000,000,000.0 GB, and .* GB are free; make room")
    assert not there.cdn.asked


def test_the_key_goes_to_the_platform_alone(
    there: Any, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    there.cdn.faults += [cut(10)]
    with caplog.at_level(logging.DEBUG):
        corpus = read(tmp_path / "work")
    assert [
        headers.get("authorization") for method, _, headers in there.asked if method == "POST"
    ] == [f"Bearer {KEY}"] * 2
    assert not any(
        "authorization" in headers
        for method, _, headers in [*there.cdn.asked, *there.asked]
        if method == "GET"
    )
    printed = capfd.readouterr()
    assert KEY not in json.dumps(corpus.about) + caplog.text + printed.out + printed.err
    assert not any(
        KEY.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()
    )


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "", "a b", "https://mozilladatacollective.com/datasets/x"]
)
def test_an_id_that_is_none(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        ParamsError,
        match=r"^download.path: got '.*', want a data set's id at https://mozilladatacollective.com",
    ):
        read(tmp_path / "work", name)


def test_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MDC_API_KEY", raising=False)
    refused(
        NetworkError,
        r"^MDC_API_KEY is not set; make a key at https://mozilladatacollective.com/api-reference",
    )


def test_no_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MDC_API_KEY", KEY)
    monkeypatch.setitem(sys.modules, "datacollective", None)
    refused(
        NetworkError,
        (
            r"needs Mozilla's SDK, an optional extra; pip install -c requirements.txt -e "
            r"'\.\[data-collective\]'$"
        ),
    )
