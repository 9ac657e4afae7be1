"""A visitor's conversation: its messages, and the recording that may become the next one."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from asr.errors import UserError
from asr.transcribe.job_queue import Job
from asr.transcribe.visitors import Visitor
from asr.whisper import LANGUAGE_NAMES

MAX_CHARACTERS = 4000  # of one message
MAX_SENT_MESSAGES = 20  # the latest messages, which are sent with each request
INSTRUCTIONS = (
    "Your answers are read aloud: a few short sentences of plain text, "
    "without lists, links or markup."
)


@dataclass
class Conversation:
    """The messages, the state of the last answer, and the recording of the next message.

    The messages are the visitor's, kept with what they brought; all else is this tab's.

    needs_answer: whether the last message still needs an answer.
    error: why the last answer, or the last recording, failed.
    answer_sound: the last answer as FLAC.
    autoplay_until: when the last answer has been played, by `time.monotonic`.
    take: the number of the recorder; each message gets a new recorder.
    recording_id: the recording that was last submitted as `job`, or could not be.
    job: the transcription of the recording.
    """

    visitor: Visitor
    needs_answer: bool = False
    error: UserError | None = None
    answer_sound: bytes | None = None
    autoplay_until: float = 0.0
    take: int = 0
    recording_id: str | None = None
    job: Job | None = None

    @property
    def messages(self) -> list[dict[str, str]]:
        """`role` (user or assistant) and `content` of each message, also of other tabs."""
        return self.visitor.messages()

    def drop_recording(self) -> None:
        """Cancel the transcription and forget the recording; the next one gets a new recorder."""
        self.cancel_job()
        self.take += 1

    def cancel_job(self) -> None:
        if self.job:
            self.job.cancel()
        self.job = None
        self.recording_id = None

    def send(self, text: str) -> None:
        """Add a text as the next message, and draw the page again.

        Raises:
            DiskError: there is no room for it.
        """
        self.visitor.add_message("user", text.strip())
        self.drop_recording()
        self.needs_answer = True
        self.error = None
        self.answer_sound = None
        st.rerun()


def prompt(messages: list[dict[str, str]], language: str) -> list[dict[str, str]]:
    """The messages sent to the language model: instructions, and the latest messages.

    Many models insist that the first turn is the user's and that turns alternate, so messages of
    one role in a row are joined.
    """
    turns: list[dict[str, str]] = []
    for message in messages[-MAX_SENT_MESSAGES:]:
        if turns and turns[-1]["role"] == message["role"]:
            turns[-1] = {**message, "content": f"{turns[-1]['content']}\n{message['content']}"}
        elif turns or message["role"] == "user":
            turns.append(message)
    instructions = f"{INSTRUCTIONS} Answer in {LANGUAGE_NAMES[language]}."
    return [{"role": "system", "content": instructions}, *turns]
