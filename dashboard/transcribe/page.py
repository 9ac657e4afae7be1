"""Transcribe: any recording, with any model or two side by side; what comes of it is in
`dashboard.transcribe.transcript`.

Decoding is done by the desk (`asr.transcribe.job_queue`), with the functions that evaluation uses;
this page imports no torch.
"""

from __future__ import annotations

import re

import streamlit as st

from asr import paths
from asr.runs import revisions
from asr.runs.revisions import Revision
from asr.transcribe.job_queue import Options
from asr.whisper import LANGUAGE_NAMES
from dashboard.session import desk, owner
from dashboard.transcribe import recording_input, transcript, waveform
from dashboard.transcribe.transcript import TranscriptionRequest

HUB = "a model from the hub …"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
OWN, DETECT = "the model's own", "detect"
TASKS = {"transcribe": "Transcribe", "translate": "Translate to English"}
REFRESH_SECONDS = 0.5


def page() -> None:
    st.header("Transcribe")
    recording = recording_input.recording()
    if recording is None:
        return
    st.text(recording.name)
    begin, end = waveform.trim(recording.key, recording.sound)
    chosen = options()
    asked: TranscriptionRequest | None = st.session_state.get("asked")
    busy = asked is not None and asked.busy
    if st.button(
        "Transcribe",
        type="primary",
        icon=":material/play_arrow:",
        disabled=busy or not chosen,
        key="go",
    ):
        jobs = {
            shown: desk().submit(owner(), recording.sound, one, begin, end)
            for shown, one in chosen.items()
        }
        st.session_state.asked = TranscriptionRequest(recording, jobs)
        st.rerun()
    if asked and (busy or asked.recording.key == recording.key):
        if asked.recording.key == recording.key:
            asked.recording = recording  # the same sound may have been brought anew
        st.fragment(transcript.show, run_every=REFRESH_SECONDS if busy else None)(asked)


def models() -> dict[str, str]:
    """What may be chosen: shown name -> the name that `asr.transcribe.recognizer.resolve_model`
    knows.
    """
    kept = sorted(path.name for path in paths.resolve(paths.KEPT_MODELS).glob("*") if path.is_dir())
    named = {
        f"{one.kind}: {one.name}": one.sha or one.name
        for one in _revisions(str(paths.root()))
        if one.sha
    }
    return {
        "workspace": "workspace",
        **{f"kept: {name}": f"{paths.KEPT_MODELS}/{name}" for name in kept},
        **named,
        HUB: HUB,
    }


@st.cache_data(ttl=10, max_entries=4, show_spinner=False)
def _revisions(top: str) -> list[Revision]:  # noqa: ARG001
    """The revisions of the repository at `top`; git is asked at most every ten seconds, however
    many look.
    """
    return revisions.list_revisions()


def options() -> dict[str, Options]:
    """What is asked for, by the name that the model was chosen under; nothing while a choice is not
    complete.
    """
    names = models()
    left, right = st.columns(2)
    with left:
        first = _model("Model", names, "model")
        two = st.toggle("Compare with a second model", key="two")
        second = _model("Second model", names, "second") if two else first
    with right:
        languages = [OWN, DETECT, *LANGUAGE_NAMES]
        spelled = {OWN: "The model's own", DETECT: "Detect", **LANGUAGE_NAMES}
        language = st.selectbox(
            "Language spoken", languages, format_func=lambda code: spelled[code], key="language"
        )
        task = (
            st.segmented_control(
                "Task",
                list(TASKS),
                format_func=lambda task: TASKS[task],
                default="transcribe",
                key="task",
            )
            or "transcribe"
        )
    wanted = [first, second] if two else [first]
    if not all(wanted):
        return {}
    return {
        shown: Options(name, None if language == OWN else language, task)
        for shown, name in filter(None, wanted)
    }


def _model(label: str, names: dict[str, str], key: str) -> tuple[str, str] | None:
    """One model, as it is shown and as it is known; a hub id is typed, and nothing else that is
    typed becomes a path.
    """
    shown = st.selectbox(label, list(names), key=key)
    if names.get(shown) != HUB:
        return (shown, names[shown]) if shown in names else None
    given = st.text_input(
        "Hub id", placeholder="openai/whisper-small", key=f"{key}-hub", max_chars=200
    )
    if given and (not HUB_ID.fullmatch(given) or paths.resolve(given).exists()):
        st.warning("A hub id has the form owner/name.", icon=":material/warning:")
        return None
    return (given, given) if given else None
