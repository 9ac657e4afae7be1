"""From the microphone to a message: record, transcribe, correct, send."""

from __future__ import annotations

import streamlit as st

from asr.errors import UserError
from asr.transcribe import models
from asr.transcribe.job_queue import CANCELLED, DONE, FAILED, WAITING, Job, Options
from asr.whisper import SAMPLE_RATE
from dashboard import widgets
from dashboard.session import transcription_queue
from dashboard.talk.conversation import MAX_CHARACTERS, Conversation

REFRESH_SECONDS = 0.5


def show(conversation: Conversation) -> None:
    """Show a recorder, and below it the state of the recording; without a model, why not."""
    if reason := models.why_missing():
        st.info(f"{widgets.plain(reason.capitalize())}. Until then, write.", icon=":material/info:")
        return
    sound = st.audio_input("Speak", sample_rate=SAMPLE_RATE, key=f"talk_take_{conversation.take}")
    below = st.empty()
    if sound is None:
        conversation.cancel_job()
        return
    with below.container():
        if sound.file_id != conversation.recording_id:
            start_transcription(conversation, sound.file_id, sound.getvalue())
        if conversation.job:
            show_job(conversation, conversation.job)


def start_transcription(conversation: Conversation, recording_id: str, sound: bytes) -> None:
    """Queue a new recording; if that fails, it is not tried again with the same recording."""
    conversation.recording_id = recording_id
    conversation.job = None
    try:
        with st.spinner("Unpacking the recording …"):
            conversation.job = transcribe(conversation.visitor.owner, sound)
    except UserError as error:
        conversation.error = error


def transcribe(owner: str, sound: bytes) -> Job:
    """Queue a recording, as the page Transcribe does, for the model of this workspace."""
    queue = transcription_queue()
    samples = queue.bring(owner, sound)
    return queue.submit(owner, samples, Options())


def show_job(conversation: Conversation, job: Job) -> None:
    """Show the progress of a transcription, its text to correct, or why there is none."""
    if not job.ended:
        st.fragment(show_progress, run_every=REFRESH_SECONDS)(job)
    elif job.state == DONE:
        correct(conversation, job.text)
    elif job.state == CANCELLED:
        st.info("Cancelled. Record again, or write.", icon=":material/info:")
    elif job.state == FAILED:
        st.warning(widgets.plain(job.fault), icon=":material/warning:")


def show_progress(job: Job) -> None:
    """Show the progress of the transcription; draw the page again when it has ended."""
    if job.ended:
        st.rerun()
    ahead = transcription_queue().position(job) if job.state == WAITING else 0
    st.progress(job.progress, text=f"Waiting; {ahead} before you" if ahead else "Transcribing …")
    if st.button("Cancel", key="talk_cancel"):
        job.cancel()


def correct(conversation: Conversation, transcript: str) -> None:
    """Show the transcript, to be corrected before it is sent."""
    if not transcript.strip():
        st.info("No words were heard. Record again, or write.", icon=":material/hearing_disabled:")
        return
    take = conversation.take
    with st.form(f"talk_correct_{take}", border=False):
        text = st.text_area(
            "Heard; correct it before you send it",
            value=transcript,
            max_chars=MAX_CHARACTERS,
            key=f"talk_text_{take}",
        )
        st.caption("It is kept once you send it.")
        with st.container(horizontal=True):
            send = st.form_submit_button("Send", type="primary", icon=":material/send:")
            discard = st.form_submit_button("Discard")
    if discard:
        conversation.drop_recording()
        st.rerun()
    if send and text.strip():
        try:
            conversation.send(text)
        except UserError as error:
            widgets.show_error(error)
