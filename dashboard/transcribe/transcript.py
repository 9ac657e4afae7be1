"""One transcript: progress, segments to play and correct, downloads.

Corrected pairs of sound and text can be kept for training.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import streamlit as st

from asr import paths
from asr.audio import sample_file
from asr.audio.sample_file import SampleFile
from asr.decoding.segments import Segment
from asr.errors import DiskError, UserError
from asr.evaluation import loops
from asr.runtime import formatting
from asr.sources.utterances import one_line
from asr.transcribe import corrections
from asr.transcribe.formats import FORMATS
from asr.transcribe.job_queue import CANCELLED, DONE, FAILED, WAITING, Job
from asr.transcribe.visitors import Transcript, Visitor
from dashboard import widgets
from dashboard.session import transcription_queue

NO_WORDS = "No words were heard."
PAGE_ROWS = 20  # segments on one page
LOOP = "a loop"  # mark of a segment in which the model went round in circles
MAX_STEM_PART = 60  # characters of a recording's or a model's name in the name of a download
MIME = {
    "txt": "text/plain",
    "srt": "application/x-subrip",
    "vtt": "text/vtt",
    "json": "application/json",
    "csv": "text/csv",
}
RECORDINGS = "recordings"  # where corrected pairs are kept, from the top of the repository
TRAINING_COMMANDS = """make keep NAME=mine
dvc exp run -S download.source=folder -S download.path=recordings -S model.name=models/kept/mine"""


def heading(entry: Transcript) -> None:
    """Which model heard it: its name, which weights the name stood for then, and how it decoded."""
    model = f"{entry.model}, {entry.weights}" if entry.weights else entry.model
    st.subheader(widgets.plain(model))
    if entry.settings:
        wer = "" if entry.wer is None else f" · {formatting.percent(entry.wer)} WER in its test"
        st.caption(widgets.plain(entry.settings + wer))


def progress(entry: Transcript, job: Job) -> None:
    """How far a job is, and what of it is kept so far: what was shown survives the server."""
    heading(entry.with_result(job))
    if job.state == WAITING:
        ahead = transcription_queue().position(job)
        jobs = "transcription comes" if ahead == 1 else "transcriptions come"
        st.info(f"Waiting: {ahead} {jobs} first.", icon=":material/hourglass_top:")
    else:
        position = f"{formatting.clock(job.moment)} of {formatting.clock(job.end)}"
        st.progress(job.progress, f"{job.doing}: {position}")
    if st.button("Cancel", key=f"cancel-{entry.id}", icon=":material/close:"):
        job.cancel()
    if entry.segments:
        latest = entry.segments[-PAGE_ROWS:]
        lines = [f"{formatting.clock(segment.start)}  {segment.text}" for segment in latest]
        st.text("\n".join(lines))


def result(visitor: Visitor, entry: Transcript, sound: SampleFile | None, num_models: int) -> None:
    """An ended transcript: its text to play and correct, downloads, and a way into training.

    Args:
        sound: what was heard; None if it is not there any more.
        num_models: how many models are shown side by side.
    """
    _how_it_ended(entry)
    if not entry.segments:
        return
    corrected = visitor.corrections(entry)
    segments = [
        segment.with_text(corrected.get(number, segment.text))
        for number, segment in enumerate(entry.segments)
    ]
    _loops(segments)
    _segments(visitor, entry, segments, sound)
    _downloads(entry, segments, num_models)
    if sound:
        _add_to_training(entry, segments, corrected, sound)


def _how_it_ended(entry: Transcript) -> None:
    """Why a transcript has no text, or does not reach the end of its stretch, and where it ends."""
    if entry.state == DONE:
        if not entry.segments:
            st.info(NO_WORDS, icon=":material/volume_off:")
        return
    if entry.state == FAILED:
        st.error(widgets.plain(entry.fault or ""), icon=":material/error:")
        return
    what = "Cancelled" if entry.state == CANCELLED else "The server stopped before the end"
    heard = "nothing was heard until then."
    if entry.segments:
        until = f"{formatting.clock(entry.heard_until)} of {formatting.clock(entry.end)}"
        heard = f"what was heard until then is below, up to {until}."
    st.info(f"{what}; {heard}", icon=":material/block:")


def _loops(segments: list[Segment]) -> None:
    """Warn of segments in which the model went round in circles."""
    count = sum(loops.find(segment.text) is not None for segment in segments)
    if count:
        segments_text = "segment repeats" if count == 1 else "segments repeat"
        st.warning(
            f"{count} {segments_text} a phrase over and over ({LOOP}); that is no speech.",
            icon=":material/warning:",
        )


def _segments(
    visitor: Visitor, entry: Transcript, segments: list[Segment], sound: SampleFile | None
) -> None:
    """One page of segments."""
    first = 0
    if len(segments) > PAGE_ROWS:
        pages = -(-len(segments) // PAGE_ROWS)
        page = st.number_input(f"Page of {pages}", 1, pages, key=f"page-{entry.id}")
        first = PAGE_ROWS * (page - 1)
    # What is typed is the browser's alone until then.
    st.caption("A corrected text is kept once you leave its field.")
    for number, segment in list(enumerate(segments))[first : first + PAGE_ROWS]:
        _segment(visitor, entry, number, segment, sound)


def _segment(
    visitor: Visitor, entry: Transcript, number: int, segment: Segment, sound: SampleFile | None
) -> None:
    """One segment: a button that plays it, and its text to correct in place."""
    left, right = st.columns([1, 4], vertical_alignment="center")
    times = f"{formatting.clock(segment.start)}–{formatting.clock(segment.end)}"
    if left.button(
        times,
        icon=":material/play_arrow:",
        key=f"play-{entry.id}-{number}",
        disabled=sound is None,
        help="Play this stretch",
    ):
        st.session_state.playing = (entry.id, number)
    if loop := loops.find(segment.text):
        left.badge(f"{LOOP}, {loop.times} times", icon=":material/repeat:", color="orange")
    # A box is another one for each text that is kept, so that what another tab corrected is shown.
    # A text set through the session would be lost where a run is cut short by the next.
    kept = hashlib.sha256(segment.text.encode(errors="replace")).hexdigest()[:16]
    key = f"text-{entry.id}-{number}-{kept}"
    right.text_area(
        f"Text from {times}",
        segment.text,
        key=key,
        height="content",
        label_visibility="collapsed",
        on_change=_on_correction,
        args=(visitor, entry, number, key),
    )
    if sound and st.session_state.get("playing") == (entry.id, number):
        stretch = sample_file.wav(sound, segment.start, segment.end)
        st.audio(stretch, format="audio/wav", autoplay=True)


def _on_correction(visitor: Visitor, entry: Transcript, number: int, key: str) -> None:
    try:
        visitor.correct(entry, number, st.session_state[key])
    except UserError as error:
        st.toast(widgets.plain(error), icon=":material/warning:", duration="infinite")


def _downloads(entry: Transcript, segments: list[Segment], num_models: int) -> None:
    """One button per format."""
    stem = _file_stem(entry, num_models)
    with st.container(horizontal=True):
        for kind, write in FORMATS.items():
            st.download_button(
                kind.upper(),
                write(segments),
                f"{stem}.{kind}",
                MIME[kind],
                key=f"get-{kind}-{entry.id}",
                icon=":material/download:",
                on_click="ignore",
            )


def _file_stem(entry: Transcript, num_models: int) -> str:
    """The recording's name, and the model's if two are compared, in characters fit for a file."""
    names = [Path(entry.recording.name).stem]
    if num_models > 1:
        names.append(entry.model)
    parts = [re.sub(r"\W+", "-", name).strip("-")[:MAX_STEM_PART] for name in names]
    return "-".join(part for part in parts if part) or "transcript"


def _add_to_training(
    entry: Transcript, segments: list[Segment], corrected: dict[int, str], sound: SampleFile
) -> None:
    """Save corrected pairs, or all, so that the next training can learn from them."""
    with st.expander("Add to the training data", icon=":material/school:"):
        take_all = st.toggle(
            "Also what you did not correct, mistakes of the model included", key=f"all-{entry.id}"
        )
        chosen = [
            segment
            for number, segment in enumerate(segments)
            if (take_all or number in corrected) and one_line(segment.text)
        ]
        st.caption(_what_is_added(len(chosen), take_all, bool(corrected)))
        hint = "a name or number; a speaker's recordings stay in one split"
        speaker = st.text_input("Speaker", placeholder=hint, key=f"who-{entry.id}", max_chars=80)
        if st.button("Add", key=f"save-{entry.id}", icon=":material/save:", disabled=not chosen):
            try:
                _save(sound, chosen, speaker)
            except UserError as error:
                widgets.show_error(error)
            except OSError as error:
                message = (
                    f"recordings/ cannot be written: {error.strerror}; "
                    "bring the recording again, or make room"
                )
                widgets.show_error(DiskError(message))


def _what_is_added(count: int, take_all: bool, is_corrected: bool) -> str:
    """What the button adds; a segment whose text was emptied is not counted."""
    if not count:
        return (
            "Nothing to add." if is_corrected else "Nothing to add: you corrected no segment yet."
        )
    if take_all:
        return f"Adds all {count} segments." if count > 1 else "Adds the one segment."
    return (
        f"Adds the {count} segments you corrected."
        if count > 1
        else "Adds the segment you corrected."
    )


def _save(sound: SampleFile, segments: list[Segment], speaker: str) -> None:
    """Save the pairs, then show how many there are, and what training with them still needs."""
    folder = paths.resolve(RECORDINGS)
    num_saved = corrections.save(folder, sound, segments, speaker)
    counts = corrections.splits(folder)
    pairs = "pair" if num_saved == 1 else "pairs"
    st.success(f"Added {num_saved} {pairs} to recordings/.", icon=":material/check:")
    if all(counts.values()):
        st.code(TRAINING_COMMANDS)
        return
    *first, last = map(str, counts.values())
    st.info(
        "Training needs recordings for training, validation and test; "
        f"you have {', '.join(first)} and {last}. Add more voices; "
        "or leave the speaker empty: each recording then finds its own split.",
        icon=":material/info:",
    )
