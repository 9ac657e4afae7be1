"""The sound of one YouTube video, for the optional extra `youtube`: a link is reduced to its id
before any socket opens.

    python -m asr.transcribe.youtube ID FOLDER     # the child: fetches recording.* into the folder

yt-dlp runs in a process group of its own with limits on length, size and time, reads no settings,
cookies or plugins, starts no ffmpeg, and speaks to YouTube's hosts alone, wherever a redirect
points. Costs what the download costs.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import re
import select
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import parse_qs, urlsplit

from asr.audio.sample_file import Cancelled
from asr.errors import DataError, DiskError, NetworkError, ParamsError, UserError, exit_with

EXAMPLE = "https://www.youtube.com/watch?v=... or https://youtu.be/..."
INSTALL = "YouTube links need yt-dlp, an optional extra; pip install -e '.[youtube]'"
MAX_LINK = 500
LINK = re.compile(
    r"(?:https?://)?((?:(?:www|m|music)\.)?youtube\.com|www\.youtube-nocookie\.com|youtu\.be)(/[!-~]*)",
    re.IGNORECASE,
)
PAGE = re.compile(r"/(?:shorts|embed|live|v)/([^/]+)/?")
SHORT = re.compile(r"/([^/]+)/?")
VIDEO = re.compile(r"[A-Za-z0-9_-]{11}")
NO_VIDEO = (
    "videoseries",
    "live_stream",
)  # eleven letters that stand where an id stands, for a playlist and for a channel
HOSTS = (
    "youtube.com",
    "googlevideo.com",
    "youtubei.googleapis.com",
    "youtube-nocookie.com",
    "youtu.be",
)
NAME = "recording"
LIMIT_HOURS = 3
LIMIT_BYTES = 200 << 20
LIMIT_SECONDS = 600.0
TOO_LARGE = f"the sound of this video has more than {LIMIT_BYTES >> 20} MB"
PROGRESS = re.compile(rb"progress ([01]\.\d+)")
FAULTS: dict[int, type[UserError]] = {
    kind.exit_code: kind for kind in (ParamsError, DataError, NetworkError, DiskError)
}


def video_id(link: str) -> str:
    """The eleven characters that name a video; opens no socket.

    Raises:
        BadParams: anything but the link of one YouTube video.
    """
    found = LINK.fullmatch(link.strip()) if len(link) <= MAX_LINK else None
    if not found or "\\" in link:
        raise ParamsError(f"{_shown(link)}: not a YouTube address, want {EXAMPLE}")
    host, rest = found[1].lower(), urlsplit(found[2])
    if rest.netloc or not (named := _named(host, rest.path, rest.query)):
        raise ParamsError(f"{_shown(link)}: names no single video, want {EXAMPLE}")
    return named


def _named(host: str, path: str, query: str) -> str | None:
    if host != "youtu.be" and path.rstrip("/") == "/watch":
        values = parse_qs(query, max_num_fields=50).get("v", []) if query.count("&") < 50 else []
        name = values[0] if len(values) == 1 else ""
    else:
        found = (SHORT if host == "youtu.be" else PAGE).fullmatch(path)
        name = found[1] if found else ""
    return name if VIDEO.fullmatch(name) and name not in NO_VIDEO else None


def _shown(link: str) -> str:
    shown = ascii(link[:80])  # look-alikes show themselves
    return shown if len(shown) <= 80 else f"{shown[:77]}..."


def available() -> bool:
    """Whether the extra is installed; costs a look at the disk."""
    return importlib.util.find_spec("yt_dlp") is not None


def fetch(
    link: str,
    folder: Path,
    say: Callable[[float], None] = lambda _: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Path:
    """Download a video's best sound, in whatever format YouTube has it.

    Args:
        folder: where `recording.*` goes; it exists.
        say: is told the share that is here, 0 to 1.
    Raises:
        BadParams: not the link of one video, or the extra is not installed.
        BadData: a video that is live, too long, too large or without sound.
        NetworkFault: YouTube cannot be reached, or does not give the video.
        Cancelled: `cancelled` told so.
    """
    name = video_id(link)
    if not available():
        raise ParamsError(INSTALL)
    _clear(folder)
    command = [sys.executable, "-m", "asr.transcribe.youtube", name, str(folder.resolve())]
    # where pip puts the JavaScript runtime
    beside = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    environment = {**os.environ, "PATH": beside, "YTDLP_NO_PLUGINS": "1"}
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,
    )
    try:
        lines = _watch(child, folder, say, cancelled)
    except BaseException:
        _end(child)
        _clear(folder)
        raise
    _end(child)
    found = [
        file
        for file in folder.glob(f"{NAME}.*")
        if file.suffix != ".part" and file.is_file() and not file.is_symlink()
    ]
    if child.returncode == 0 and len(found) == 1:
        return found[0]
    _clear(folder)
    raise _fault(child.returncode, lines)


def _watch(
    child: subprocess.Popen[bytes],
    folder: Path,
    say: Callable[[float], None],
    cancelled: Callable[[], bool],
) -> list[str]:
    """Follow the child to its end; returns the last lines it said that are no progress."""
    mouth = cast(IO[bytes], child.stdout)
    deadline, heard, lines = time.monotonic() + LIMIT_SECONDS, b"", list[str]()
    while True:
        if cancelled():
            raise Cancelled
        if time.monotonic() > deadline:
            raise NetworkError(
                f"the video was not here within {LIMIT_SECONDS / 60:.0f} min; download it yourself and give the file"
            )
        if _size(folder) > LIMIT_BYTES:
            raise DataError(TOO_LARGE)
        ready, _, _ = select.select([mouth], [], [], 0.1)
        piece = os.read(mouth.fileno(), 1 << 16) if ready else b""
        *whole, heard = (heard + piece)[-(1 << 16) :].split(b"\n")
        for line in whole:
            if share := PROGRESS.fullmatch(line):
                say(float(share[1]))
            else:
                lines = [*lines[-20:], line.decode("utf-8", "replace").strip()]
        if not piece and (ready or _ended(child)):
            return lines


def _ended(child: subprocess.Popen[bytes]) -> bool:
    """Whether the child has exited; it is not reaped, so that its number stays its own until the
    group is killed.
    """
    return os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kill the whole group: yt-dlp may have started a JavaScript runtime."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    if child.stdout:
        child.stdout.close()


def _size(folder: Path) -> int:
    size = 0
    for file in folder.glob(f"{NAME}.*"):
        with suppress(FileNotFoundError):  # parts are renamed and joined meanwhile
            size += file.lstat().st_size
    return size


def _clear(folder: Path) -> None:
    for file in folder.glob(f"{NAME}.*"):
        file.unlink(missing_ok=True)


def _fault(code: int, lines: list[str]) -> UserError:
    """What the child said, or that it died without a word."""
    last = lines[-1] if lines else ""
    if code in FAULTS and last.startswith(f"error {code}: "):
        return FAULTS[code](last.partition(": ")[2])
    return NetworkError(
        f"yt-dlp failed ({last[:200] or f'exit code {code}'}); a newer one may work: pip install -U 'yt-dlp[default,deno]'"
    )


def options() -> dict[str, Any]:
    """How yt-dlp is set: YouTube's extractor, one stream of sound, one file of our naming in this
    folder, no work on it afterwards.

    Its own defaults already are: no settings read, no cookies, no netrc, no file:// and no code
        fetched from elsewhere.
    """
    return {
        "allowed_extractors": ["youtube"],
        "noplaylist": True,
        "format": "bestaudio/best",
        "outtmpl": {"default": f"{NAME}.%(ext)s"},
        "match_filter": _refuse,
        "max_filesize": LIMIT_BYTES,
        "progress_hooks": [_progress],
        "fixup": "never",
        "hls_prefer_native": True,
        "cachedir": False,
        "updatetime": False,
        "socket_timeout": 20,
        "retries": 2,
        "fragment_retries": 2,
        "extractor_retries": 1,
        "quiet": True,
        "no_warnings": True,
        "noprogress": True,
        "color": "never",
    }


def _refuse(info: dict[str, Any], *, incomplete: bool = False) -> str | None:
    """yt-dlp asks before it downloads; what it does not know yet it asks again when it does."""
    if info.get("is_live") or info.get("live_status") in ("is_live", "is_upcoming"):
        raise DataError("this video is live; want one that has ended")
    length, size = info.get("duration"), info.get("filesize") or info.get("filesize_approx")
    if length is None and not incomplete:
        raise DataError("YouTube does not say how long this video is")
    if length is not None and length > LIMIT_HOURS * 3600:
        raise DataError(f"this video has {length / 3600:.1f} hours, want at most {LIMIT_HOURS}")
    if size and size > LIMIT_BYTES:
        raise DataError(TOO_LARGE)
    return None


def _progress(state: dict[str, Any]) -> None:
    done, total = (
        state.get("downloaded_bytes") or 0,
        state.get("total_bytes") or state.get("total_bytes_estimate") or 0,
    )
    if done > LIMIT_BYTES:
        raise DataError(TOO_LARGE)
    if total:
        print(f"progress {min(done / total, 1.0):.3f}", flush=True)


def stay_with_youtube(event: str, args: tuple[Any, ...]) -> None:
    """An audit hook: no name is looked up, and no machine spoken to, that is not YouTube's or the
    proxy set for this machine.
    """
    if event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = args[0]
    elif event == "socket.connect" and isinstance(args[1], tuple) and not _outside(args[1][0]):
        host = args[1][0]
    else:
        return
    name = (
        (host.decode("ascii", "replace") if isinstance(host, bytes) else str(host))
        .lower()
        .rstrip(".")
    )
    if not any(name == one or name.endswith(f".{one}") for one in HOSTS) and name not in _proxies():
        raise PermissionError(
            f"this video leads to {_shown(name)}, which is no host of YouTube's"
        )  # yt-dlp expects OSErrors


def _outside(address: str) -> bool:
    """Whether this is the number of a machine elsewhere, as found for a name that was allowed."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return bool(_proxies()) or not (
        found.is_loopback or found.is_link_local or found.is_unspecified
    )


def _proxies() -> set[str]:
    return {
        urlsplit(address).hostname or "" for address in urllib.request.getproxies().values()
    } - {""}


def download(name: str, folder: Path) -> None:
    """The child's work, in this process, which moves into the folder: yt-dlp would expand signs in
    a path.
    """
    try:
        import yt_dlp
        from yt_dlp.utils import DownloadError
    except ImportError:
        raise ParamsError(INSTALL) from None
    os.chdir(folder)
    try:
        with yt_dlp.YoutubeDL(options()) as fetcher:
            fetcher.download([f"https://www.youtube.com/watch?v={name}"])
    except DownloadError as error:
        said = " ".join(str(error).split()).removeprefix("ERROR: ")
        raise NetworkError(f"YouTube gave no sound: {said[:300]}") from None
    if not any(file.suffix != ".part" for file in Path().glob(f"{NAME}.*")):
        raise DataError(f"YouTube gave no sound of at most {LIMIT_BYTES >> 20} MB for this video")


def main() -> None:
    import resource

    if len(sys.argv) != 3 or not VIDEO.fullmatch(sys.argv[1]):
        raise ParamsError("usage: python -m asr.transcribe.youtube ID FOLDER")
    signal.alarm(int(LIMIT_SECONDS) + 5)  # should nobody be left who would end this process
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT_BYTES, LIMIT_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.addaudithook(stay_with_youtube)
    download(sys.argv[1], Path(sys.argv[2]))


if __name__ == "__main__":
    exit_with(main)
