"""Files of a data set on the Hugging Face hub: what there is at a commit, and each file fetched
once, whole and checked.

The hub's client names its drafts anew each time, so that a killed download begins at nothing. Here
a draft keeps its name, and the client's session is asked for the bytes still missing. Files wait in
`.cache/hub/<name>/<commit>/`; each is read once for its checksum. The token comes from HF_TOKEN
alone, and goes to the hub alone.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

from httpx2 import HTTPError, InvalidURL
from huggingface_hub import HfApi, get_session, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RevisionNotFoundError,
)
from huggingface_hub.utils import (
    build_hf_headers,
    hf_raise_for_status,
    parse_ratelimit_headers,
    validate_repo_id,
)

from asr import paths
from asr.errors import NetworkError, ParamsError, UserError
from asr.runtime import disk
from asr.runtime.locks import locked
from asr.storage import files

T = TypeVar("T")
TIMEOUT_SECONDS = 30.0  # seconds without a byte
MAX_TRIES = 5  # in a row that bring nothing
MAX_WAIT_SECONDS = (
    900.0  # seconds to wait for one answer, all tries together; the hub counts requests over 300
)
WAIT_SCALE = 1.0  # by which all waiting is multiplied
BUSY = (408, 429, 500, 502, 503, 504)
COMMON_VOICE_MOVED = "Common Voice left the hub in October 2025; take its archive (download.source: common_voice) or Mozilla's (data_collective)"


@dataclass(frozen=True)
class Part:
    """One file of a data set at a commit.

    checksum: `sha256:...`, or `git:...` where the file is no large one.
    place: where it lies once it is fetched.
    """

    name: str
    commit: str
    path: str
    size: int
    checksum: str
    place: Path


def parts(name: str, revision: str | None) -> list[Part] | None:
    """All files of a data set; None where it has no such revision.

    Args:
        name: such as google/fleurs.
        revision: commit, tag or branch; None takes the newest.
    Raises:
        BadParams: that is no name.
        NetworkFault: the hub cannot be reached, or does not let us in.
    """
    try:
        validate_repo_id(name)
    except HFValidationError:
        raise ParamsError(
            f"download.path: got {name!r}, want the data set's name on the hub, such as google/fleurs"
        ) from None
    try:
        found = _with_retries(
            name,
            partial(
                HfApi(_endpoint()).dataset_info,
                name,
                revision=revision,
                token=_token() or False,
                timeout=TIMEOUT_SECONDS,
            ),
        )
        return [
            _part(name, found.sha, entry)
            for entry in _tree(name, found.sha)
            if entry["type"] == "file"
        ]
    except RevisionNotFoundError:
        return None
    except (ValueError, TypeError, KeyError):
        raise NetworkError(
            f"{_endpoint()} answers as no hub does (a login page, a proxy?); check HF_ENDPOINT and the network"
        ) from None


def _tree(name: str, commit: str) -> Iterator[dict[str, Any]]:
    """All entries of a commit, page by page. The client's own listing of a data set may lack some
    of 1,000 files without a word.
    """
    given = {"recursive": "true"}
    while True:
        reply = _with_retries(
            name, partial(_get, f"{_endpoint()}/api/datasets/{name}/tree/{commit}", given)
        )
        yield from reply.json()
        following = parse_qs(urlsplit(reply.links.get("next", {}).get("url", "")).query)
        if not following.get("cursor"):
            return
        if following["cursor"][-1] == given.get("cursor"):
            raise ValueError("no end")
        given["cursor"] = following["cursor"][
            -1
        ]  # the address itself is not followed: the token stays with the hub


def _get(address: str, given: dict[str, str]) -> Any:
    reply = get_session().get(
        address,
        headers=build_hf_headers(token=_token() or False),
        params=given,
        timeout=TIMEOUT_SECONDS,
    )
    hf_raise_for_status(reply)
    return reply


def _part(name: str, commit: str, entry: dict[str, Any]) -> Part:
    """Raises ValueError, TypeError or KeyError for what no hub would list."""
    folder = paths.cache("hub", name, commit)
    place, large = (folder / entry["path"]).resolve(), entry.get("lfs")
    if not place.is_relative_to(folder.resolve()) or len(commit) != 40:
        raise ValueError(entry["path"])
    if large:
        return Part(
            name, commit, entry["path"], int(large["size"]), f"sha256:{large['oid']}", place
        )
    return Part(name, commit, entry["path"], int(entry["size"]), f"git:{entry['oid']}", place)


def _endpoint() -> str:
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def _token() -> str:
    return os.environ.get("HF_TOKEN", "").strip()


def lock_path(name: str) -> Path:
    """What is locked by who fetches this data set; it lies beside what `forget` drops."""
    return paths.cache("hub", f"{name}.lock")


def forget(name: str) -> None:
    """Drop all that was fetched of a data set; who still reads it fetches again what is gone."""
    with locked(lock_path(name)):
        shutil.rmtree(paths.cache("hub", name), ignore_errors=True)


def fetch(part: Part) -> Path:
    """The file, whole; goes on at the byte where an earlier fetch of it stopped.

    Raises:
        NetworkFault: it does not come, or comes in another length or with another checksum twice.
        DiskFault: there is no room for it.
    """
    if part.place.is_file():
        return part.place
    draft = part.place.with_name(f"{part.place.name}.part")
    draft.parent.mkdir(parents=True, exist_ok=True)
    draft.touch()
    disk.check_free_space(draft.parent, part.size - _size(draft), f"{part.name}: {part.path}")
    for _ in range(2):
        if _size(draft) != part.size:
            _with_retries(part.name, lambda: _download(part, draft), lambda: _size(draft))
        wrong = _defect(part, draft)
        if not wrong:
            files.sync(draft)
            draft.rename(part.place)
            return part.place
        draft.write_bytes(b"")
    raise NetworkError(
        f"{part.name}: {part.path} came twice {wrong}; try again later, or set download.huggingface.revision"
    )


def _size(path: Path) -> int:
    return path.stat().st_size


def _download(part: Part, draft: Path) -> None:
    """Add what is missing; never more than a block beyond what the file should have."""
    url = hf_hub_url(
        part.name, part.path, repo_type="dataset", revision=part.commit, endpoint=_endpoint()
    )
    have = _size(draft) if _size(draft) < part.size else 0
    headers = (
        build_hf_headers(token=_token() or False)
        | {"Accept-Encoding": "identity"}
        | ({"Range": f"bytes={have}-"} if have else {})
    )
    with get_session().stream("GET", url, headers=headers, timeout=TIMEOUT_SECONDS) as reply:
        hf_raise_for_status(reply)
        with draft.open(
            "ab" if reply.status_code == 206 else "wb", buffering=0
        ) as file:  # all of it survives a kill
            for block in reply.iter_bytes():
                file.write(block)
                if file.tell() > part.size:
                    return


def _defect(part: Part, draft: Path) -> str:
    """What is wrong with a file that has come; nothing where it is as the hub lists it."""
    kind, _, wanted = part.checksum.partition(":")
    digest = hashlib.sha256() if kind == "sha256" else hashlib.sha1(b"blob %d\0" % part.size)
    with draft.open("rb") as file:
        start = block = file.read(1 << 20)
        while block:
            digest.update(block)
            block = file.read(1 << 20)
    if _size(draft) == part.size and digest.hexdigest() == wanted:
        return ""
    if start[:64].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "as a web page (a login page, a proxy?)"
    if _size(draft) != part.size:
        return f"in the wrong length ({_size(draft):,} bytes, want {part.size:,})"
    return "with a wrong checksum"


def _with_retries(name: str, ask: Callable[[], T], done: Callable[[], int] = lambda: 0) -> T:
    """Ask until there is an answer: again after a fault that passes, for as long as the hub wants.

    Args:
        done: bytes there are by now; tries that add to them are not in vain, and count for nothing.
    """
    tries, waited, had = 0, 0.0, done()
    while True:
        try:
            return ask()
        except RevisionNotFoundError:
            raise
        except (HTTPError, InvalidURL, OfflineModeIsEnabled) as error:
            if done() > had:
                tries, waited, had = 0, 0.0, done()
            tries += 1
            seconds = _wait_seconds(error, tries)
            waited += seconds
            if tries > MAX_TRIES or waited > MAX_WAIT_SECONDS:
                raise _network_error(name, error) from None
        time.sleep(WAIT_SCALE * seconds)


def _wait_seconds(error: Exception, tries: int) -> float:
    """How long to wait before the next try; without end where no try will help."""
    if isinstance(error, OfflineModeIsEnabled | InvalidURL):
        return float("inf")
    if not isinstance(error, HfHubHTTPError):
        return 2.0 ** (tries - 1)
    if error.response.status_code not in BUSY:
        return float("inf")
    limit, wanted = (
        parse_ratelimit_headers(error.response.headers),
        error.response.headers.get("Retry-After", ""),
    )
    if limit and not limit.remaining:
        return float(limit.reset_in_seconds)
    return float(wanted) if wanted.isdecimal() else 2.0 ** (tries - 1)


def _network_error(name: str, error: Exception) -> UserError:
    """What happened and the way out, in one line; never the error's own words, which may hold a
    signed address.
    """
    page, token = f"{_endpoint()}/datasets/{name}", bool(_token())
    if isinstance(error, OfflineModeIsEnabled):
        return NetworkError(
            f"{name}: HF_HUB_OFFLINE forbids to ask the hub; unset it, or take a copy (download.source: folder)"
        )
    if not isinstance(error, HfHubHTTPError):
        why = f"{_endpoint()} cannot be reached ({type(error).__name__})"
        return NetworkError(
            f"{name}: {why}; check the network and HF_ENDPOINT, then run again: it goes on where it stopped"
        )
    status = error.response.status_code
    if isinstance(error, GatedRepoError):
        then = (
            "with the account that HF_TOKEN belongs to"
            if token
            else "then set HF_TOKEN to a token of yours"
        )
        return NetworkError(f"{name}: given to those who accept its terms; do so at {page}, {then}")
    if status in (401, 403) and token:
        return NetworkError(
            f"{name}: the hub does not let HF_TOKEN in ({status}); renew it ({_endpoint()}/settings/tokens), or see {page}"
        )
    if status in (401, 403, 404):
        private = "" if token else ", or private (then set HF_TOKEN)"
        what = f"not on the hub ({status}): gone, misspelt{private}"
        return NetworkError(
            f"{name}: {what}; {COMMON_VOICE_MOVED if 'common_voice' in name.lower() else f'see {page}'}"
        )
    if status in BUSY:
        return NetworkError(
            f"{name}: the hub is busy ({status}); run again later: it goes on where it stopped"
        )
    return NetworkError(f"{name}: the hub refuses ({status}); see {page}")
