"""Ways to choose a recording: microphone, uploaded file, YouTube link, file on the server, and what
was brought before.

Each recording is kept for its visitor, and decoded to a file of samples (`SampleFile`).
"""

from __future__ import annotations

import hashlib
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
from asr.transcribe.visitors import Recording, Visitor
from dashboard import address, widgets
from dashboard.session import is_connected, session_id, transcription_queue

MICROPHONE, FILE, YOUTUBE, SERVER = "Microphone", "File", "YouTube", "On the server"
BEFORE = "Brought before"
ID_DIGITS = 32  # of the hash that names a recording
MAX_LISTED = 500  # recordings of the server's folder
FOLDER_VARIABLE = "EARSHOT_RECORDINGS"
# What Python puts for bytes of a file name that are not UTF-8; such a name cannot be sent to a
# browser.
UNDECODED = re.compile("[\ud800-\udfff]")

Source = Callable[[], bytes | memoryview | Path]


@dataclass(frozen=True)
class ChosenRecording:
    """A recording that a visitor chose, and its samples."""

    recording: Recording
    sound: SampleFile


def choose(visitor: Visitor) -> ChosenRecording | None:
    """Ask for a recording; None until there is one.

    The recording that was brought last stays chosen, also after other pages and reloads.
    """
    inputs = {MICROPHONE: _microphone, FILE: _file, YOUTUBE: _youtube, SERVER: _server}
    before = visitor.recordings()
    if before:
        inputs[BEFORE] = _before
    ways = address.options("way", list(inputs))
    way = st.segmented_control("Sound from", ways, **address.widget("way", FILE))
    try:
        inputs.get(way or FILE, _file)(visitor)
        recording = st.session_state.get("recording") or next(iter(before), None)
        if recording is None:
            return None
        return ChosenRecording(recording, unpack(visitor, recording))
    except UserError as error:
        widgets.show_error(error)
        return None


def unpack(visitor: Visitor, recording: Recording) -> SampleFile:
    """The samples of a recording, decoded again if they are gone.

    Raises:
        DataError: the recording is not there any more.
    """
    source = _source(visitor, recording)
    if source is None:
        raise DataError(f"{recording.name} is no longer here; bring it again to hear it")
    return _decode(visitor, recording.id, source)


def _source(visitor: Visitor, recording: Recording) -> Path | None:
    """Where a recording lies; None if it is gone, or is another one in the server's folder now."""
    if recording.listed is None:
        path = visitor.recording_path(recording)
        return path if path.is_file() else None
    path = server_folder() / recording.listed
    is_same = path.is_file() and _listed_id(path, recording.listed) == recording.id
    return path if is_same else None


def _key(name: str) -> str:
    """The key of an input widget; a new one after all was deleted, so that it is empty again."""
    return f"{name}{st.session_state.get('deletions', '')}"


def _microphone(visitor: Visitor) -> None:
    recorded = st.audio_input("Record yourself", key=_key("microphone"))
    if recorded:
        _bring(visitor, f"microphone:{recorded.file_id}", "your recording", recorded.getbuffer)


def _file(visitor: Visitor) -> None:
    types = [suffix.removeprefix(".") for suffix in SUFFIXES]
    uploaded = st.file_uploader("A recording or a video", type=types, key=_key("file"))
    st.caption(
        "Up to 200 MB and three hours. Larger ones: put them into the server's folder, "
        f"and choose “{SERVER}”."
    )
    if uploaded:
        _bring(visitor, f"file:{uploaded.file_id}", uploaded.name, uploaded.getbuffer)


def _before(visitor: Visitor) -> None:
    recordings = {recording.id: recording for recording in visitor.recordings()}
    chosen = st.selectbox(
        "A recording you brought before",
        list(recordings),
        index=None,
        format_func=lambda name: recordings[name].name,
        placeholder="Choose one",
        key="before",
    )
    if chosen in recordings and st.session_state.get("brought") != f"before:{chosen}":
        st.session_state.brought = f"before:{chosen}"
        st.session_state.recording = recordings[chosen]


def _youtube(visitor: Visitor) -> None:
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
    if link:
        _bring(visitor, f"youtube:{youtube.video_id(link)}", link, lambda: _download(link))


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


def _server(visitor: Visitor) -> None:
    folder = server_folder()
    names = list_recordings(folder) if folder.is_dir() else []
    if not names:
        widgets.empty_state(
            "There is no recording in the server's folder. Put some there, "
            f"or name another folder in {FOLDER_VARIABLE} and start again:",
            f"{FOLDER_VARIABLE}=/path/to/recordings streamlit run dashboard",
        )
        return
    name = st.selectbox(
        "A recording in the server's folder",
        address.options("listed", names),
        index=None,
        placeholder="Choose one",
        **address.widget("listed"),
    )
    if name and name not in names:
        raise DataError(f"{name} is not in the server's folder")
    if name:
        path = folder / name
        _bring(visitor, f"server:{_listed_id(path, name)}", name, lambda: path)


def _listed_id(path: Path, name: str) -> str:
    """The id of a file in the server's folder; another one when the file is written anew."""
    stamp = f"{name}\0{path.stat().st_mtime_ns}"
    return hashlib.sha256(stamp.encode()).hexdigest()[:ID_DIGITS]


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


def _bring(visitor: Visitor, key: str, name: str, read: Source) -> None:
    """Keep a new recording, and choose it.

    The key of what was brought last, and its error, stay in the session, so that nothing is read
    again until the key changes.

    Raises:
        UserError: it cannot be decoded or kept.
    """
    if st.session_state.get("brought") != key:
        st.session_state.brought = key
        st.session_state.refused = None
        try:
            with st.spinner("Unpacking the recording …"):
                st.session_state.recording = _keep(visitor, name, read())
        except UserError as error:
            st.session_state.refused = error
    if st.session_state.refused:
        raise st.session_state.refused


def _keep(visitor: Visitor, name: str, content: bytes | memoryview | Path) -> Recording:
    """Decode a new recording and keep it; one without sound leaves nothing."""
    if isinstance(content, Path):
        recording = Recording(_listed_id(content, name), name, listed=name)
        kept = None
    else:
        recording = Recording(hashlib.sha256(content).hexdigest()[:ID_DIGITS], name)
        kept = content
    _decode(visitor, recording.id, content)
    visitor.keep_recording(recording, kept)
    return recording


def _decode(visitor: Visitor, name: str, content: bytes | memoryview | Path) -> SampleFile:
    queue = transcription_queue()
    try:
        return queue.bring(visitor.owner, content, _disconnection(), name)
    except Cancelled:
        raise DataError("cancelled") from None
    except OSError as error:
        raise DiskError(
            f"the recording cannot be unpacked: {error.strerror}; "
            "make room on the server, then try again"
        ) from None


def _disconnection() -> Callable[[], bool]:
    """Return a function, callable in any thread, that tests whether this visitor's tab is gone."""
    session = session_id()
    return lambda: not is_connected(session)
