"""A visitor's transcripts: the list of all, and the one that is open.

Each request is an entry of its own, so that transcribing again covers nothing.
"""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import datetime
from itertools import groupby

import streamlit as st

from asr.audio.sample_file import SampleFile
from asr.errors import UserError
from asr.transcribe.job_queue import DONE, RUNNING, WAITING, Job, Options
from asr.transcribe.prompt import Prompt
from asr.transcribe.visitors import Recording, Transcript, Visitor, new_id
from asr.whisper import LANGUAGE_NAMES
from dashboard import widgets
from dashboard.session import transcription_queue
from dashboard.transcribe import recording_input, transcript, waveform

REFRESH_SECONDS = 0.5


def submit(
    visitor: Visitor,
    recording: Recording,
    sound: SampleFile,
    options: dict[str, Options],
    start: float,
    end: float,
) -> None:
    """Queue one transcription of a stretch, in seconds, for each model; open it, and draw anew.

    Raises:
        DiskError: there is no room for another transcript.
    """
    request = new_id()
    for number, (model, asked) in enumerate(options.items()):
        entry = Transcript(
            id=f"{request}-{number}",
            request=request,
            recording=recording,
            model=model,
            options=asked,
            start=start,
            end=end,
            made=time.time(),
        )
        visitor.add_transcript(entry)

        def keep(job: Job, entry: Transcript = entry) -> None:
            visitor.update_transcript(entry.with_result(job))

        transcription_queue().submit(
            visitor.owner, sound, asked, start, end, name=entry.id, keep=keep
        )
    st.session_state.asked = st.session_state.just_asked = request
    st.rerun()


def is_busy() -> bool:
    """Whether the request that was made last in this tab goes on."""
    asked: str | None = st.session_state.get("asked")
    return asked is not None and transcription_queue().is_busy(asked)


def show(visitor: Visitor) -> None:
    """Let a visitor choose one of their requests, and show it; nothing if there is none."""
    requests = {
        request: list(entries)
        for request, entries in groupby(visitor.transcripts(), key=lambda entry: entry.request)
    }
    if not requests:
        return
    asked = st.session_state.pop("just_asked", None) or st.session_state.get("open")
    st.session_state.open = asked if asked in requests else next(iter(requests))
    st.divider()
    request = st.selectbox(
        "Your transcripts",
        list(requests),
        format_func=lambda request: title(requests[request]),
        key="open",
    )
    _show_recording(visitor, requests[request])
    is_live = is_busy() or transcription_queue().is_busy(request)
    refresh_seconds = REFRESH_SECONDS if is_live else None
    st.fragment(_show_entries, run_every=refresh_seconds)(visitor, request, is_live)


def title(entries: list[Transcript]) -> str:
    """File, models, language, time and speed of a request, in one line."""
    languages = {LANGUAGE_NAMES.get(entry.language or "", entry.language) for entry in entries}
    parts = [
        entries[0].recording.name,
        " and ".join(entry.model for entry in entries),
        *sorted(filter(None, languages)),
        datetime.fromtimestamp(entries[0].made, widgets.zone()).strftime("%Y-%m-%d %H:%M"),
        " and ".join(_speed(entry) for entry in entries),
    ]
    return " · ".join(parts)


def _speed(entry: Transcript) -> str:
    if entry.speed is None:
        return "nothing heard yet" if entry.state in (WAITING, RUNNING) else entry.state
    return f"{entry.speed:.1f} times real time"


def _show_recording(visitor: Visitor, entries: list[Transcript]) -> None:
    """Show the recording that was heard, whatever else is chosen above."""
    first = entries[0]
    st.text(first.recording.name)
    try:
        sound = recording_input.unpack(visitor, first.recording)
    except UserError as error:
        widgets.show_error(error)
    else:
        waveform.show(first.recording.id, sound, first.start, first.end)


def _sound(visitor: Visitor, recording: Recording) -> SampleFile | None:
    """The samples of a recording; None if it is gone."""
    try:
        return recording_input.unpack(visitor, recording)
    except UserError:
        return None


def _show_entries(visitor: Visitor, request: str, was_live: bool) -> None:
    """Show each model's progress or result, side by side.

    It is a fragment that Streamlit runs repeatedly while it is live: until neither this request nor
    the last one of this tab goes on.
    """
    queue = transcription_queue()
    is_live = is_busy() or queue.is_busy(request)  # asked first: what ends later is drawn again
    entries = [entry for entry in visitor.transcripts() if entry.request == request]
    columns = st.columns(max(len(entries), 1))
    for column, entry in zip(columns, entries, strict=False):
        with column:
            job = queue.find(entry.id)
            if job and not job.ended:
                transcript.progress(entry, job)
            else:
                sound = _sound(visitor, entry.recording)
                shown = entry.with_result(job) if job else visitor.reread(entry)
                transcript.heading(shown)
                _show_language(visitor, shown, sound)
                _offer_rest(visitor, shown, sound)
                transcript.result(visitor, shown, sound, len(entries))
    if was_live and not is_live:
        st.rerun()  # the whole page, which then stops running this fragment


def _show_language(visitor: Visitor, entry: Transcript, sound: SampleFile | None) -> None:
    """Say which language was heard, on a button that lets one change it and transcribe again."""
    if entry.language_source is None:
        return
    if entry.doubt:
        st.warning(widgets.plain(f"{entry.doubt}."), icon=":material/warning:")
    if entry.times:
        st.caption(entry.times)
    text = Prompt(entry.language, entry.language_source, entry.language_probability).text
    if entry.language is None or sound is None:
        st.caption(text)
        return
    with st.popover(widgets.plain(text), icon=":material/translate:", key=f"language-{entry.id}"):
        codes = list(LANGUAGE_NAMES)
        language = st.selectbox(
            "Language spoken",
            codes,
            index=codes.index(entry.language) if entry.language in codes else 0,
            format_func=LANGUAGE_NAMES.__getitem__,
            key=f"other-{entry.id}",
        )
        wanted = replace(entry, options=replace(entry.options, language=language))
        _again(visitor, wanted, sound, "Transcribe again", "again")


def _offer_rest(visitor: Visitor, entry: Transcript, sound: SampleFile | None) -> None:
    """Buttons that go on where a transcript broke off, or begin anew."""
    if entry.state == DONE or sound is None:
        return
    with st.container(horizontal=True):
        if entry.segments and entry.heard_until < entry.end:
            rest = replace(entry, start=entry.heard_until)
            _again(visitor, rest, sound, "Transcribe the rest", "rest")
        _again(visitor, entry, sound, "Transcribe all again", "anew")


def _again(visitor: Visitor, wanted: Transcript, sound: SampleFile, label: str, key: str) -> None:
    """A button that makes a new transcript with the model, options and stretch of `wanted`."""
    help_text = "Makes a new transcript; this one stays"
    if st.button(label, key=f"{key}-{wanted.id}", disabled=is_busy(), help=help_text):
        options = {wanted.model: wanted.options}
        try:
            submit(visitor, wanted.recording, sound, options, wanted.start, wanted.end)
        except UserError as error:
            widgets.show_error(error)
