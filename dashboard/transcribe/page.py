"""Transcribe: any recording, with one model or with two side by side.

`dashboard.transcribe.transcript` shows the result. The transcription queue decodes
(`asr.transcribe.job_queue`), with the functions that evaluation uses; this page imports no torch.
"""

from __future__ import annotations

import re

import streamlit as st

from asr import paths
from asr.transcribe.job_queue import Options
from asr.whisper import LANGUAGE_NAMES
from dashboard.session import list_revisions, session_id, transcription_queue
from dashboard.transcribe import recording_input, transcript, waveform
from dashboard.transcribe.recording_input import ChosenRecording
from dashboard.transcribe.transcript import TranscriptionRequest

HUB = "a model from the hub …"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
OWN, DETECT = "the model's own", "detect"
TASKS = {"transcribe": "Transcribe", "translate": "Translate to English"}
REFRESH_SECONDS = 0.5


def page() -> None:
    st.header("Transcribe")
    recording = recording_input.choose()
    if recording is None:
        return
    st.text(recording.name)
    start, end = waveform.trim(recording.key, recording.sound)
    options = choose_options()
    request: TranscriptionRequest | None = st.session_state.get("asked")
    busy = request is not None and request.busy
    if st.button(
        "Transcribe",
        type="primary",
        icon=":material/play_arrow:",
        disabled=busy or not options,
        key="go",
    ):
        st.session_state.asked = submit(recording, options, start, end)
        st.rerun()
    if request is not None:
        show_request(request, recording, busy)


def submit(
    recording: ChosenRecording, options: dict[str, Options], start: float, end: float
) -> TranscriptionRequest:
    """Queue one transcription of a stretch, in seconds, for each model."""
    queue = transcription_queue()
    jobs = {
        model: queue.submit(session_id(), recording.sound, model_options, start, end)
        for model, model_options in options.items()
    }
    return TranscriptionRequest(recording, jobs)


def show_request(request: TranscriptionRequest, recording: ChosenRecording, busy: bool) -> None:
    """Show a request while it runs, and afterwards while its recording is still chosen."""
    is_same = request.recording.key == recording.key
    if not busy and not is_same:
        return
    if is_same:
        request.recording = recording  # its samples may have been decoded again, to another file
    refresh_seconds = REFRESH_SECONDS if busy else None
    st.fragment(transcript.show, run_every=refresh_seconds)(request)


def choose_options() -> dict[str, Options]:
    """Ask for models, language and task.

    Returns:
        The options by the shown name of each model; empty until the choice is complete.
    """
    names = model_names()
    left, right = st.columns(2)
    with left:
        models = [choose_model("Model", names, "model")]
        if st.toggle("Compare with a second model", key="two"):
            models.append(choose_model("Second model", names, "second"))
    with right:
        language = choose_language()
        task = choose_task()
    complete = [model for model in models if model is not None]
    if len(complete) < len(models):
        return {}
    return {label: Options(name, language, task) for label, name in complete}


def model_names() -> dict[str, str]:
    """The models on offer: shown name -> name that `recognizer.resolve_model` takes."""
    folders = [path for path in paths.resolve(paths.KEPT_MODELS).glob("*") if path.is_dir()]
    kept_names = sorted(path.name for path in folders)
    revisions = [revision for revision in list_revisions(str(paths.root())) if revision.sha]
    names = {"workspace": "workspace"}
    names |= {f"kept: {name}": f"{paths.KEPT_MODELS}/{name}" for name in kept_names}
    names |= {
        f"{revision.kind}: {revision.name}": revision.sha or revision.name for revision in revisions
    }
    return names | {HUB: HUB}


def choose_model(label: str, names: dict[str, str], key: str) -> tuple[str, str] | None:
    """Ask for a model; return its shown name and its name, or None until the choice is complete."""
    shown_name = st.selectbox(label, list(names), key=key)
    if shown_name not in names:
        return None
    if names[shown_name] != HUB:
        return shown_name, names[shown_name]
    hub_id = st.text_input(
        "Hub id", placeholder="openai/whisper-small", key=f"{key}-hub", max_chars=200
    )
    if not hub_id:
        return None
    # No visitor may have a path of the server loaded as a model.
    if not HUB_ID.fullmatch(hub_id) or paths.resolve(hub_id).exists():
        st.warning("A hub id has the form owner/name.", icon=":material/warning:")
        return None
    return hub_id, hub_id


def choose_language() -> str | None:
    """Ask for the language spoken; return Whisper's code, "detect", or None for the model's own."""
    labels = {OWN: "The model's own", DETECT: "Detect", **LANGUAGE_NAMES}
    language = st.selectbox(
        "Language spoken", list(labels), format_func=labels.__getitem__, key="language"
    )
    return None if language == OWN else language


def choose_task() -> str:
    task = st.segmented_control(
        "Task", list(TASKS), format_func=TASKS.__getitem__, default="transcribe", key="task"
    )
    return task or "transcribe"
