"""Talk: speak with a language model, and listen to its answers.

A recording is transcribed as on the page Transcribe (`dashboard.talk.recorder`), answered by the
server that OPENAI_BASE_URL names (`dashboard.talk.chat`), and the answer is spoken by espeak-ng
(`dashboard.talk.speech`). The conversation is kept with what the visitor brought
(`asr.transcribe.visitors`).
"""

from __future__ import annotations

import time
from contextlib import closing

import streamlit as st

from asr import paths
from asr.errors import UserError
from asr.params import reader
from asr.whisper import LANGUAGE_NAMES
from dashboard import visitor, widgets
from dashboard.talk import chat, recorder, speech
from dashboard.talk.conversation import MAX_CHARACTERS, Conversation, prompt

DRAW_SECONDS = 0.05  # from one drawing of a growing answer to the next
AUTOPLAY_SECONDS = 5  # added to the duration of an answer, for the time to the browser
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


def page() -> None:
    st.header("Talk")
    try:
        host = chat.host() if chat.configured() else None
    except UserError as error:
        widgets.show_error(error)
        host = None
    if host is None:
        show_setup()
        return
    me = visitor.current()
    if me is None:
        return
    conversation: Conversation = st.session_state.setdefault("talk", Conversation(me))
    language, aloud = choose_settings(conversation, host)
    history = st.container()
    with history:
        for message in conversation.messages:
            with st.chat_message(message["role"], avatar=AVATARS[message["role"]]):
                st.text(message["content"])
    # A placeholder, so that the last outcome vanishes as soon as the next answer begins.
    outcome = st.empty()
    recorder.show(conversation)
    typed = st.chat_input("Or write a message", max_chars=MAX_CHARACTERS, key="talk_typed")
    if typed and typed.strip():
        try:
            conversation.send(typed)
        except UserError as error:
            conversation.error = error
    if conversation.needs_answer:
        with history:
            answer(conversation, language, aloud)
    with outcome.container():
        show_outcome(conversation)
    visitor.show_deletion(me)


def show_setup() -> None:
    """Show what to start and which variables to set if no language model is configured."""
    widgets.empty_state(
        "There is no language model to talk with. "
        "Start one, say in OPENAI_BASE_URL where it is, and start the dashboard again."
    )
    columns = st.columns(2)
    servers = {"With Ollama": OLLAMA, "With llama.cpp": LLAMA_CPP}
    for column, (title, commands) in zip(columns, servers.items(), strict=True):
        with column:
            st.subheader(title)
            st.code("\n".join(commands), language="bash", wrap_lines=True)
    hint = (
        "Any OpenAI-compatible address will do. "
        "OPENAI_MODEL names the model, else the first that the server lists is taken; "
        "OPENAI_API_KEY is the key, where the server wants one. "
        "What you say goes to this address and to no other."
    )
    st.caption(widgets.plain(hint))


def choose_settings(conversation: Conversation, host: str) -> tuple[str, bool]:
    """Ask for the language of the answers, and whether they are spoken.

    Both are kept in the session: Streamlit forgets widgets while another page is shown.
    """
    settings = st.session_state.setdefault(
        "talk_settings", {"language": corpus_language(), "aloud": True}
    )
    languages = speech.languages()
    language = settings["language"]
    st.caption(f"Speak or write; the language model at {widgets.plain(host)} answers.")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        settings["language"] = st.selectbox(
            "Language of the answers",
            languages,
            index=languages.index(language) if language in languages else 0,
            format_func=LANGUAGE_NAMES.__getitem__,
            key="talk_language",
            width=240,
        )
        settings["aloud"] = st.toggle(
            "Read answers aloud", value=settings["aloud"], key="talk_aloud"
        )
        if st.button(
            "New conversation",
            icon=":material/add:",
            disabled=not conversation.messages,
            key="talk_clear",
            help="Deletes this one",
        ):
            conversation.drop_recording()
            conversation.visitor.forget_messages()
            st.session_state.talk = Conversation(conversation.visitor, take=conversation.take)
            st.rerun()
    return settings["language"], settings["aloud"]


def corpus_language() -> str:
    """The language in this workspace's params.yaml; English if it cannot be read."""
    try:
        return reader.load(paths.root() / "params.yaml").language
    except UserError:
        return "en"


def answer(conversation: Conversation, language: str, aloud: bool) -> None:
    """Stream the answer as plain text, then speak it.

    After a stop or an error the beginning of the answer is kept.
    """
    conversation.needs_answer = False
    messages = prompt(conversation.messages, language)
    try:
        with st.chat_message("assistant", avatar=AVATARS["assistant"]):
            text = receive_answer(conversation, messages)
            if aloud:
                speak(conversation, text, language)
    except UserError as error:
        conversation.error = error
    st.rerun()


def receive_answer(conversation: Conversation, messages: list[dict[str, str]]) -> str:
    """Stream an answer, and keep what has come of it, however it ends."""
    message = {"role": "assistant", "content": ""}
    try:
        stream_answer(messages, message)
    finally:
        if message["content"]:
            conversation.visitor.add_message(**message)
    return message["content"]


def stream_answer(messages: list[dict[str, str]], message: dict[str, str]) -> None:
    """Add the pieces of the answer to `message` and draw it as it grows, with a stop button.

    When the button is pressed, Streamlit ends this run at the next drawing. So drawing continues
    even while the model is silent.
    """
    text = st.empty()
    stop = st.empty()
    stop.button("Stop", icon=":material/stop:", key="talk_stop")
    drawn = 0.0
    with closing(chat.patient_answer(messages, 2 * DRAW_SECONDS)) as stream:
        for piece in stream:
            message["content"] += piece
            if time.monotonic() - drawn > DRAW_SECONDS:
                text.text(message["content"] or "…")
                drawn = time.monotonic()
    text.text(message["content"])
    stop.empty()


def speak(conversation: Conversation, text: str, language: str) -> None:
    with st.spinner("Speaking …"):
        sound = speech.say(text, language)
    conversation.answer_sound = sound
    played_seconds = AUTOPLAY_SECONDS + speech.duration(sound)
    conversation.autoplay_until = time.monotonic() + played_seconds


def show_outcome(conversation: Conversation) -> None:
    """Show the last answer as sound, or what went wrong and a button to ask again."""
    if conversation.answer_sound:
        # Not on a later visit, when the answer has been played already.
        autoplay = time.monotonic() < conversation.autoplay_until
        st.audio(conversation.answer_sound, format="audio/flac", autoplay=autoplay)
    if conversation.error:
        widgets.show_error(conversation.error)
    messages = conversation.messages
    is_unanswered = messages and messages[-1]["role"] == "user"
    if is_unanswered and st.button("Ask again", icon=":material/refresh:", key="talk_again"):
        conversation.needs_answer = True
        conversation.error = None
        st.rerun()
