"""The ways to bring a recording: microphone, a file, a YouTube link, a file that lies on the
server. Each ends as a `Sound`.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from asr import paths
from asr.audio.sample_file import SUFFIXES, Cancelled, SampleFile
from asr.errors import DataError, DiskError, UserError
from asr.transcribe import youtube
from dashboard import widgets
from dashboard.session import desk, owner, present

MICROPHONE, FILE, YOUTUBE, SERVER = "Microphone", "File", "YouTube", "On the server"
MAX_LISTED = 500
FOLDER_VARIABLE = "EARSHOT_RECORDINGS"
UNDECODED = re.compile(
    "[\ud800-\udfff]"
)  # bytes of a file name that are not UTF-8, which no browser can be told


@dataclass(frozen=True)
class ChosenRecording:
    """A recording that was brought; `key` is new for each, `name` is for showing only."""

    key: str
    name: str
    sound: SampleFile


def recording() -> ChosenRecording | None:
    """Ask for a recording; None until there is one."""
    way = (
        st.segmented_control(
            "Sound from", [MICROPHONE, FILE, YOUTUBE, SERVER], default=FILE, key="way"
        )
        or FILE
    )
    return {MICROPHONE: _microphone, FILE: _file, YOUTUBE: _youtube, SERVER: _server}[way]()


def _microphone() -> ChosenRecording | None:
    heard = st.audio_input("Record yourself", key="microphone")
    return (
        _brought(f"microphone:{heard.file_id}", "your recording", heard.getbuffer)
        if heard
        else None
    )


def _file() -> ChosenRecording | None:
    sent = st.file_uploader(
        "A recording or a video", type=[ending.removeprefix(".") for ending in SUFFIXES], key="file"
    )
    st.caption(
        f"Up to 200 MB and three hours. Larger ones: put them into the server's folder, and choose “{SERVER}”."
    )
    return _brought(f"file:{sent.file_id}", sent.name, sent.getbuffer) if sent else None


def _youtube() -> ChosenRecording | None:
    with st.form("youtube", border=False):
        link = st.text_input(
            "YouTube link",
            placeholder="https://www.youtube.com/watch?v=…",
            key="link",
            max_chars=500,
        )
        asked = st.form_submit_button("Fetch", icon=":material/download:")
    if asked:
        st.session_state.asked_link = link
    link = st.session_state.get("asked_link", "")
    if not link:
        return None
    try:
        key = f"youtube:{youtube.video_id(link)}"
    except UserError as fault:
        widgets.fault(fault)
        return None
    return _brought(key, link, lambda: _fetched(link))


def _fetched(link: str) -> bytes:
    """A video's sound; the file that was fetched goes at once."""
    bar = st.progress(0.0, "Fetching the sound from YouTube …")

    def say(share: float) -> None:
        bar.progress(share, "Fetching the sound from YouTube …")

    with tempfile.TemporaryDirectory(prefix="earshot-") as folder:
        fetched = youtube.fetch(link, Path(folder), say, _gone()).read_bytes()
    bar.empty()
    return fetched


def server_folder() -> Path:
    """The one folder whose recordings visitors may choose; EARSHOT_RECORDINGS in the environment
    sets it.
    """
    return paths.resolve(os.environ.get(FOLDER_VARIABLE) or "recordings")


def listed(folder: Path) -> list[str]:
    """Recordings in the server's folder; links that lead out of it are not among them, nor names
    that are no text.
    """
    found = (
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in SUFFIXES and path.is_file()
    )
    inside = (
        path
        for path in found
        if path.resolve().is_relative_to(folder.resolve()) and not UNDECODED.search(str(path))
    )
    return [
        str(path.relative_to(folder)) for _, path in zip(range(MAX_LISTED), inside, strict=False)
    ]


def _server() -> ChosenRecording | None:
    folder = server_folder()
    names = listed(folder) if folder.is_dir() else []
    if not names:
        widgets.empty(
            f"There is no recording in the server's folder. Put some there, or name another folder in {FOLDER_VARIABLE} and start again:",
            f"{FOLDER_VARIABLE}=/path/to/recordings streamlit run dashboard",
        )
        return None
    name = st.selectbox(
        "A recording in the server's folder",
        names,
        index=None,
        placeholder="Choose one",
        key="listed",
    )
    if name not in names:
        return None
    path = folder / name
    return _brought(f"server:{name}:{path.stat().st_mtime_ns}", name, lambda: path)


def _brought(
    key: str, name: str, get: Callable[[], bytes | memoryview | Path]
) -> ChosenRecording | None:
    """Unpack a recording once; what failed is not tried again until something else is brought."""
    known = st.session_state.get("brought")
    if (
        known is None
        or known[0] != key
        or (isinstance(known[1], ChosenRecording) and not known[1].sound.path.is_file())
    ):
        with st.spinner("Unpacking the recording …"):
            known = (key, _unpacked(key, name, get))
        st.session_state.brought = known
    if isinstance(known[1], ChosenRecording):
        return known[1]
    widgets.fault(known[1])
    return None


def _unpacked(
    key: str, name: str, get: Callable[[], bytes | memoryview | Path]
) -> ChosenRecording | UserError:
    try:
        return ChosenRecording(key, name, desk().bring(owner(), get(), _gone()))
    except UserError as fault:
        return fault
    except Cancelled:
        return DataError("cancelled")
    except OSError as error:
        return DiskError(
            f"the recording cannot be kept: {error.strerror}; make room on the server, then bring it again"
        )


def _gone() -> Callable[[], bool]:
    """Tells, from any thread, whether this visitor has left."""
    session = owner()
    return lambda: not present(session)
