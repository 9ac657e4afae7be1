"""Transcribe: any recording, with any model or two side by side; play, correct, download, and keep what was corrected.

Decoding is done by the desk (`asr.jobs`), with the functions that evaluation uses; this page imports no torch.
"""

from __future__ import annotations

import re
from pathlib import Path

import streamlit as st

from asr import files, recordings, revisions, sound
from asr.faults import Fault
from asr.jobs import DONE, FAILED, WAITING, Job, Options
from asr.languages import LANGUAGE_NAMES
from asr.revisions import Revision
from asr.transcripts import FORMATS, Segment
from dashboard import bringing, parts, waveform
from dashboard.bringing import Recording
from dashboard.session import desk, owner

KEPT = "models/kept"
HUB = "a model from the hub …"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
OWN, DETECT = "the model's own", "detect"
TASKS = {"transcribe": "Transcribe", "translate": "Translate to English"}
REFRESH_SECONDS = 0.5
ROWS = 20  # segments on one page
MIME = {"txt": "text/plain", "srt": "application/x-subrip", "vtt": "text/vtt", "json": "application/json", "csv": "text/csv"}
RECORDINGS = "recordings"


def page() -> None:
    st.header("Transcribe")
    recording = bringing.recording()
    if recording is None:
        return
    st.text(recording.name)
    begin, end = waveform.trim(recording.key, recording.sound)
    chosen = options()
    busy = any(not job.ended for job in jobs())
    if st.button("Transcribe", type="primary", icon=":material/play_arrow:", disabled=busy or not chosen, key="go"):
        st.session_state.jobs = [desk().submit(owner(), recording.sound, one, begin, end) for one in chosen]
        st.session_state.shown, st.session_state.mended = recording, {}
        st.session_state.round = st.session_state.get("round", 0) + 1
        st.rerun()
    shown: Recording | None = st.session_state.get("shown")
    if shown and (busy or shown.key == recording.key):
        present = recording if shown.key == recording.key else shown  # the same sound may have been brought anew
        st.fragment(results, run_every=REFRESH_SECONDS if busy else None)(present)


def jobs() -> list[Job]:
    return list(st.session_state.get("jobs", []))


def models() -> dict[str, str]:
    """What may be chosen: shown name -> the name that `asr.transcribe.place` knows."""
    kept = sorted(path.name for path in files.resolve(KEPT).glob("*") if path.is_dir())
    named = {f"{one.kind}: {one.name}": one.sha or one.name for one in _revisions(str(files.root())) if one.sha}
    return {"workspace": "workspace", **{f"kept: {name}": f"{KEPT}/{name}" for name in kept}, **named, HUB: HUB}


@st.cache_data(ttl=10, max_entries=4, show_spinner=False)
def _revisions(top: str) -> list[Revision]:  # noqa: ARG001
    """The revisions of the repository at `top`; git is asked at most every ten seconds, however many look."""
    return revisions.known()


def options() -> list[Options]:
    """The models and what they are asked for; none while a choice is not complete."""
    names = models()
    left, right = st.columns(2)
    with left:
        first = _model("Model", names, "model")
        two = st.toggle("Compare with a second model", key="two")
        second = _model("Second model", names, "second") if two else first
    with right:
        languages = [OWN, DETECT, *LANGUAGE_NAMES]
        shown = {OWN: "The model's own", DETECT: "Detect", **LANGUAGE_NAMES}
        language = st.selectbox("Language spoken", languages, format_func=lambda code: shown[code], key="language")
        task = (
            st.segmented_control("Task", list(TASKS), format_func=lambda task: TASKS[task], default="transcribe", key="task")
            or "transcribe"
        )
    wanted = dict.fromkeys([first, second] if two else [first])
    if None in wanted:
        return []
    return [Options(name, None if language == OWN else language, task) for name in wanted if name]


def _model(label: str, names: dict[str, str], key: str) -> str | None:
    """One model; a hub id is typed, and nothing else that is typed becomes a path."""
    shown = st.selectbox(label, list(names), key=key)
    if names.get(shown) != HUB:
        return names.get(shown)
    given = st.text_input("Hub id", placeholder="openai/whisper-small", key=f"{key}-hub", max_chars=200)
    if given and (not HUB_ID.fullmatch(given) or files.resolve(given).exists()):
        st.warning("A hub id has the form owner/name.", icon=":material/warning:")
        return None
    return given or None


def results(recording: Recording) -> None:
    """Each job's progress or result, side by side; runs again by itself until all have ended."""
    found = jobs()
    for column, job, number in zip(st.columns(len(found)), found, range(len(found)), strict=True):
        with column:
            if len(found) > 1:
                st.subheader(parts.plain(_shown(job.options.model)))
            _ended(recording, job, number) if job.ended else _running(job, number)
    if all(job.ended for job in found) and st.session_state.get("told") != st.session_state.round:
        st.session_state.told = st.session_state.round
        st.rerun()  # the page stops asking


def _shown(name: str) -> str:
    """The name under which a model was chosen."""
    return next((shown for shown, known in models().items() if known == name), name)


def _running(job: Job, number: int) -> None:
    if job.state == WAITING:
        ahead = desk().position(job)
        st.info(
            f"Waiting: {ahead} {'transcription comes' if ahead == 1 else 'transcriptions come'} first.", icon=":material/hourglass_top:"
        )
    else:
        st.progress(job.progress, f"{job.doing}: {parts.clock(job.moment)} of {parts.clock(job.end)}")
    if st.button("Cancel", key=f"cancel-{number}", icon=":material/close:"):
        job.cancel()
    if job.segments:
        st.text("\n".join(f"{parts.clock(one.start)}  {one.text}" for one in job.segments[-ROWS:]))


def _ended(recording: Recording, job: Job, number: int) -> None:
    if job.state == FAILED:
        st.error(parts.plain(job.fault or ""), icon=":material/error:")
    elif job.state != DONE:
        st.info("Cancelled; what was heard until then is below.", icon=":material/block:")
    if not job.segments:
        return
    if job.language:
        st.caption(f"Language: {LANGUAGE_NAMES.get(job.language, job.language)}")
    segments = _correct(recording, job, number)
    _downloads(recording, segments, number)
    _keep(recording, segments, number)


def _correct(recording: Recording, job: Job, number: int) -> list[Segment]:
    """The segments with what people made of them: each can be played, and its text be mended in place."""
    mended: dict[tuple[int, int], str] = st.session_state.mended
    first = 0
    if len(job.segments) > ROWS:
        pages = -(-len(job.segments) // ROWS)
        first = ROWS * (st.number_input(f"Page of {pages}", 1, pages, key=f"page-{number}") - 1)
    for index, segment in enumerate(job.segments[first : first + ROWS], first):
        left, right = st.columns([1, 4], vertical_alignment="center")
        times = f"{parts.clock(segment.start)}–{parts.clock(segment.end)}"
        if left.button(times, icon=":material/play_arrow:", key=f"play-{number}-{index}", help="Play this stretch"):
            st.session_state.playing = (number, index)
        field = f"text-{id(job)}-{index}"
        right.text_area(
            f"Text from {times}",
            mended.get((number, index), segment.text),
            key=field,
            height="content",
            label_visibility="collapsed",
            on_change=_mend,
            args=(field, number, index),
        )
        if st.session_state.get("playing") == (number, index):
            st.audio(sound.wav(recording.sound, segment.start, segment.end), format="audio/wav", autoplay=True)
    return [Segment(one.start, one.end, mended.get((number, index), one.text)) for index, one in enumerate(job.segments)]


def _mend(field: str, number: int, index: int) -> None:
    """Take a text as soon as it changes: by the time it would be drawn again, another page of segments may be shown."""
    st.session_state.mended[number, index] = st.session_state[field]


def _downloads(recording: Recording, segments: list[Segment], number: int) -> None:
    """One button per format; the file is named after the recording, in plain letters."""
    name = re.sub(r"\W+", "-", Path(recording.name).stem).strip("-")[:60] or "transcript"
    with st.container(horizontal=True):
        for kind, write in FORMATS.items():
            st.download_button(
                kind.upper(),
                write(segments),
                f"{name}.{kind}",
                MIME[kind],
                key=f"get-{kind}-{number}",
                icon=":material/download:",
                on_click="ignore",
            )


def _keep(recording: Recording, segments: list[Segment], number: int) -> None:
    """Save corrected pairs, so that the next training can learn from them."""
    with st.expander("Keep the corrected text for training", icon=":material/school:"):
        st.caption("Each stretch goes into recordings/ with its text; a stretch whose text you empty is left out.")
        speaker = st.text_input(
            "Speaker", placeholder="a name or number, to keep voices apart in training and test", key=f"who-{number}", max_chars=80
        )
        if st.button("Save", key=f"save-{number}", icon=":material/save:"):
            try:
                count = recordings.save(files.resolve(RECORDINGS), recording.sound, segments, speaker)
            except Fault as fault:
                parts.fault(fault)
                return
            st.success(f"Saved {count} {'pair' if count == 1 else 'pairs'}. To train on what is there:", icon=":material/check:")
            st.code("make keep NAME=mine\ndvc exp run -S download.source=folder -S download.path=recordings -S model.name=models/kept/mine")
