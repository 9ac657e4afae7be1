"""Reference and hypothesis as HTML with their differences marked, and players for recordings.

Every word is escaped. Costs 0.1 ms an utterance.
"""

from __future__ import annotations

from html import escape

import streamlit as st

from asr import wer
from asr.audio import media
from asr.evaluation import alignment
from asr.evaluation.alignment import DELETION, HIT, INSERTION, SUBSTITUTION
from asr.storage.corpus import Recording

MAX_SHOWN_WORDS = 400  # of one text; a longer text is not an utterance
TAGS = {SUBSTITUTION: "mark", DELETION: "del", INSERTION: "ins"}
STYLE = """<style>
.marked { line-height: 1.9; overflow-wrap: anywhere; }
.marked p { margin: 0; }
.marked .who, .marked .about { display: block; font-size: .8rem; line-height: 1.4; opacity: .75; }
.marked .who { margin-top: .35rem; }
.marked .about { font-size: .875rem; }
.marked .nothing { opacity: .75; font-style: italic; }
.marked mark, .marked del, .marked ins { color: inherit; padding: .05em .25em; \
border-radius: .25em; text-underline-offset: .25em; }
.marked mark { background: rgba(214, 146, 20, .24); text-decoration: underline wavy #c2820f 1.5px; }
.marked del { background: rgba(217, 68, 68, .22); text-decoration: line-through #d94444 2px; }
.marked ins { background: rgba(44, 125, 214, .22); text-decoration: underline #3f8ee0 2px; }
.legend { display: flex; flex-wrap: wrap; column-gap: 1.5rem; font-size: .875rem; }
</style>"""
LEGEND = """<div class="marked legend">
<span><mark>wrong word</mark> another was heard (wavy)</span>
<span><del>missed word</del> it was not heard (struck)</span>
<span><ins>added word</ins> nobody said it (underlined)</span></div>"""


def texts(reference: str, hypothesis: str, normalized: bool, name: str = "") -> str:
    """Reference and hypothesis one below the other, with differences marked, as HTML.

    Args:
        normalized: show the texts as WER counts them, not as they were written.
        name: name of the model, if there are two; else empty.
    """
    if normalized:
        reference = wer.normalize(reference)
        hypothesis = wer.normalize(hypothesis)
    marks = alignment.align(reference, hypothesis)
    reference_words = _words([(mark.kind, mark.said) for mark in marks])
    hypothesis_words = _words([(mark.kind, mark.heard) for mark in marks])
    title = f"heard by {name}" if name else "heard"
    return (
        '<div class="marked">'
        f'<span class="who">said</span><p dir="auto">{reference_words}</p>'
        f'<span class="who">{escape(title)}</span><p dir="auto">{hypothesis_words}</p>'
        "</div>"
    )


def _words(words: list[tuple[str, str | None]]) -> str:
    """The words of one text as HTML, from (kind, word) pairs; pairs without a word are left out."""
    present = [(kind, word) for kind, word in words if word is not None]
    if not present:
        return '<span class="nothing">(nothing)</span>'
    marked = " ".join(_word(kind, word) for kind, word in present[:MAX_SHOWN_WORDS])
    num_hidden = len(present) - MAX_SHOWN_WORDS
    if num_hidden > 0:
        marked += f' <span class="nothing">and {num_hidden:,} words more</span>'
    return marked


def _word(kind: str, word: str) -> str:
    if kind == HIT:
        return escape(word)
    return f"<{TAGS[kind]}>{escape(word)}</{TAGS[kind]}>"


def facts_line(*facts: str, link: str = "") -> str:
    """A line of short facts, as HTML; empty ones are left out.

    Args:
        link: an address, which ends the line as "link".
    """
    # <bdi> keeps the writing direction of a fact from affecting its neighbors.
    parts = [f"<bdi>{escape(fact)}</bdi>" for fact in facts if fact]
    if link:
        parts.append(f'<a href="{escape(link)}">link</a>')
    line = " · ".join(parts)
    return f'<div class="marked"><span class="about">{line}</span></div>'


def player(recording: Recording | None) -> None:
    """Show the browser's player, or say why there is none.

    Nothing is decoded here: the browser does that in its own sandbox.
    """
    if recording is None or not recording.size:
        st.caption("No recording is there.")
    elif recording.sound is None:
        st.caption(f"Too long to play here: {recording.size / 1e6:,.0f} MB.")
    elif media_type := media.media_type(recording.sound):
        st.audio(recording.sound, format=media_type)
    else:
        st.caption(f"Not a format that browsers play; {recording.size:,} bytes.")
