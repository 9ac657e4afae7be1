"""Files of a data set on the Hugging Face hub: listed at a commit, each fetched once and checked.

The hub's client gives its drafts a new name each time, so a killed download begins again. Here a
draft keeps its name, and the client's session is asked for the missing bytes alone. Files wait in
`.cache/hub/<name>/<commit>/`; each is read once for its checksum. The token comes from HF_TOKEN
alone, and is sent to the hub alone.
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

TIMEOUT_SECONDS = 30.0  # without a byte
MAX_TRIES = 5  # in a row that bring no bytes
# For one answer, all tries together; the hub counts requests over 300 s.
MAX_WAIT_SECONDS = 900.0
WAIT_SCALE = 1.0  # multiplies all waiting; tests lower it
BUSY = (408, 429, 500, 502, 503, 504)
BLOCK = 1 << 20  # bytes read at once
WEB_PAGE = (b"<!doctype html", b"<html")
COMMON_VOICE_MOVED = (
    "Common Voice left the hub in October 2025; take its archive (download.source: common_voice) "
    "or Mozilla's (data_collective)"
)


@dataclass(frozen=True)
class Part:
    """One file of a data set at a commit.

    Attributes:
        name: of the data set.
        commit: the revision's hash.
        path: in the repository.
        size: bytes.
        checksum: `sha256:...`, or `git:...` where the file is not in LFS.
        local_path: where it is once fetched.
    """

    name: str
    commit: str
    path: str
    size: int
    checksum: str
    local_path: Path


def parts(name: str, revision: str | None) -> list[Part] | None:
    """List all files of a data set; None where it has no such revision.

    Args:
        name: such as google/fleurs.
        revision: commit, tag or branch; None takes the newest.
    Raises:
        ParamsError: that is no name.
        NetworkError: the hub cannot be reached, or refuses.
    """
    try:
        validate_repo_id(name)
    except HFValidationError:
        raise ParamsError(
            f"download.path: got {name!r}, want the data set's name on the hub, "
            "such as google/fleurs"
        ) from None
    request = partial(
        HfApi(_endpoint()).dataset_info,
        name,
        revision=revision,
        token=_token() or False,
        timeout=TIMEOUT_SECONDS,
    )
    try:
        commit = _with_retries(name, request).sha
        return [
            _part(name, commit, entry) for entry in _tree(name, commit) if entry["type"] == "file"
        ]
    except RevisionNotFoundError:
        return None
    except (ValueError, TypeError, KeyError):
        raise NetworkError(
            f"{_endpoint()} answers as no hub does (a login page, a proxy?); "
            "check HF_ENDPOINT and the network"
        ) from None


def _tree(name: str, commit: str) -> Iterator[dict[str, Any]]:
    """Yield all entries of a commit, page by page.

    The client's own listing of a data set may silently lack some of 1,000 files.
    """
    url = f"{_endpoint()}/api/datasets/{name}/tree/{commit}"
    query = {"recursive": "true"}
    while True:
        reply = _with_retries(name, partial(_get, url, query))
        yield from reply.json()
        # Of the next page's address only the cursor is taken: the token is sent to the hub alone.
        next_url = reply.links.get("next", {}).get("url", "")
        cursors = parse_qs(urlsplit(next_url).query).get("cursor")
        if not cursors:
            return
        if cursors[-1] == query.get("cursor"):
            raise ValueError("no end")
        query["cursor"] = cursors[-1]


def _get(url: str, query: dict[str, str]) -> Any:
    reply = get_session().get(
        url,
        headers=build_hf_headers(token=_token() or False),
        params=query,
        timeout=TIMEOUT_SECONDS,
    )
    hf_raise_for_status(reply)
    return reply


def _part(name: str, commit: str, entry: dict[str, Any]) -> Part:
    """Raises ValueError, TypeError or KeyError for what no hub would list."""
    folder = paths.cache("hub", name, commit)
    path = entry["path"]
    local_path = (folder / path).resolve()
    if not local_path.is_relative_to(folder.resolve()) or len(commit) != 40:
        raise ValueError(path)
    large = entry.get("lfs")
    if large:
        return Part(name, commit, path, int(large["size"]), f"sha256:{large['oid']}", local_path)
    return Part(name, commit, path, int(entry["size"]), f"git:{entry['oid']}", local_path)


def _endpoint() -> str:
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def _token() -> str:
    return os.environ.get("HF_TOKEN", "").strip()


def lock_path(name: str) -> Path:
    """The lock to hold while this data set is fetched; it lies beside what `forget` removes."""
    return paths.cache("hub", f"{name}.lock")


def forget(name: str) -> None:
    """Remove all that was fetched of a data set; who still reads it fetches it again."""
    with locked(lock_path(name)):
        shutil.rmtree(paths.cache("hub", name), ignore_errors=True)


def fetch(part: Part) -> Path:
    """Return the whole file; an earlier fetch that was stopped is resumed at its last byte.

    Raises:
        NetworkError: it does not come, or comes twice with a wrong length or checksum.
        DiskError: there is no room for it.
    """
    if part.local_path.is_file():
        return part.local_path
    draft = part.local_path.with_name(f"{part.local_path.name}.part")
    draft.parent.mkdir(parents=True, exist_ok=True)
    draft.touch()
    disk.check_free_space(draft.parent, part.size - _size(draft), f"{part.name}: {part.path}")
    for _ in range(2):
        if _size(draft) != part.size:
            _with_retries(part.name, lambda: _download(part, draft), lambda: _size(draft))
        defect = _defect(part, draft)
        if not defect:
            files.sync(draft)
            draft.rename(part.local_path)
            return part.local_path
        draft.write_bytes(b"")
    raise NetworkError(
        f"{part.name}: {part.path} came twice {defect}; "
        "try again later, or set download.huggingface.revision"
    )


def _size(path: Path) -> int:
    return path.stat().st_size


def _download(part: Part, draft: Path) -> None:
    """Append the missing bytes; at most a block more than the file should have."""
    url = hf_hub_url(
        part.name, part.path, repo_type="dataset", revision=part.commit, endpoint=_endpoint()
    )
    headers = build_hf_headers(token=_token() or False) | {"Accept-Encoding": "identity"}
    have = _size(draft) if _size(draft) < part.size else 0
    if have:
        headers |= {"Range": f"bytes={have}-"}
    with get_session().stream("GET", url, headers=headers, timeout=TIMEOUT_SECONDS) as reply:
        hf_raise_for_status(reply)
        mode = "ab" if reply.status_code == 206 else "wb"
        with draft.open(mode, buffering=0) as file:  # unbuffered: all that came survives a kill
            for block in reply.iter_bytes():
                file.write(block)
                if file.tell() > part.size:
                    return


def _defect(part: Part, draft: Path) -> str:
    """What is wrong with a file that has come; empty where it is as the hub lists it."""
    kind, _, checksum = part.checksum.partition(":")
    digest = hashlib.sha256() if kind == "sha256" else hashlib.sha1(b"blob %d\0" % part.size)
    with draft.open("rb") as file:
        start = block = file.read(BLOCK)
        while block:
            digest.update(block)
            block = file.read(BLOCK)
    if _size(draft) == part.size and digest.hexdigest() == checksum:
        return ""
    if start[:64].lstrip().lower().startswith(WEB_PAGE):
        return "as a web page (a login page, a proxy?)"
    if _size(draft) != part.size:
        return f"in the wrong length ({_size(draft):,} bytes, want {part.size:,})"
    return "with a wrong checksum"


def _with_retries(
    name: str, request: Callable[[], T], bytes_here: Callable[[], int] = lambda: 0
) -> T:
    """Send a request until it is answered: again after an error that passes, as the hub asks.

    Args:
        bytes_here: how much has come so far; tries that bring more are not counted.
    """
    tries = 0
    waited = 0.0
    bytes_before = bytes_here()
    while True:
        try:
            return request()
        except RevisionNotFoundError:
            raise
        except (HTTPError, InvalidURL, OfflineModeIsEnabled) as error:
            if bytes_here() > bytes_before:
                tries = 0
                waited = 0.0
                bytes_before = bytes_here()
            tries += 1
            seconds = _wait_seconds(error, tries)
            waited += seconds
            if tries > MAX_TRIES or waited > MAX_WAIT_SECONDS:
                raise _network_error(name, error) from None
        time.sleep(WAIT_SCALE * seconds)


def _wait_seconds(error: Exception, tries: int) -> float:
    """How long to wait before the next try; infinite where no try will help."""
    if isinstance(error, OfflineModeIsEnabled | InvalidURL):
        return float("inf")
    if not isinstance(error, HfHubHTTPError):
        return 2.0 ** (tries - 1)
    if error.response.status_code not in BUSY:
        return float("inf")
    headers = error.response.headers
    limit = parse_ratelimit_headers(headers)
    if limit and not limit.remaining:
        return float(limit.reset_in_seconds)
    retry_after = headers.get("Retry-After", "")
    return float(retry_after) if retry_after.isdecimal() else 2.0 ** (tries - 1)


def _network_error(name: str, error: Exception) -> UserError:
    """Say what happened and the way out, in one line.

    The error's own words are left out, for they may hold a signed address.
    """
    if isinstance(error, OfflineModeIsEnabled):
        reason = (
            "HF_HUB_OFFLINE forbids to ask the hub; "
            "unset it, or take a copy (download.source: folder)"
        )
    elif isinstance(error, HfHubHTTPError):
        reason = _refusal(name, error)
    else:
        reason = (
            f"{_endpoint()} cannot be reached ({type(error).__name__}); "
            "check the network and HF_ENDPOINT, then run again: it goes on where it stopped"
        )
    return NetworkError(f"{name}: {reason}")


def _refusal(name: str, error: HfHubHTTPError) -> str:
    """What an answer other than success means, and the way out."""
    page = f"{_endpoint()}/datasets/{name}"
    has_token = bool(_token())
    status = error.response.status_code
    if isinstance(error, GatedRepoError):
        account = "then set HF_TOKEN to a token of yours"
        if has_token:
            account = "with the account that HF_TOKEN belongs to"
        return f"given to those who accept its terms; do so at {page}, {account}"
    if status in (401, 403) and has_token:
        return (
            f"the hub does not let HF_TOKEN in ({status}); "
            f"renew it ({_endpoint()}/settings/tokens), or see {page}"
        )
    if status in (401, 403, 404):
        private = "" if has_token else ", or private (then set HF_TOKEN)"
        advice = COMMON_VOICE_MOVED if "common_voice" in name.lower() else f"see {page}"
        return f"not on the hub ({status}): gone, misspelt{private}; {advice}"
    if status in BUSY:
        return f"the hub is busy ({status}); run again later: it goes on where it stopped"
    return f"the hub refuses ({status}); see {page}"
