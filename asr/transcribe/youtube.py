"""The sound of one YouTube video, for the optional extra `youtube`.

    python -m asr.transcribe.youtube ID FOLDER     # the child: fetches recording.* into the folder

A link is reduced to its id before any socket opens. yt-dlp runs in a process group of its own with
limits on length, size and time, reads no settings, cookies or plugins, starts no ffmpeg, and
connects to YouTube's hosts alone, wherever a redirect points. Costs what the download costs.
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
from asr.errors import (
    DataError,
    DiskError,
    NetworkError,
    ParamsError,
    UserError,
    exit_with,
    from_child,
)
from asr.runtime.limits import limit_self

EXAMPLE = "https://www.youtube.com/watch?v=... or https://youtu.be/..."
INSTALL = "YouTube links need yt-dlp, an optional extra; pip install -e '.[youtube]'"
MAX_LINK = 500  # characters
LINK = re.compile(
    r"(?:https?://)?"
    r"((?:(?:www|m|music)\.)?youtube\.com|www\.youtube-nocookie\.com|youtu\.be)"
    r"(/[!-~]*)",
    re.IGNORECASE,
)
PAGE = re.compile(r"/(?:shorts|embed|live|v)/([^/]+)/?")
SHORT = re.compile(r"/([^/]+)/?")
VIDEO = re.compile(r"[A-Za-z0-9_-]{11}")
# Eleven letters that stand where an id stands, for a playlist and for a channel.
NO_VIDEO = ("videoseries", "live_stream")
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
READ_BYTES = 1 << 16  # of the child's output at once, and the longest line
TOO_LARGE = f"the sound of this video has more than {LIMIT_BYTES >> 20} MB"
PROGRESS = re.compile(rb"progress ([01]\.\d+)")
ERRORS: dict[int, type[UserError]] = {
    kind.exit_code: kind for kind in (ParamsError, DataError, NetworkError, DiskError)
}


def video_id(link: str) -> str:
    """The eleven characters that name a video; opens no socket.

    Raises:
        ParamsError: anything but the link of one YouTube video.
    """
    match = LINK.fullmatch(link.strip()) if len(link) <= MAX_LINK else None
    if not match or "\\" in link:
        raise ParamsError(f"{_printable(link)}: not a YouTube address, want {EXAMPLE}")
    host = match[1].lower()
    address = urlsplit(match[2])
    name = None if address.netloc else _video_name(host, address.path, address.query)
    if not name:
        raise ParamsError(f"{_printable(link)}: names no single video, want {EXAMPLE}")
    return name


def _video_name(host: str, path: str, query: str) -> str | None:
    if host != "youtu.be" and path.rstrip("/") == "/watch":
        values = parse_qs(query, max_num_fields=50).get("v", []) if query.count("&") < 50 else []
        name = values[0] if len(values) == 1 else ""
    else:
        match = (SHORT if host == "youtu.be" else PAGE).fullmatch(path)
        name = match[1] if match else ""
    return name if VIDEO.fullmatch(name) and name not in NO_VIDEO else None


def _printable(text: str) -> str:
    """At most 80 characters of it, as ASCII, so that letters of other scripts show."""
    printable = ascii(text[:80])
    return printable if len(printable) <= 80 else f"{printable[:77]}..."


def available() -> bool:
    """Whether the extra is installed; costs a look at the disk."""
    return importlib.util.find_spec("yt_dlp") is not None


def fetch(
    link: str,
    folder: Path,
    on_progress: Callable[[float], None] = lambda _: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Path:
    """Download a video's best sound, in whatever format YouTube has it.

    Args:
        folder: where `recording.*` goes; it exists.
        on_progress: called with the share that has arrived, 0 to 1.
        cancelled: asked ten times a second.
    Raises:
        ParamsError: not the link of one video, or the extra is not installed.
        DataError: a video that is live, too long, too large or without sound.
        NetworkError: YouTube cannot be reached, or does not give the video.
        Cancelled: `cancelled` returned True.
    """
    name = video_id(link)
    if not available():
        raise ParamsError(INSTALL)
    _remove_files(folder)
    child = _start_child(name, folder)
    try:
        lines = _watch(child, folder, on_progress, cancelled)
    except BaseException:
        _kill(child)
        _remove_files(folder)
        raise
    _kill(child)
    recordings = [
        file
        for file in folder.glob(f"{NAME}.*")
        if file.suffix != ".part" and file.is_file() and not file.is_symlink()
    ]
    if child.returncode == 0 and len(recordings) == 1:
        return recordings[0]
    _remove_files(folder)
    raise _child_error(child.returncode, lines)


def _start_child(name: str, folder: Path) -> subprocess.Popen[bytes]:
    # pip puts the JavaScript runtime, which yt-dlp looks for in PATH, beside Python.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return subprocess.Popen(
        [sys.executable, "-m", "asr.transcribe.youtube", name, str(folder.resolve())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PATH": path, "YTDLP_NO_PLUGINS": "1"},
        start_new_session=True,
    )


def _watch(
    child: subprocess.Popen[bytes],
    folder: Path,
    on_progress: Callable[[float], None],
    cancelled: Callable[[], bool],
) -> list[str]:
    """Follow the child to its end; return the last lines it printed that are no progress."""
    output = cast(IO[bytes], child.stdout)
    deadline = time.monotonic() + LIMIT_SECONDS
    lines: list[str] = []
    rest = b""  # of a line that has not ended
    while True:
        _check_limits(folder, deadline, cancelled)
        ready, _, _ = select.select([output], [], [], 0.1)
        piece = os.read(output.fileno(), READ_BYTES) if ready else b""
        *whole, rest = (rest + piece)[-READ_BYTES:].split(b"\n")
        for line in whole:
            if share := PROGRESS.fullmatch(line):
                on_progress(float(share[1]))
            else:
                lines = [*lines[-20:], line.decode("utf-8", "replace").strip()]
        # Nothing to read is the end of the pipe. A process that the child has started may hold
        # the pipe open, so the end of the child counts too.
        if not piece and (ready or _has_exited(child)):
            return lines


def _check_limits(folder: Path, deadline: float, cancelled: Callable[[], bool]) -> None:
    if cancelled():
        raise Cancelled
    if time.monotonic() > deadline:
        raise NetworkError(
            f"the video was not here within {LIMIT_SECONDS / 60:.0f} min; "
            "download it yourself and give the file"
        )
    if _size(folder) > LIMIT_BYTES:
        raise DataError(TOO_LARGE)


def _has_exited(child: subprocess.Popen[bytes]) -> bool:
    """Whether the child has exited.

    It is not reaped, so that no other process gets its number until the group is killed.
    """
    return os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _kill(child: subprocess.Popen[bytes]) -> None:
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


def _remove_files(folder: Path) -> None:
    for file in folder.glob(f"{NAME}.*"):
        file.unlink(missing_ok=True)


def _child_error(exit_code: int, lines: list[str]) -> UserError:
    """The error that the child printed, or else that it died."""
    code, message = from_child("\n".join(lines)) or (None, "")
    if code == exit_code and exit_code in ERRORS:
        return ERRORS[exit_code](message)
    last_line = lines[-1][:200] if lines else ""
    return NetworkError(
        f"yt-dlp failed ({last_line or f'exit code {exit_code}'}); "
        "a newer one may work: pip install -U 'yt-dlp[default,deno]'"
    )


def options() -> dict[str, Any]:
    """Options of yt-dlp: YouTube's extractor, one stream of sound, one file named by us.

    Its defaults already read no settings, cookies, netrc or file:// addresses, and fetch no code.
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


def _refuse(info: dict[str, Any], *, incomplete: bool = False) -> None:
    """Refuse a video before it is downloaded; called by yt-dlp.

    Args:
        incomplete: yt-dlp does not know everything yet, and will call again.
    Raises:
        DataError: the video is live, too long or too large.
    """
    if info.get("is_live") or info.get("live_status") in ("is_live", "is_upcoming"):
        raise DataError("this video is live; want one that has ended")
    length = info.get("duration")
    if length is None and not incomplete:
        raise DataError("YouTube does not say how long this video is")
    if length is not None and length > LIMIT_HOURS * 3600:
        raise DataError(f"this video has {length / 3600:.1f} hours, want at most {LIMIT_HOURS}")
    size = info.get("filesize") or info.get("filesize_approx")
    if size and size > LIMIT_BYTES:
        raise DataError(TOO_LARGE)


def _progress(state: dict[str, Any]) -> None:
    """Print the share that has arrived, for `_watch`; called by yt-dlp."""
    done = state.get("downloaded_bytes") or 0
    total = state.get("total_bytes") or state.get("total_bytes_estimate") or 0
    if done > LIMIT_BYTES:
        raise DataError(TOO_LARGE)
    if total:
        print(f"progress {min(done / total, 1.0):.3f}", flush=True)


def stay_with_youtube(event: str, args: tuple[Any, ...]) -> None:
    """An audit hook: look up and connect to YouTube's hosts, or this machine's proxy, only.

    Raises:
        PermissionError: another host; an OSError, which yt-dlp handles.
    """
    if event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = args[0]
    elif event == "socket.connect" and isinstance(args[1], tuple) and not _is_remote(args[1][0]):
        host = args[1][0]
    else:
        return
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else str(host)
    name = name.lower().rstrip(".")
    of_youtube = any(name == allowed or name.endswith(f".{allowed}") for allowed in HOSTS)
    if not of_youtube and name not in _proxies():
        raise PermissionError(
            f"this video leads to {_printable(name)}, which is no host of YouTube's"
        )


def _is_remote(address: str) -> bool:
    """Whether this is the IP address of another machine, found for a name that was allowed.

    Where a proxy is set, which may run on this machine, every IP address counts.
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    return bool(_proxies()) or not (ip.is_loopback or ip.is_link_local or ip.is_unspecified)


def _proxies() -> set[str]:
    addresses = urllib.request.getproxies().values()
    return {urlsplit(address).hostname or "" for address in addresses} - {""}


def download(name: str, folder: Path) -> None:
    """Fetch a video's sound in this process, the child.

    It moves into the folder, because yt-dlp would expand signs in a path.
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
        message = " ".join(str(error).split()).removeprefix("ERROR: ")
        raise NetworkError(f"YouTube gave no sound: {message[:300]}") from None
    if not any(file.suffix != ".part" for file in Path().glob(f"{NAME}.*")):
        raise DataError(f"YouTube gave no sound of at most {LIMIT_BYTES >> 20} MB for this video")


def main() -> None:
    if len(sys.argv) != 3 or not VIDEO.fullmatch(sys.argv[1]):
        raise ParamsError("usage: python -m asr.transcribe.youtube ID FOLDER")
    signal.alarm(int(LIMIT_SECONDS) + 5)  # if the parent has died and cannot end this process
    limit_self(file_bytes=LIMIT_BYTES)
    sys.addaudithook(stay_with_youtube)
    download(sys.argv[1], Path(sys.argv[2]))


if __name__ == "__main__":
    exit_with(main)
