"""Ways to choose a recording: microphone, uploaded file, YouTube link, file on the server.

Each recording is decoded to a file of samples (`SampleFile`).
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import streamlit as st

from asr import paths
from asr.audio.sample_file import SUFFIXES, Cancelled, SampleFile
from asr.errors import DataError, DiskError, UserError
from asr.transcribe import youtube
from dashboard import widgets
from dashboard.session import is_connected, session_id, transcription_queue

MICROPHONE, FILE, YOUTUBE, SERVER = "Microphone", "File", "YouTube", "On the server"
MAX_LISTED = 500  # recordings of the server's folder
FOLDER_VARIABLE = "EARSHOT_RECORDINGS"
# What Python puts for bytes of a file name that are not UTF-8; such a name cannot be sent to a
# browser.
UNDECODED = re.compile("[\ud800-\udfff]")

Source = Callable[[], bytes | memoryview | Path]


@dataclass(frozen=True)
class ChosenRecording:
    """A recording that a visitor chose.

    key: different for each recording.
    name: shown to the visitor; never used as a path.
    """

    key: str
    name: str
    sound: SampleFile


def choose() -> ChosenRecording | None:
    """Ask for a recording; None until there is one."""
    inputs = {MICROPHONE: _microphone, FILE: _file, YOUTUBE: _youtube, SERVER: _server}
    choice = st.segmented_control("Sound from", list(inputs), default=FILE, key="way")
    return inputs[choice or FILE]()


def _microphone() -> ChosenRecording | None:
    recorded = st.audio_input("Record yourself", key="microphone")
    if not recorded:
        return None
    return _load(f"microphone:{recorded.file_id}", "your recording", recorded.getbuffer)


def _file() -> ChosenRecording | None:
    types = [suffix.removeprefix(".") for suffix in SUFFIXES]
    uploaded = st.file_uploader("A recording or a video", type=types, key="file")
    st.caption(
        "Up to 200 MB and three hours. Larger ones: put them into the server's folder, "
        f"and choose “{SERVER}”."
    )
    if not uploaded:
        return None
    return _load(f"file:{uploaded.file_id}", uploaded.name, uploaded.getbuffer)


def _youtube() -> ChosenRecording | None:
    with st.form("youtube", border=False):
        typed = st.text_input(
            "YouTube link",
            placeholder="https://www.youtube.com/watch?v=…",
            key="link",
            max_chars=500,
        )
        submitted = st.form_submit_button("Fetch", icon=":material/download:")
    if submitted:
        st.session_state.asked_link = typed
    link = st.session_state.get("asked_link", "")
    if not link:
        return None
    try:
        key = f"youtube:{youtube.video_id(link)}"
    except UserError as error:
        widgets.show_error(error)
        return None
    return _load(key, link, lambda: _download(link))


def _download(link: str) -> bytes:
    """Download a video's sound, behind a progress bar."""
    text = "Fetching the sound from YouTube …"
    bar = st.progress(0.0, text)

    def show_progress(share: float) -> None:
        bar.progress(share, text)

    with tempfile.TemporaryDirectory(prefix="earshot-") as folder:
        path = youtube.fetch(link, Path(folder), show_progress, _disconnection())
        content = path.read_bytes()
    bar.empty()
    return content


def _server() -> ChosenRecording | None:
    folder = server_folder()
    names = list_recordings(folder) if folder.is_dir() else []
    if not names:
        widgets.empty_state(
            "There is no recording in the server's folder. Put some there, "
            f"or name another folder in {FOLDER_VARIABLE} and start again:",
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
    return _load(f"server:{name}:{path.stat().st_mtime_ns}", name, lambda: path)


def server_folder() -> Path:
    """The one folder whose recordings visitors may choose, set by EARSHOT_RECORDINGS."""
    return paths.resolve(os.environ.get(FOLDER_VARIABLE) or "recordings")


def list_recordings(folder: Path) -> list[str]:
    """The recordings in a folder, as relative paths, at most MAX_LISTED.

    Links that lead out of the folder are left out, and so are names that are not UTF-8.
    """
    top = folder.resolve()
    recordings = (
        str(path.relative_to(folder))
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in SUFFIXES
        and path.is_file()
        and path.resolve().is_relative_to(top)
        and not UNDECODED.search(str(path))
    )
    return list(islice(recordings, MAX_LISTED))


def _load(key: str, name: str, read: Source) -> ChosenRecording | None:
    """Decode a recording, or show the error if it cannot be decoded.

    The recording or the error is kept in the session, so nothing is decoded again until the key
    changes.
    """
    cached_key: str | None
    cached: ChosenRecording | UserError
    cached_key, cached = st.session_state.get("brought", (None, None))
    is_deleted = isinstance(cached, ChosenRecording) and not cached.sound.path.is_file()
    if cached_key != key or is_deleted:
        with st.spinner("Unpacking the recording …"):
            cached = _decode(key, name, read)
        st.session_state.brought = (key, cached)
    if isinstance(cached, ChosenRecording):
        return cached
    widgets.show_error(cached)
    return None


def _decode(key: str, name: str, read: Source) -> ChosenRecording | UserError:
    """Decode a recording; an error is returned, not raised, so that it can be kept."""
    try:
        sound = transcription_queue().bring(session_id(), read(), _disconnection())
    except UserError as error:
        return error
    except Cancelled:
        return DataError("cancelled")
    except OSError as error:
        return DiskError(
            f"the recording cannot be kept: {error.strerror}; "
            "make room on the server, then bring it again"
        )
    return ChosenRecording(key, name, sound)


def _disconnection() -> Callable[[], bool]:
    """Return a function, callable in any thread, that tests whether this visitor's tab is gone."""
    session = session_id()
    return lambda: not is_connected(session)
