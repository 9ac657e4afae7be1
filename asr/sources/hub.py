"""Files of a data set on the Hugging Face hub: listed at a commit, fetched by its client, checked.

The client compares what came with what the answer says of itself; here it is compared with the
listing, so a login page in the hub's place is never taken for a file. Files wait in
`.cache/hub/<name>/<commit>/`. A killed fetch begins the file again, for the client gives each draft
a new name. The token comes from HF_TOKEN alone.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from httpx2 import HTTPError, InvalidURL
from huggingface_hub import HfApi, RepoFile, constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers, disable_progress_bars, paginate
from huggingface_hub.utils.sha import git_hash

from asr import paths
from asr.errors import NetworkError, ParamsError
from asr.runtime import disk
from asr.runtime.locks import locked
from asr.storage import files, hashing

T = TypeVar("T")

# The faster way to fetch keeps a copy of the data in ~/.cache.
constants.HF_HUB_DISABLE_XET = True
disable_progress_bars("huggingface_hub.http_get")  # one a file; there is one for all of them

TIMEOUT_SECONDS = 30.0  # without a byte
# The client asks again itself, but not for a commit, and not after an error of the server or a
# broken connection in the middle of a file.
MAX_TRIES = 3
PAUSE_SECONDS = 5.0
BUSY = (408, 429, 500, 502, 503, 504)
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
        return _ask(name, name, partial(_list, name, revision))
    except HFValidationError:
        raise ParamsError(
            f"download.path: got {name!r}, want the data set's name on the hub, "
            "such as google/fleurs"
        ) from None
    except (ValueError, TypeError, KeyError):
        raise NetworkError(
            f"{_endpoint()} answers as no hub does (a login page, a proxy?); "
            "check HF_ENDPOINT and the network"
        ) from None


def _list(name: str, revision: str | None) -> list[Part] | None:
    api = _api()
    try:
        commit = str(api.dataset_info(name, revision=revision, timeout=TIMEOUT_SECONDS).sha)
    except RevisionNotFoundError:
        return None
    # The same answer's own list of files ends at some number of them, and `list_repo_tree` waits
    # for ever where the hub is silent.
    entries = paginate(
        f"{api.endpoint}/api/datasets/{name}/tree/{commit}",
        params={"recursive": True},
        headers=build_hf_headers(token=api.token),
        timeout=TIMEOUT_SECONDS,
    )
    return [_part(name, commit, RepoFile(**entry)) for entry in entries if entry["type"] == "file"]


def _part(name: str, commit: str, entry: RepoFile) -> Part:
    """Raises ValueError for what no hub would list."""
    folder = paths.cache("hub", name, commit).resolve()
    local_path = (folder / entry.path).resolve()
    if not local_path.is_relative_to(folder) or len(commit) != 40:
        raise ValueError(entry.path)
    checksum = f"sha256:{entry.lfs.sha256}" if entry.lfs else f"git:{entry.blob_id}"
    return Part(name, commit, entry.path, entry.size, checksum, local_path)


def _api() -> HfApi:
    # False, or the client takes a token that was left on this machine.
    return HfApi(endpoint=_endpoint(), token=_token() or False)


def _endpoint() -> str:
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def _token() -> str:
    return os.environ.get("HF_TOKEN", "").strip()


def _lock(name: str) -> Path:
    """Held while a data set is fetched; it lies beside what `forget` removes."""
    return paths.cache("hub", f"{name}.lock")


def forget(name: str) -> None:
    """Remove all that was fetched of a data set; who still reads it fetches it again."""
    with locked(_lock(name)):
        shutil.rmtree(paths.cache("hub", name), ignore_errors=True)


def fetch(part: Part) -> Path:
    """Return the whole file, fetched if it is not here.

    Raises:
        NetworkError: it does not come, or not as the hub lists it.
        DiskError: there is no room for it.
    """
    if not part.local_path.is_file():
        with locked(_lock(part.name)):
            if not part.local_path.is_file():
                what = f"{part.name}: {part.path}"
                disk.check_free_space(paths.cache("hub"), part.size, what)
                _ask(part.name, what, partial(_download, part))
    return part.local_path


def _download(part: Part) -> None:
    """Fetch a file; it gets its name once it is checked.

    Raises:
        OSError: it is not what the hub lists.
    """
    drafts = paths.cache("hub", part.name, "drafts")
    shutil.rmtree(drafts, ignore_errors=True)  # what a killed process left
    draft = Path(
        _api().hf_hub_download(
            part.name,
            part.path,
            repo_type="dataset",
            revision=part.commit,
            local_dir=drafts,
            cache_dir=drafts,  # else it also looks into the user's
            etag_timeout=TIMEOUT_SECONDS,
        )
    )
    if draft.stat().st_size != part.size or _checksum(part, draft) != part.checksum:
        raise OSError
    files.sync(draft)
    part.local_path.parent.mkdir(parents=True, exist_ok=True)
    draft.rename(part.local_path)


def _checksum(part: Part, path: Path) -> str:
    if part.checksum.startswith("sha256:"):
        return f"sha256:{hashing.sha256(path)}"
    return f"git:{git_hash(path.read_bytes())}"


def _ask(name: str, what: str, request: Callable[[], T]) -> T:
    """Send a request until it is answered, but not for ever.

    Raises:
        NetworkError: it is not answered, or refused.
    """
    for tries_left in reversed(range(MAX_TRIES)):
        try:
            return request()
        except (HTTPError, InvalidURL, OSError) as error:
            if getattr(error, "errno", None):  # not the hub: the disk is full, for example
                raise
            cause = error.__cause__ if isinstance(error, LocalEntryNotFoundError) else error
            if not tries_left or not _passes(cause):
                raise NetworkError(f"{what}: {_reason(name, cause)}") from None
        time.sleep(PAUSE_SECONDS)
    raise AssertionError


def _passes(error: BaseException | None) -> bool:
    """Whether another try may help."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in BUSY
    return not isinstance(error, OfflineModeIsEnabled | InvalidURL)


def _reason(name: str, error: BaseException | None) -> str:
    """What happened and the way out, in one line.

    The error's own words are left out, for they may hold a signed address.
    """
    if isinstance(error, OfflineModeIsEnabled):
        return (
            "HF_HUB_OFFLINE forbids to ask the hub; "
            "unset it, or take a copy (download.source: folder)"
        )
    if isinstance(error, HfHubHTTPError):
        return _refusal(name, error)
    if isinstance(error, HTTPError | InvalidURL):
        return (
            f"{_endpoint()} cannot be reached ({type(error).__name__}); "
            "check the network and HF_ENDPOINT, then run again: it goes on at this file"
        )
    return (
        "what comes is not what the hub lists (a login page, a proxy?); "
        "try again later, or set download.huggingface.revision"
    )


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
        return f"the hub is busy ({status}); run again later: it goes on at this file"
    return f"the hub refuses ({status}); see {page}"
