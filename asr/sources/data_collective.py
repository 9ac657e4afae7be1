"""A Common Voice release from Mozilla Data Collective, where Common Voice lives now, through
Mozilla's own SDK (an optional extra).

The archive waits in `.cache/collective/<id>/`; the SDK goes on where a killed download stopped, and
does not look at what has come: that is done here. Costs the archive's size on disk until `forget`,
and what `common_voice` unpacks. The key comes from MDC_API_KEY alone.
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
from typing import Any

import requests

from asr import paths
from asr.errors import DISK_ERRORS, DataError, NetworkError, ParamsError, UserError
from asr.runtime import disk
from asr.sources import common_voice
from asr.sources.utterances import Corpus
from asr.storage import hashing

SITE = "https://mozilladatacollective.com"
MAX_TRIES = 5  # in a row that bring nothing
MAX_WAIT_SECONDS = 900.0  # seconds to wait for one try
WAIT_SCALE = 1.0  # by which all waiting is multiplied


def read(dataset_id: str, working: Path, *given: Any) -> Corpus:
    """Download a release, and list its utterances.

    Args:
        dataset_id: the data set's id or slug on the platform.
        working: an empty folder that the caller throws away, for what the archive holds.
        given: what else `common_voice.read` takes.
    Raises:
        BadParams: no such id.
        BadData: the archive holds no Common Voice release.
        NetworkFault: the SDK or the key is not there, or the platform cannot be reached, or does
            not let us in.
    """
    if not re.fullmatch(r"[\w-][\w.-]*", dataset_id):
        raise ParamsError(
            f"download.path: got {dataset_id!r}, want a data set's id at {SITE}: press Download, then API / Python Access"
        )
    archive, about = fetch(dataset_id)
    corpus = common_voice.read(archive, working, *given)
    return replace(corpus, about=corpus.about | about)


def forget(dataset_id: str) -> None:
    """Drop what was downloaded."""
    shutil.rmtree(paths.cache("collective", dataset_id), ignore_errors=True)


def fetch(dataset_id: str) -> tuple[Path, dict[str, Any]]:
    """The archive, whole and checked, and what the manifest tells of it."""
    sdk, place = _sdk(), paths.cache("collective", dataset_id)
    place.mkdir(parents=True, exist_ok=True)
    tries, had = 0, 0
    while True:
        try:
            return _download(sdk, dataset_id, place)
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
            came = sum(part.stat().st_size for part in place.iterdir())
            tries, had = 1 if came > had else tries + 1, came
            seconds = _wait_seconds(sdk, cause, tries)
            if tries > MAX_TRIES or seconds > MAX_WAIT_SECONDS:
                raise _network_error(sdk, dataset_id, cause) from None
        time.sleep(WAIT_SCALE * seconds)


def _sdk() -> Any:
    """Mozilla's package, if it and the key are there."""
    if not os.environ.get("MDC_API_KEY", "").strip():
        raise NetworkError(
            f"MDC_API_KEY is not set; make a key at {SITE}/api-reference, and put it into the environment"
        )
    try:
        return importlib.import_module("datacollective")
    except ImportError:
        way = "pip install -c requirements.txt -e '.[data-collective]'"
        raise NetworkError(
            f"download.source: data_collective needs Mozilla's SDK, an optional extra; {way}"
        ) from None


def _download(sdk: Any, dataset_id: str, place: Path) -> tuple[Path, dict[str, Any]]:
    details = sdk.get_dataset_details(dataset_id)
    archive = place / Path(str(details.filename)).name
    if archive.name != details.filename or archive.name.startswith(".") or not details.sizeBytes:
        raise DataError(
            f"{dataset_id}: the platform names no archive of it; see {_page(dataset_id)}"
        )
    wrong = ""
    for _ in range(2):
        _adopt_whole_part(archive, details.sizeBytes)
        sdk.download_dataset(dataset_id, str(place), show_progress=sys.stderr.isatty())
        digest, wrong = _verify(archive, details)
        if not wrong:
            known = {
                "dataset": details.id,
                "archive": archive.name,
                "bytes": archive.stat().st_size,
                "sha256": digest,
            }
            return archive, known | (
                {"licence": licence}
                if (licence := details.licenseAbbreviation or details.license)
                else {}
            )
        archive.unlink()
    raise NetworkError(f"{dataset_id}: {archive.name} came twice {wrong}; try again later")


def _adopt_whole_part(archive: Path, size: float) -> None:
    """Give a part that has all its bytes its name, for the SDK would ask for those that follow; and
    see that the rest fits.
    """
    part = archive.with_name(f"{archive.name}.part")
    begun = part.stat().st_size if part.exists() else 0
    if begun == size:
        part.replace(archive)
    if not archive.exists():
        disk.check_free_space(archive.parent, size - begun, archive.name)


def _verify(archive: Path, details: Any) -> tuple[str, str]:
    """The archive's hash, and what is wrong with it: the platform tells its size, and a checksum of
    which kind it does not say.
    """
    digest, size = hashing.sha256(archive), archive.stat().st_size
    if size != details.sizeBytes:
        return digest, f"in the wrong length ({size:,} bytes, want {details.sizeBytes:,})"
    told = str(details.checksum or "").lower().removeprefix("sha256:")
    return digest, "with a wrong checksum" if re.fullmatch(
        r"[0-9a-f]{64}", told
    ) and told != digest else ""


def _wait_seconds(sdk: Any, error: Any, tries: int) -> float:
    """How long to wait before the next try; without end where no try will help."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, sdk.RateLimitError):
        wanted = error.response.headers.get("Retry-After", "")
        return float(wanted) if wanted.isdecimal() else 2.0**tries
    passes = isinstance(error, requests.RequestException) and not isinstance(
        error, requests.JSONDecodeError
    )
    return 2.0 ** (tries - 1) if passes and (status is None or status >= 500) else float("inf")


def _network_error(sdk: Any, dataset_id: str, error: Any) -> UserError:
    """What happened and the way out, in one line of our own: theirs are several, with signed
    addresses.
    """
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, sdk.AuthenticationError):
        return NetworkError(
            f"{dataset_id}: the platform does not know MDC_API_KEY; make another at {SITE}/api-reference"
        )
    if isinstance(error, PermissionError):
        return NetworkError(
            f"{dataset_id}: given to those who accept its terms; do so at {_page(dataset_id)} with the account of MDC_API_KEY"
        )
    if isinstance(error, FileNotFoundError):
        return NetworkError(
            f"{dataset_id}: the platform has it not, or not any more; want an id from {SITE}/datasets (download.path)"
        )
    if isinstance(error, sdk.RateLimitError) or (status and status >= 500):
        return NetworkError(
            f"{dataset_id}: the platform is busy ({status}); run again later: it goes on where it stopped"
        )
    if status:
        return NetworkError(
            f"{dataset_id}: the platform refuses ({status}); see {_page(dataset_id)}"
        )
    if isinstance(error, requests.RequestException) and not isinstance(
        error, requests.JSONDecodeError
    ):
        why = f"the platform cannot be reached ({type(error).__name__})"
        return NetworkError(
            f"{dataset_id}: {why}; check the network, then run again: it goes on where it stopped"
        )
    return NetworkError(
        f"{dataset_id}: something else answers in the platform's place (a login page, a proxy?); check the network"
    )


def _page(dataset_id: str) -> str:
    return f"{SITE}/datasets/{dataset_id}"
