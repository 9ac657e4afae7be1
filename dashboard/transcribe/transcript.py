"""The result of a transcription: progress, segments to play and correct, downloads.

Corrected pairs of sound and text can be kept for training.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import streamlit as st

from asr import paths
from asr.audio import sample_file
from asr.errors import DiskError, UserError
from asr.runtime import formatting
from asr.transcribe import corrections
from asr.transcribe.formats import FORMATS, Segment
from asr.transcribe.job_queue import DONE, FAILED, WAITING, Job
from asr.whisper import LANGUAGE_NAMES
from dashboard import widgets
from dashboard.session import transcription_queue
from dashboard.transcribe.recording_input import ChosenRecording

PAGE_ROWS = 20  # segments on one page
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


@dataclass
class TranscriptionRequest:
    """The latest request of a visitor, and the state of its result on the page.

    jobs: one job per model, by the model's shown name.
    corrections: corrected text by (model, index of the segment).
    playing: the segment whose player is open.
    finished: whether the page was drawn again after the last job ended.
    """

    recording: ChosenRecording
    jobs: dict[str, Job]
    corrections: dict[tuple[str, int], str] = field(default_factory=dict)
    playing: tuple[str, int] | None = None
    finished: bool = False

    @property
    def busy(self) -> bool:
        return any(not job.ended for job in self.jobs.values())

    def segments(self, model: str) -> list[Segment]:
        """One model's segments, with the corrections."""
        return [
            Segment(segment.start, segment.end, self.text(model, index))
            for index, segment in enumerate(self.jobs[model].segments)
        ]

    def text(self, model: str, index: int) -> str:
        """The text of one segment, corrected if the visitor did so."""
        decoded = self.jobs[model].segments[index].text
        return self.corrections.get((model, index), decoded)


def show(request: TranscriptionRequest) -> None:
    """Show each model's progress or result, side by side.

    It is a fragment that Streamlit runs repeatedly until all jobs have ended.
    """
    columns = st.columns(len(request.jobs))
    for column, (model, job) in zip(columns, request.jobs.items(), strict=True):
        with column:
            if len(request.jobs) > 1:
                st.subheader(widgets.plain(model))
            if job.ended:
                _result(request, model)
            else:
                _progress(job, model)
    if not request.busy and not request.finished:
        request.finished = True
        st.rerun()  # the whole page, which then stops running this fragment


def _progress(job: Job, model: str) -> None:
    if job.state == WAITING:
        ahead = transcription_queue().position(job)
        jobs = "transcription comes" if ahead == 1 else "transcriptions come"
        st.info(f"Waiting: {ahead} {jobs} first.", icon=":material/hourglass_top:")
    else:
        position = f"{formatting.clock(job.moment)} of {formatting.clock(job.end)}"
        st.progress(job.progress, f"{job.doing}: {position}")
    if st.button("Cancel", key=f"cancel-{model}", icon=":material/close:"):
        job.cancel()
    if job.segments:
        latest = job.segments[-PAGE_ROWS:]
        lines = [f"{formatting.clock(segment.start)}  {segment.text}" for segment in latest]
        st.text("\n".join(lines))


def _result(request: TranscriptionRequest, model: str) -> None:
    job = request.jobs[model]
    if job.state == FAILED:
        st.error(widgets.plain(job.fault or ""), icon=":material/error:")
    elif job.state != DONE:
        st.info("Cancelled; what was heard until then is below.", icon=":material/block:")
    if not job.segments:
        return
    if job.language:
        st.caption(f"Language: {LANGUAGE_NAMES.get(job.language, job.language)}")
    _segments(request, model)
    _downloads(request, model)
    _keep_for_training(request, model)


def _segments(request: TranscriptionRequest, model: str) -> None:
    """One page of segments."""
    num_segments = len(request.jobs[model].segments)
    first = 0
    if num_segments > PAGE_ROWS:
        pages = -(-num_segments // PAGE_ROWS)
        page = st.number_input(f"Page of {pages}", 1, pages, key=f"page-{model}")
        first = PAGE_ROWS * (page - 1)
    for index in range(first, min(first + PAGE_ROWS, num_segments)):
        _segment(request, model, index)


def _segment(request: TranscriptionRequest, model: str, index: int) -> None:
    """One segment: a button that plays it, and its text to correct in place."""
    segment = request.jobs[model].segments[index]
    left, right = st.columns([1, 4], vertical_alignment="center")
    times = f"{formatting.clock(segment.start)}–{formatting.clock(segment.end)}"
    if left.button(
        times, icon=":material/play_arrow:", key=f"play-{model}-{index}", help="Play this stretch"
    ):
        request.playing = (model, index)
    key = f"text-{id(request)}-{model}-{index}"
    right.text_area(
        f"Text from {times}",
        request.text(model, index),
        key=key,
        height="content",
        label_visibility="collapsed",
        on_change=_on_correction,
        args=(request, key, model, index),
    )
    if request.playing == (model, index):
        _play(request.recording, segment)


def _on_correction(request: TranscriptionRequest, key: str, model: str, index: int) -> None:
    """Keep a text as soon as it changes.

    Streamlit forgets a text area that is not drawn, for example on another page of segments.
    """
    request.corrections[model, index] = st.session_state[key]


def _play(recording: ChosenRecording, segment: Segment) -> None:
    if not recording.sound.path.is_file():
        hint = "The recording is no longer here; bring it again to hear it."
        st.info(hint, icon=":material/info:")
        return
    sound = sample_file.wav(recording.sound, segment.start, segment.end)
    st.audio(sound, format="audio/wav", autoplay=True)


def _downloads(request: TranscriptionRequest, model: str) -> None:
    """One button per format."""
    stem = _file_stem(request, model)
    segments = request.segments(model)
    with st.container(horizontal=True):
        for kind, write in FORMATS.items():
            st.download_button(
                kind.upper(),
                write(segments),
                f"{stem}.{kind}",
                MIME[kind],
                key=f"get-{kind}-{model}",
                icon=":material/download:",
                on_click="ignore",
            )


def _file_stem(request: TranscriptionRequest, model: str) -> str:
    """The recording's name, and the model's if two are compared, in characters fit for a file."""
    names = [Path(request.recording.name).stem]
    if len(request.jobs) > 1:
        names.append(model)
    parts = [re.sub(r"\W+", "-", name).strip("-")[:MAX_STEM_PART] for name in names]
    return "-".join(part for part in parts if part) or "transcript"


def _keep_for_training(request: TranscriptionRequest, model: str) -> None:
    """Save corrected pairs, so that the next training can learn from them."""
    with st.expander("Keep the corrected text for training", icon=":material/school:"):
        st.caption(
            "Each stretch goes into recordings/ with its text; "
            "a stretch whose text you empty is left out."
        )
        hint = "a name or number; a speaker's recordings stay in one split"
        speaker = st.text_input("Speaker", placeholder=hint, key=f"who-{model}", max_chars=80)
        if st.button("Save", key=f"save-{model}", icon=":material/save:"):
            try:
                _save(request, model, speaker)
            except UserError as error:
                widgets.show_error(error)
            except OSError as error:
                message = (
                    f"recordings/ cannot be written: {error.strerror}; "
                    "bring the recording again, or make room"
                )
                widgets.show_error(DiskError(message))


def _save(request: TranscriptionRequest, model: str, speaker: str) -> None:
    """Save the pairs, then show how many there are, and what training with them still needs."""
    folder = paths.resolve(RECORDINGS)
    sound = request.recording.sound
    num_saved = corrections.save(folder, sound, request.segments(model), speaker)
    splits = corrections.splits(folder)
    pairs = "pair" if num_saved == 1 else "pairs"
    counts = ", ".join(f"{count} {split}" for split, count in splits.items())
    st.success(
        f"Saved {num_saved} {pairs}. recordings/ now holds: {counts}.", icon=":material/check:"
    )
    if all(splits.values()):
        st.code(TRAINING_COMMANDS)
        return
    st.info(
        "To train on them, every split wants at least one. Save more voices; "
        "or leave the speaker empty: each recording then finds its own split.",
        icon=":material/info:",
    )
