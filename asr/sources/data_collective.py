"""A Common Voice release from Mozilla Data Collective, where Common Voice lives now.

Mozilla's own SDK downloads it (an optional extra). The archive waits in `.cache/collective/<id>/`.
The SDK resumes a download that was killed, but does not check what came: that is done here. Costs
the archive's size on disk until `forget`, and what `common_voice` unpacks. The key comes from
MDC_API_KEY alone.
"""

from __future__ import annotations

import importlib
import os
import re
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import requests

from asr import paths
from asr.errors import DISK_ERRORS, DataError, NetworkError, ParamsError, UserError
from asr.runtime import disk
from asr.sources import common_voice
from asr.sources.utterances import Corpus
from asr.storage import hashing

SITE = "https://mozilladatacollective.com"
MAX_TRIES = 5  # in a row that bring no bytes
MAX_WAIT_SECONDS = 900.0  # before one try
WAIT_SCALE = 1.0  # multiplies all waiting; tests lower it
SHA256 = re.compile(r"[0-9a-f]{64}")


def read(dataset_id: str, working: Path, splits: Literal["official", "validated"]) -> Corpus:
    """Download a release, and list its utterances.

    Args:
        dataset_id: the data set's id or slug on the platform.
        working: an empty folder that the caller throws away, for what the archive holds.
        splits: as in `common_voice.read`.
    Raises:
        ParamsError: no such id.
        DataError: the archive holds no Common Voice release.
        NetworkError: the SDK or the key is missing, or the platform cannot be reached or refuses.
    """
    if not re.fullmatch(r"[\w-][\w.-]*", dataset_id):
        raise ParamsError(
            f"download.path: got {dataset_id!r}, want a data set's id at {SITE}: "
            "press Download, then API / Python Access"
        )
    archive, about = fetch(dataset_id)
    corpus = common_voice.read(archive, working, splits)
    return replace(corpus, about=corpus.about | about)


def forget(dataset_id: str) -> None:
    """Remove what was downloaded."""
    shutil.rmtree(paths.cache("collective", dataset_id), ignore_errors=True)


def fetch(dataset_id: str) -> tuple[Path, dict[str, Any]]:
    """Download the archive, with retries, and check it.

    Returns:
        its path, and what the manifest tells of it.
    """
    sdk = _import_sdk()
    folder = paths.cache("collective", dataset_id)
    folder.mkdir(parents=True, exist_ok=True)
    tries = 0
    bytes_before = 0
    while True:
        try:
            return _download(sdk, dataset_id, folder)
        except (
            requests.RequestException,
            RuntimeError,
            ValueError,
            OSError,
            sdk.errors.DownloadError,
        ) as error:
            cause = error.__cause__ if isinstance(error, sdk.errors.DownloadError) else error
            if isinstance(cause, KeyboardInterrupt) or getattr(cause, "errno", None) in DISK_ERRORS:
                raise cause from None
            bytes_now = sum(file.stat().st_size for file in folder.iterdir())
            # A try that brought bytes was not in vain: the count begins anew.
            tries = 1 if bytes_now > bytes_before else tries + 1
            bytes_before = bytes_now
            seconds = _wait_seconds(sdk, cause, tries)
            if tries > MAX_TRIES or seconds > MAX_WAIT_SECONDS:
                raise _network_error(sdk, dataset_id, cause) from None
        time.sleep(WAIT_SCALE * seconds)


def _import_sdk() -> Any:
    """Mozilla's package, if it and the key are there."""
    if not os.environ.get("MDC_API_KEY", "").strip():
        raise NetworkError(
            f"MDC_API_KEY is not set; make a key at {SITE}/api-reference, "
            "and put it into the environment"
        )
    try:
        return importlib.import_module("datacollective")
    except ImportError:
        install = "pip install -c requirements.txt -e '.[data-collective]'"
        raise NetworkError(
            f"download.source: data_collective needs Mozilla's SDK, an optional extra; {install}"
        ) from None


def _download(sdk: Any, dataset_id: str, folder: Path) -> tuple[Path, dict[str, Any]]:
    """Download the archive, and once more if what came is not what the platform lists."""
    details = sdk.get_dataset_details(dataset_id)
    archive = folder / Path(str(details.filename)).name
    if archive.name != details.filename or archive.name.startswith(".") or not details.sizeBytes:
        raise DataError(
            f"{dataset_id}: the platform names no archive of it; see {_page(dataset_id)}"
        )
    defect = ""
    for _ in range(2):
        _adopt_whole_part(archive, details.sizeBytes)
        sdk.download_dataset(dataset_id, str(folder), show_progress=sys.stderr.isatty())
        digest, defect = _verify(archive, details)
        if not defect:
            return archive, _about(archive, details, digest)
        archive.unlink()
    raise NetworkError(f"{dataset_id}: {archive.name} came twice {defect}; try again later")


def _about(archive: Path, details: Any, digest: str) -> dict[str, Any]:
    about = {
        "dataset": details.id,
        "archive": archive.name,
        "bytes": archive.stat().st_size,
        "sha256": digest,
    }
    license_name = details.licenseAbbreviation or details.license
    if license_name:
        about["licence"] = license_name
    return about


def _adopt_whole_part(archive: Path, size: float) -> None:
    """Rename a draft that has all its bytes, and check that what is missing fits on the disk.

    The SDK would ask for the bytes behind the last one, and fail.
    """
    part = archive.with_name(f"{archive.name}.part")
    have = part.stat().st_size if part.exists() else 0
    if have == size:
        part.replace(archive)
    if not archive.exists():
        disk.check_free_space(archive.parent, size - have, archive.name)


def _verify(archive: Path, details: Any) -> tuple[str, str]:
    """Compare the archive with the platform's size and checksum.

    Returns:
        the archive's SHA-256; what is wrong with it, or an empty string.
    """
    digest = hashing.sha256(archive)
    size = archive.stat().st_size
    if size != details.sizeBytes:
        return digest, f"in the wrong length ({size:,} bytes, want {details.sizeBytes:,})"
    # The platform does not say which kind its checksum is; one that cannot be SHA-256 is ignored.
    checksum = str(details.checksum or "").lower().removeprefix("sha256:")
    if SHA256.fullmatch(checksum) and checksum != digest:
        return digest, "with a wrong checksum"
    return digest, ""


def _wait_seconds(sdk: Any, error: Any, tries: int) -> float:
    """How long to wait before the next try; infinite where no try will help."""
    if isinstance(error, sdk.RateLimitError):
        retry_after = error.response.headers.get("Retry-After", "")
        return float(retry_after) if retry_after.isdecimal() else 2.0**tries
    status = _status(error)
    if _is_connection_error(error) and (status is None or status >= 500):
        return 2.0 ** (tries - 1)
    return float("inf")


def _status(error: Any) -> int | None:
    """The HTTP status of an error that is an answer."""
    return getattr(getattr(error, "response", None), "status_code", None)


def _is_connection_error(error: Any) -> bool:
    """Whether `requests` failed, and not because of an answer that is no JSON."""
    is_json_error = isinstance(error, requests.JSONDecodeError)
    return isinstance(error, requests.RequestException) and not is_json_error


def _network_error(sdk: Any, dataset_id: str, error: Any) -> UserError:
    """Say what happened and the way out, in one line.

    The SDK's own messages have several lines, with signed addresses.
    """
    status = _status(error)
    if isinstance(error, sdk.AuthenticationError):
        reason = f"the platform does not know MDC_API_KEY; make another at {SITE}/api-reference"
    elif isinstance(error, PermissionError):
        reason = (
            "given to those who accept its terms; "
            f"do so at {_page(dataset_id)} with the account of MDC_API_KEY"
        )
    elif isinstance(error, FileNotFoundError):
        reason = (
            "the platform has it not, or not any more; "
            f"want an id from {SITE}/datasets (download.path)"
        )
    elif isinstance(error, sdk.RateLimitError) or (status and status >= 500):
        reason = f"the platform is busy ({status}); run again later: it goes on where it stopped"
    elif status:
        reason = f"the platform refuses ({status}); see {_page(dataset_id)}"
    elif _is_connection_error(error):
        reason = (
            f"the platform cannot be reached ({type(error).__name__}); "
            "check the network, then run again: it goes on where it stopped"
        )
    else:
        reason = (
            "something else answers in the platform's place (a login page, a proxy?); "
            "check the network"
        )
    return NetworkError(f"{dataset_id}: {reason}")


def _page(dataset_id: str) -> str:
    return f"{SITE}/datasets/{dataset_id}"
