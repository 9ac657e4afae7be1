"""Transcribe: any recording, with one model or with two side by side.

`dashboard.transcribe.history` shows the results, which are kept with the recordings for a week
(`asr.transcribe.visitors`). The transcription queue decodes (`asr.transcribe.job_queue`), with the
functions that evaluation uses; this page imports no torch.
"""

from __future__ import annotations

import streamlit as st

from asr import paths
from asr.decoding.options import EACH
from asr.errors import UserError
from asr.transcribe import models
from asr.transcribe.job_queue import Options
from asr.transcribe.visitors import Visitor
from asr.whisper import LANGUAGE_NAMES
from dashboard import address, visitor, widgets
from dashboard.session import list_revisions
from dashboard.transcribe import history, recording_input, waveform
from dashboard.transcribe.recording_input import ChosenRecording

HUB = "a model from the hub …"
AUTOMATIC = "automatic"
TASKS = {"transcribe": "Transcribe", "translate": "Translate to English"}


def page() -> None:
    address.open_page("Transcribe")
    st.header("Transcribe")
    me = visitor.current()
    if me is None:
        return
    chosen = recording_input.choose(me)
    if chosen is not None:
        ask(me, chosen)
    history.show(me)
    visitor.show_deletion(me)


def ask(me: Visitor, chosen: ChosenRecording) -> None:
    """Let a visitor choose stretch, models, language and task, and transcribe."""
    st.text(chosen.recording.name)
    start, end = waveform.trim(chosen.recording.id, chosen.sound)
    options = choose_options()
    if st.button(
        "Transcribe",
        type="primary",
        icon=":material/play_arrow:",
        disabled=not options or history.is_busy(),
        key="go",
    ):
        try:
            history.submit(me, chosen.recording, chosen.sound, options, start, end)
        except UserError as error:
            widgets.show_error(error)


def choose_options() -> dict[str, Options]:
    """Ask for models, language and task.

    Returns:
        The options by the shown name of each model; empty until the choice is complete.
    """
    names = model_names()
    left, right = st.columns(2)
    with left:
        chosen = [choose_model("Model", names, "model")]
        if st.toggle("Compare with a second model", **address.widget("two", False)):
            chosen.append(choose_model("Second model", names, "second"))
    with right:
        language = choose_language()
        task = choose_task()
    complete = [model for model in chosen if model is not None]
    if len(complete) < len(chosen):
        return {}
    return {label: Options(name, language, task) for label, name in complete}


def model_names() -> dict[str, str]:
    """The models on offer: shown name -> name that `models.resolve` takes."""
    folders = [path for path in paths.resolve(paths.KEPT_MODELS).glob("*") if path.is_dir()]
    kept_names = sorted(path.name for path in folders)
    revisions = [revision for revision in list_revisions(str(paths.root())) if revision.sha]
    names = {models.WORKSPACE: models.WORKSPACE}
    names |= {f"kept: {name}": f"{paths.KEPT_MODELS}/{name}" for name in kept_names}
    names |= {
        f"{revision.kind}: {revision.name}": revision.sha or revision.name for revision in revisions
    }
    return names | {HUB: HUB}


def choose_model(label: str, names: dict[str, str], key: str) -> tuple[str, str] | None:
    """Ask for a model; return its shown name and its name, or None until the choice is complete."""
    offered = address.options(key, list(names))
    shown_name = st.selectbox(label, offered, **address.widget(key, models.WORKSPACE))
    if shown_name not in names:
        st.warning(f"{widgets.plain(shown_name)} is not here.", icon=":material/warning:")
        return None
    name = names[shown_name]
    if name == models.WORKSPACE and (reason := models.why_missing()):
        st.info(f"{widgets.plain(reason.capitalize())}, or choose another model.")
        return None
    if name != HUB:
        return shown_name, name
    hub_id = st.text_input(
        "Hub id",
        placeholder="openai/whisper-small",
        max_chars=200,
        **address.widget(f"{key}-hub", ""),
    )
    if not hub_id:
        return None
    # No visitor may have a path of the server loaded as a model.
    if not models.HUB_ID.fullmatch(hub_id) or paths.resolve(hub_id).exists():
        st.warning("A hub id has the form owner/name.", icon=":material/warning:")
        return None
    return hub_id, hub_id


def choose_language() -> str | None:
    """Ask for the language spoken; return Whisper's code, EACH, or None for the model's choice."""
    labels = {AUTOMATIC: "Automatic", EACH: "Several", **LANGUAGE_NAMES}
    tied = address.widget("language", AUTOMATIC)
    _only("language", labels, AUTOMATIC)
    language = st.selectbox("Language spoken", list(labels), format_func=labels.__getitem__, **tied)
    return None if language == AUTOMATIC else language


def choose_task() -> str:
    tied = address.widget("task", "transcribe")
    _only("task", TASKS, "transcribe")
    task = st.segmented_control("Task", list(TASKS), format_func=TASKS.__getitem__, **tied)
    return task or "transcribe"


def _only(key: str, offered: dict[str, str], default: str) -> None:
    """Take the default where an address names what does not exist."""
    if st.session_state[key] not in offered:
        st.session_state[key] = default
