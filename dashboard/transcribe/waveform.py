"""A recording as a waveform, trimmed by brush or by slider, and a player for the chosen stretch."""

from __future__ import annotations

import altair as alt
import pandas as pd
import streamlit as st

from asr.audio import sample_file
from asr.audio.sample_file import SampleFile
from asr.runtime import formatting

BARS = 600
HEIGHT = 130
SMALL_HEIGHT = 90  # beside a transcript
PLAYED_SECONDS = 600.0  # limit of a player, which gets its sound in one piece
CHOSEN_COLOR, LEFT_OUT_COLOR = "#0e8f8a", "#9aa5a8"  # readable on light and on dark


def trim(key: str, recording: SampleFile) -> tuple[float, float]:
    """Show a recording and let the visitor choose a stretch; return start and end in seconds.

    The slider's value is the choice, and the brush sets the slider. The slider cannot set the
    brush, so when it moves, the brush gets a new key and the chart is drawn again without a brush.
    """
    length = recording.duration
    slider_key = f"trim-{key}"
    moves_key = f"moved-{key}"
    brush_key = f"brush-{key}-{st.session_state.setdefault(moves_key, 0)}"
    step = 0.1 if length <= 600 else 1.0
    slider_end = max(round(length, 1), step)
    start, end = st.session_state.setdefault(slider_key, (0.0, slider_end))
    brush = alt.selection_interval(name="brush", encodings=["x"])
    st.altair_chart(
        _chart(_bars(key, recording), start, end, length).add_params(brush),
        on_select=lambda: _on_brush(brush_key, slider_key, slider_end),
        selection_mode="brush",
        key=brush_key,
    )
    st.slider(
        "Part to transcribe",
        0.0,
        slider_end,
        step=step,
        key=slider_key,
        format="%.1f s",
        on_change=_on_slide,
        args=(moves_key,),
    )
    start, end = st.session_state[slider_key]
    end = min(end if end > start else slider_end, length)
    start = min(start, max(end - step, 0.0))
    player(recording, start, end)
    return start, end


def show(key: str, recording: SampleFile, start: float, end: float) -> None:
    """A stretch of a recording, to look at and to play."""
    st.altair_chart(_chart(_bars(key, recording), start, end, recording.duration, SMALL_HEIGHT))
    player(recording, start, end)


def player(recording: SampleFile, start: float, end: float) -> None:
    """A player for a stretch, and its times in words."""
    clock, duration_text = formatting.clock, formatting.duration_text
    text = (
        f"{clock(start)} to {clock(end)}, "
        f"{duration_text(end - start)} of {duration_text(recording.duration)}"
    )
    if end - start > PLAYED_SECONDS:
        text += f"; the player has the first {duration_text(PLAYED_SECONDS)}"
    st.caption(text)
    played_end = min(end, start + PLAYED_SECONDS)
    st.audio(sample_file.wav(recording, start, played_end), format="audio/wav")


@st.cache_data(max_entries=50, show_spinner=False)
def _bars(key: str, _recording: SampleFile) -> pd.DataFrame:  # noqa: ARG001 (the cache's key)
    """The waveform's bars: columns seconds, low and high; computed once for each recording."""
    length = _recording.duration
    peaks = sample_file.peaks(_recording, 0.0, length, BARS)
    loudest = max(float(abs(peaks).max()), 1e-3)  # silence stays flat
    return pd.DataFrame(
        {
            "seconds": [index * length / BARS for index in range(BARS)],
            "low": peaks[:, 0] / loudest,
            "high": peaks[:, 1] / loudest,
        }
    )


def _chart(
    bars: pd.DataFrame, start: float, end: float, length: float, height: int = HEIGHT
) -> alt.Chart:
    """Bars in two colors, of the stretch and of what is outside it."""
    inside = (bars["seconds"] >= start - length / BARS) & (bars["seconds"] <= end)
    color = alt.Color(
        "part:N",
        scale=alt.Scale(domain=["chosen", "left out"], range=[CHOSEN_COLOR, LEFT_OUT_COLOR]),
        legend=None,
    )
    axis = alt.Axis(grid=False, tickCount=8, labelExpr="datum.label + ' s'", title=None)
    time = alt.X("seconds:Q", scale=alt.Scale(domain=[0, length], nice=False), axis=axis)
    loudness = alt.Y("low:Q", axis=None, scale=alt.Scale(domain=[-1, 1]))
    chart: alt.Chart = (
        alt.Chart(bars.assign(part=inside.map({True: "chosen", False: "left out"})))
        .mark_bar(width=1.4)
        .encode(x=time, y=loudness, y2="high:Q", color=color)
        .properties(height=height)
    )
    return chart


def _on_brush(brush_key: str, slider_key: str, slider_end: float) -> None:
    """Copy a stretch from the brush to the slider."""
    edges = st.session_state[brush_key].selection.get("brush", {}).get("seconds")
    if not edges:
        return
    start, end = sorted(min(max(round(float(edge), 1), 0.0), slider_end) for edge in edges)
    if end > start:
        st.session_state[slider_key] = (start, end)


def _on_slide(moves_key: str) -> None:
    """Remove the brush, which no longer shows the choice; the colors of the bars show it."""
    st.session_state[moves_key] += 1
