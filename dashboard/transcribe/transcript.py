"""What came of a transcription: progress, segments to play and correct, downloads, and corrected
pairs kept for training.
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
from dashboard.session import desk
from dashboard.transcribe.recording_input import ChosenRecording

ROWS = 20  # segments on one page
MIME = {
    "txt": "text/plain",
    "srt": "application/x-subrip",
    "vtt": "text/vtt",
    "json": "application/json",
    "csv": "text/csv",
}
RECORDINGS = "recordings"


@dataclass
class TranscriptionRequest:
    """What a visitor asked for last: one job per model, by the model's shown name; and what they
    made of the answers.
    """

    recording: ChosenRecording
    jobs: dict[str, Job]
    mended: dict[tuple[str, int], str] = field(default_factory=dict)
    playing: tuple[str, int] | None = None
    told: bool = False

    @property
    def busy(self) -> bool:
        return any(not job.ended for job in self.jobs.values())

    def segments(self, name: str) -> list[Segment]:
        """One model's segments, as corrected."""
        found = self.jobs[name].segments
        return [
            Segment(one.start, one.end, self.mended.get((name, index), one.text))
            for index, one in enumerate(found)
        ]


def show(asked: TranscriptionRequest) -> None:
    """Each model's progress or result, side by side; runs again by itself until all have ended."""
    for column, (name, job) in zip(st.columns(len(asked.jobs)), asked.jobs.items(), strict=True):
        with column:
            if len(asked.jobs) > 1:
                st.subheader(widgets.plain(name))
            _ended(asked, name) if job.ended else _running(job, name)
    if not asked.busy and not asked.told:
        asked.told = True
        st.rerun()  # the page stops asking


def _running(job: Job, name: str) -> None:
    if job.state == WAITING:
        ahead = desk().position(job)
        waiting = f"Waiting: {ahead} {'transcription comes' if ahead == 1 else 'transcriptions come'} first."
        st.info(waiting, icon=":material/hourglass_top:")
    else:
        st.progress(
            job.progress,
            f"{job.doing}: {formatting.clock(job.moment)} of {formatting.clock(job.end)}",
        )
    if st.button("Cancel", key=f"cancel-{name}", icon=":material/close:"):
        job.cancel()
    if job.segments:
        st.text(
            "\n".join(f"{formatting.clock(one.start)}  {one.text}" for one in job.segments[-ROWS:])
        )


def _ended(asked: TranscriptionRequest, name: str) -> None:
    job = asked.jobs[name]
    if job.state == FAILED:
        st.error(widgets.plain(job.fault or ""), icon=":material/error:")
    elif job.state != DONE:
        st.info("Cancelled; what was heard until then is below.", icon=":material/block:")
    if not job.segments:
        return
    if job.language:
        st.caption(f"Language: {LANGUAGE_NAMES.get(job.language, job.language)}")
    _correct(asked, name)
    _downloads(asked, name)
    _keep(asked, name)


def _correct(asked: TranscriptionRequest, name: str) -> None:
    """The segments, a page of them at a time: each can be played, and its text be mended in place."""
    found, first = asked.jobs[name].segments, 0
    if len(found) > ROWS:
        pages = -(-len(found) // ROWS)
        first = ROWS * (st.number_input(f"Page of {pages}", 1, pages, key=f"page-{name}") - 1)
    for index in range(first, min(first + ROWS, len(found))):
        _segment(asked, name, index)


def _segment(asked: TranscriptionRequest, name: str, index: int) -> None:
    one = asked.jobs[name].segments[index]
    left, right = st.columns([1, 4], vertical_alignment="center")
    times = f"{formatting.clock(one.start)}–{formatting.clock(one.end)}"
    if left.button(
        times, icon=":material/play_arrow:", key=f"play-{name}-{index}", help="Play this stretch"
    ):
        asked.playing = (name, index)
    field = f"text-{id(asked)}-{name}-{index}"
    right.text_area(
        f"Text from {times}",
        asked.mended.get((name, index), one.text),
        key=field,
        height="content",
        label_visibility="collapsed",
        on_change=_mend,
        args=(asked, field, name, index),
    )
    if asked.playing == (name, index):
        _play(asked.recording, one)


def _play(recording: ChosenRecording, segment: Segment) -> None:
    if recording.sound.path.is_file():
        st.audio(
            sample_file.wav(recording.sound, segment.start, segment.end),
            format="audio/wav",
            autoplay=True,
        )
    else:
        st.info(
            "The recording is no longer here; bring it again to hear it.", icon=":material/info:"
        )


def _mend(asked: TranscriptionRequest, field: str, name: str, index: int) -> None:
    """Take a text as soon as it changes: by the time it would be drawn again, another page of
    segments may be shown.
    """
    asked.mended[name, index] = st.session_state[field]


def _downloads(asked: TranscriptionRequest, name: str) -> None:
    """One button per format; the file is named after the recording, and where two models are
    compared after the model, in plain letters.
    """
    named = [Path(asked.recording.name).stem] + ([name] if len(asked.jobs) > 1 else [])
    stem = (
        "-".join(filter(None, (re.sub(r"\W+", "-", part).strip("-")[:60] for part in named)))
        or "transcript"
    )
    segments = asked.segments(name)
    with st.container(horizontal=True):
        for kind, write in FORMATS.items():
            st.download_button(
                kind.upper(),
                write(segments),
                f"{stem}.{kind}",
                MIME[kind],
                key=f"get-{kind}-{name}",
                icon=":material/download:",
                on_click="ignore",
            )


def _keep(asked: TranscriptionRequest, name: str) -> None:
    """Save corrected pairs, so that the next training can learn from them."""
    with st.expander("Keep the corrected text for training", icon=":material/school:"):
        st.caption(
            "Each stretch goes into recordings/ with its text; a stretch whose text you empty is left out."
        )
        hint = "a name or number; a speaker's recordings stay in one split"
        speaker = st.text_input("Speaker", placeholder=hint, key=f"who-{name}", max_chars=80)
        if st.button("Save", key=f"save-{name}", icon=":material/save:"):
            try:
                count = corrections.save(
                    paths.resolve(RECORDINGS), asked.recording.sound, asked.segments(name), speaker
                )
                _kept(count, corrections.splits(paths.resolve(RECORDINGS)))
            except UserError as fault:
                widgets.fault(fault)
            except OSError as error:
                widgets.fault(
                    DiskError(
                        f"recordings/ cannot be written: {error.strerror}; bring the recording again, or make room"
                    )
                )


def _kept(count: int, splits: dict[str, int]) -> None:
    """Say what was saved, and what training with it still wants."""
    held = ", ".join(f"{number} {split}" for split, number in splits.items())
    st.success(
        f"Saved {count} {'pair' if count == 1 else 'pairs'}. recordings/ now holds: {held}.",
        icon=":material/check:",
    )
    if all(splits.values()):
        st.code(
            "make keep NAME=mine\ndvc exp run -S download.source=folder -S download.path=recordings -S model.name=models/kept/mine"
        )
        return
    wanted = "To train on them, every split wants at least one. Save more voices; or leave the speaker empty: each recording then"
    st.info(f"{wanted} finds its own split.", icon=":material/info:")
