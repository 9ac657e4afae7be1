"""Talk: speak, see what was heard and correct it, and hear a language model's answer.

What is said is transcribed as on the page Transcribe, answered by the machine that OPENAI_BASE_URL
names (`dashboard.talk.chat`), and spoken by espeak-ng (`dashboard.talk.speech`). The conversation
lies in this browser tab's session, and nowhere else.
"""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass, field

import streamlit as st

from asr import paths
from asr.errors import UserError
from asr.params import reader
from asr.transcribe.job_queue import CANCELLED, DONE, FAILED, WAITING, Job, Options
from asr.whisper import LANGUAGE_NAMES
from dashboard import widgets
from dashboard.session import desk, owner
from dashboard.talk import chat, speech

SAMPLE_RATE = 16_000
MAX_CHARACTERS = 4000
KEPT_MESSAGES = 20  # what the model is reminded of
REFRESH_SECONDS = 0.5
DRAW_SECONDS = 0.05
AVATARS = {"user": ":material/person:", "assistant": ":material/forum:"}
OLLAMA = (
    "ollama pull llama3.2",
    "export OPENAI_BASE_URL=http://127.0.0.1:11434/v1",
    "export OPENAI_MODEL=llama3.2",
    "make dashboard",
)
LLAMA_CPP = (
    "llama-server -hf ggml-org/gemma-3-1b-it-GGUF --port 8080",
    "# in another terminal:",
    "export OPENAI_BASE_URL=http://127.0.0.1:8080/v1",
    "make dashboard",
)


@dataclass
class Talk:
    """One tab's conversation, and the recording that is about to become its next message."""

    messages: list[dict[str, str]] = field(default_factory=list)
    asked: bool = False  # the last message waits for its answer
    fault: UserError | None = None
    said: bytes | None = None  # the last answer as sound
    silent_after: float = 0.0  # when it has been played
    take: int = 0  # a new recorder for each message
    heard: str | None = None
    job: Job | None = None


def page() -> None:
    st.header("Talk")
    try:
        place = chat.host() if chat.configured() else None
    except UserError as fault:
        widgets.fault(fault)
        place = None
    if place is None:
        how_to_set()
        return
    talk: Talk = st.session_state.setdefault("talk", Talk())
    language, aloud = settings(talk, place)
    history = st.container()
    with history:
        for message in talk.messages:
            with st.chat_message(message["role"], avatar=AVATARS[message["role"]]):
                st.text(message["content"])
    outcome = (
        st.empty()
    )  # emptied at once when the next answer begins, as is the transcript's place
    speaking(talk)
    typed = st.chat_input("Or write a message", max_chars=MAX_CHARACTERS, key="talk_typed")
    if typed and typed.strip():
        send(talk, typed)
    if talk.asked:
        with history:
            answer(talk, language, aloud)
    with outcome.container():
        last(talk)


def how_to_set() -> None:
    """No language model is known: what to start, and which variables to set."""
    widgets.empty(
        "There is no language model to talk with. Start one, say in OPENAI_BASE_URL where it is, and start the dashboard again."
    )
    for column, name, commands in zip(
        st.columns(2), ("With Ollama", "With llama.cpp"), (OLLAMA, LLAMA_CPP), strict=True
    ):
        with column:
            st.subheader(name)
            st.code("\n".join(commands), language="bash", wrap_lines=True)
    hint = (
        "Any OpenAI-compatible address will do. OPENAI_MODEL names the model, else the first that the server lists is taken; "
        "OPENAI_API_KEY is the key, where the server wants one. What you say goes to this address and to no other."
    )
    st.caption(widgets.plain(hint))


def settings(talk: Talk, place: str) -> tuple[str, bool]:
    """The language of the answers, and whether they are spoken; both outlive a visit to another
    page.
    """
    kept = st.session_state.setdefault("talk_settings", {"language": own_language(), "aloud": True})
    known = speech.languages()
    st.caption(f"Speak or write; the language model at {widgets.plain(place)} answers.")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        kept["language"] = st.selectbox(
            "Language of the answers",
            known,
            index=known.index(kept["language"]) if kept["language"] in known else 0,
            format_func=lambda code: LANGUAGE_NAMES[code],
            key="talk_language",
            width=240,
        )
        kept["aloud"] = st.toggle("Speak them", value=kept["aloud"], key="talk_aloud")
        if st.button(
            "Clear",
            icon=":material/delete:",
            disabled=not talk.messages,
            key="talk_clear",
            help="Forget this conversation",
        ):
            drop(talk)
            st.session_state.talk = Talk(take=talk.take)
            st.rerun()
    return kept["language"], kept["aloud"]


def own_language() -> str:
    """The language of this workspace's corpus, where there is one."""
    try:
        return reader.load(paths.root() / "params.yaml").language
    except UserError:
        return "en"


def speaking(talk: Talk) -> None:
    """Record, transcribe, correct, send."""
    sound = st.audio_input("Speak", sample_rate=SAMPLE_RATE, key=f"talk_take_{talk.take}")
    below = st.empty()
    if sound is None:
        if talk.job:
            talk.job.cancel()
        talk.job = talk.heard = None
        return
    with below.container():
        if sound.file_id != talk.heard:
            bring(talk, sound.file_id, sound.getvalue())
        if talk.job:
            heard(talk, talk.job)


def bring(talk: Talk, name: str, sound: bytes) -> None:
    """Have a new recording transcribed; what failed is not tried again until something else is
    recorded.
    """
    talk.heard, talk.job = name, None
    try:
        with st.spinner("Unpacking the recording …"):
            talk.job = transcribe(sound)
    except UserError as fault:
        talk.fault = fault


def heard(talk: Talk, job: Job) -> None:
    """What there is of the transcript."""
    if not job.ended:
        st.fragment(waiting, run_every=REFRESH_SECONDS)(job)
    elif job.state == DONE:
        correct(talk, job.text)
    elif job.state == CANCELLED:
        st.info("Cancelled. Record again, or write.", icon=":material/info:")
    elif job.state == FAILED:
        st.warning(widgets.plain(job.fault), icon=":material/warning:")


def transcribe(sound: bytes) -> Job:
    """Queue what was said, as the page Transcribe does, for the model of this workspace."""
    return desk().submit(owner(), desk().bring(owner(), sound), Options())


def waiting(job: Job) -> None:
    """How far the transcription is; the page is drawn anew when it ends."""
    if job.ended:
        st.rerun()
    ahead = desk().position(job) if job.state == WAITING else 0
    st.progress(job.progress, text=f"Waiting; {ahead} before you" if ahead else "Transcribing …")
    if st.button("Cancel", key="talk_cancel"):
        job.cancel()


def correct(talk: Talk, text: str) -> None:
    """The transcript, to be corrected before it is sent."""
    if not text.strip():
        st.info("No words were heard. Record again, or write.", icon=":material/hearing_disabled:")
        return
    with st.form(f"talk_correct_{talk.take}", border=False):
        text = st.text_area(
            "Heard; correct it before you send it",
            value=text,
            max_chars=MAX_CHARACTERS,
            key=f"talk_text_{talk.take}",
        )
        with st.container(horizontal=True):
            wanted = st.form_submit_button("Send", type="primary", icon=":material/send:")
            unwanted = st.form_submit_button("Discard")
    if unwanted:
        drop(talk)
        st.rerun()
    if wanted and text.strip():
        send(talk, text)


def drop(talk: Talk) -> None:
    """Let go of the recording; the next one gets a new recorder."""
    if talk.job:
        talk.job.cancel()
    talk.take, talk.heard, talk.job = talk.take + 1, None, None


def send(talk: Talk, text: str) -> None:
    """Make a text the next message, and draw the page with it."""
    drop(talk)
    talk.messages.append({"role": "user", "content": text.strip()})
    talk.asked, talk.fault, talk.said = True, None, None
    st.rerun()


def answer(talk: Talk, language: str, aloud: bool) -> None:
    """Stream the answer as plain text, then have it said. What came before a stop, or before a
    fault, is kept.
    """
    talk.asked = False
    message = {"role": "assistant", "content": ""}
    asked = prompt(talk.messages, language)
    talk.messages.append(message)
    try:
        with st.chat_message("assistant", avatar=AVATARS["assistant"]):
            place, drawn = st.empty(), 0.0
            stop = st.empty()
            stop.button("Stop", icon=":material/stop:", key="talk_stop")
            with closing(chat.patient_answer(asked, 2 * DRAW_SECONDS)) as stream:
                for piece in stream:
                    message["content"] += piece
                    if time.monotonic() - drawn > DRAW_SECONDS:  # also where a stop is noticed
                        place.text(message["content"] or "…")
                        drawn = time.monotonic()
            place.text(message["content"])
            stop.empty()
            if aloud:
                say(talk, message["content"], language)
    except UserError as fault:
        talk.fault = fault
    finally:
        if not message["content"]:
            talk.messages.remove(message)
    st.rerun()


def prompt(messages: list[dict[str, str]], language: str) -> list[dict[str, str]]:
    """What the model is told: how to answer, and the last messages; turn by turn, as many models
    insist.
    """
    how = "Your answers are read aloud: a few short sentences of plain text, without lists, links or markup."
    turns: list[dict[str, str]] = []
    for message in messages[-KEPT_MESSAGES:]:
        if turns and turns[-1]["role"] == message["role"]:
            turns[-1] = {**message, "content": f"{turns[-1]['content']}\n{message['content']}"}
        elif turns or message["role"] == "user":
            turns.append(message)
    return [{"role": "system", "content": f"{how} Answer in {LANGUAGE_NAMES[language]}."}, *turns]


def say(talk: Talk, text: str, language: str) -> None:
    with st.spinner("Speaking …"):
        talk.said = speech.say(text, language)
    talk.silent_after = time.monotonic() + 5 + speech.duration(talk.said)


def last(talk: Talk) -> None:
    """The last answer as sound, or what went wrong with it and a way to ask again."""
    if talk.said:
        st.audio(
            talk.said, format="audio/flac", autoplay=time.monotonic() < talk.silent_after
        )  # not again on a later visit
    if talk.fault:
        widgets.fault(talk.fault)
    if (
        talk.messages
        and talk.messages[-1]["role"] == "user"
        and st.button("Ask again", icon=":material/refresh:", key="talk_again")
    ):
        talk.asked, talk.fault = True, None
        st.rerun()
