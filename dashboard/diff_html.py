"""Texts with their differences marked, and players: HTML in which every word is escaped. Costs 0.1
ms an utterance.
"""

from __future__ import annotations

from html import escape
from itertools import islice

import streamlit as st

from asr import wer
from asr.audio import media
from asr.evaluation import alignment
from asr.evaluation.alignment import DELETION, HIT, INSERTION, SUBSTITUTION, Mark
from asr.storage.corpus import Recording

SHOWN_WORDS = 400  # of one text; more is a recording, not an utterance
TAGS = {SUBSTITUTION: "mark", DELETION: "del", INSERTION: "ins"}
STYLE = """<style>
.marked { line-height: 1.9; overflow-wrap: anywhere; }
.marked p { margin: 0; }
.marked .who, .marked .about { display: block; font-size: .8rem; line-height: 1.4; opacity: .75; }
.marked .who { margin-top: .35rem; }
.marked .about { font-size: .875rem; }
.marked .nothing { opacity: .75; font-style: italic; }
.marked mark, .marked del, .marked ins { color: inherit; padding: .05em .25em; border-radius: .25em; text-underline-offset: .25em; }
.marked mark { background: rgba(214, 146, 20, .24); text-decoration: underline wavy #c2820f 1.5px; }
.marked del { background: rgba(217, 68, 68, .22); text-decoration: line-through #d94444 2px; }
.marked ins { background: rgba(44, 125, 214, .22); text-decoration: underline #3f8ee0 2px; }
.legend { display: flex; flex-wrap: wrap; column-gap: 1.5rem; font-size: .875rem; }
</style>"""
LEGEND = """<div class="marked legend">
<span><mark>substitution</mark> another word was heard (wavy)</span>
<span><del>deletion</del> the word was not heard (struck)</span>
<span><ins>insertion</ins> nobody said the word (underlined)</span></div>"""


def texts(reference: str, hypothesis: str, normalised: bool, name: str = "") -> str:
    """Reference and hypothesis, one below the other; `name` says whose hypothesis, where there are
    two.
    """
    if normalised:
        reference, hypothesis = wer.normalize(reference), wer.normalize(hypothesis)
    marks = alignment.align(reference, hypothesis)
    heard = f"hypothesis of {name}" if name else "hypothesis"
    return (
        f'<div class="marked"><span class="who">reference</span><p dir="auto">{_words(marks, "said")}</p>'
        f'<span class="who">{escape(heard)}</span><p dir="auto">{_words(marks, "heard")}</p></div>'
    )


def _words(marks: list[Mark], side: str) -> str:
    told = [(mark.kind, word) for mark in marks if (word := getattr(mark, side)) is not None]
    if not told:
        return '<span class="nothing">(nothing)</span>'
    shown = " ".join(_word(kind, word) for kind, word in islice(told, SHOWN_WORDS))
    return shown + (
        f' <span class="nothing">and {len(told) - SHOWN_WORDS:,} words more</span>'
        if len(told) > SHOWN_WORDS
        else ""
    )


def _word(kind: str, word: str) -> str:
    return escape(word) if kind == HIT else f"<{TAGS[kind]}>{escape(word)}</{TAGS[kind]}>"


def about(*told: str) -> str:
    """A line of small facts; each keeps its own direction of writing."""
    return f'<div class="marked"><span class="about">{" · ".join(f"<bdi>{escape(one)}</bdi>" for one in told if one)}</span></div>'


def player(recording: Recording | None) -> None:
    """The browser's player, or why there is none. Nothing is decoded here: the browser does that,
    in its own safe place.
    """
    if recording is None or not recording.size:
        st.caption("No recording is there.")
    elif recording.sound is None:
        st.caption(f"Too long to play here: {recording.size / 1e6:,.0f} MB.")
    elif kind := media.media_type(recording.sound):
        st.audio(recording.sound, format=kind)
    else:
        st.caption(f"Not a format that browsers play; {recording.size:,} bytes.")
