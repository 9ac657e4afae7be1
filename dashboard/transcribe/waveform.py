"""A recording as people see it: its waveform, trimmed by brush or by slider, and a player for what
was chosen.
"""

from __future__ import annotations

import altair as alt
import pandas as pd
import streamlit as st

from asr.audio import sample_file
from asr.audio.sample_file import SampleFile
from asr.runtime import formatting

BARS = 600
HEIGHT = 130
PLAYED_SECONDS = 600.0  # a player is handed its sound at once
CHOSEN, LEFT_OUT = "#0e8f8a", "#9aa5a8"  # readable on light and on dark


def trim(key: str, recording: SampleFile) -> tuple[float, float]:
    """Show a recording and let people choose a stretch of it, in seconds."""
    length = recording.duration
    slider, moved = f"trim-{key}", f"moved-{key}"
    brush = f"brush-{key}-{st.session_state.setdefault(moved, 0)}"
    step = 0.1 if length <= 600 else 1.0
    whole = (0.0, max(round(length, 1), step))
    begin, end = st.session_state.setdefault(slider, whole)
    st.altair_chart(
        _chart(_bars(key, recording), begin, end, length),
        on_select=lambda: _brushed(brush, slider, whole[1]),
        selection_mode="brush",
        key=brush,
    )
    st.slider(
        "Part to transcribe",
        0.0,
        whole[1],
        step=step,
        key=slider,
        format="%.1f s",
        on_change=_slid,
        args=(moved,),
    )
    begin, end = st.session_state[slider]
    end = min(end if end > begin else whole[1], length)
    begin = min(begin, max(end - step, 0.0))
    shown = f"{formatting.clock(begin)} to {formatting.clock(end)}, {formatting.duration_text(end - begin)} of {formatting.duration_text(length)}"
    if end - begin > PLAYED_SECONDS:
        shown += f"; the player has the first {formatting.duration_text(PLAYED_SECONDS)}"
    st.caption(shown)
    st.audio(
        sample_file.wav(recording, begin, min(end, begin + PLAYED_SECONDS)), format="audio/wav"
    )
    return begin, end


def _bars(key: str, recording: SampleFile) -> pd.DataFrame:
    """The waveform's bars, read once for each recording."""
    known = st.session_state.get("bars")
    if known is None or known[0] != key:
        length = recording.duration
        found = sample_file.peaks(recording, 0.0, length, BARS)
        loudest = max(float(abs(found).max()), 1e-3)
        starts = [index * length / BARS for index in range(BARS)]
        known = (
            key,
            pd.DataFrame(
                {"seconds": starts, "low": found[:, 0] / loudest, "high": found[:, 1] / loudest}
            ),
        )
        st.session_state.bars = known
    frame: pd.DataFrame = known[1]
    return frame


def _chart(bars: pd.DataFrame, begin: float, end: float, length: float) -> alt.Chart:
    """Bars in two colours; dragging over them chooses a stretch."""
    inside = (bars["seconds"] >= begin - length / BARS) & (bars["seconds"] <= end)
    colour = alt.Color(
        "part:N",
        scale=alt.Scale(domain=["chosen", "left out"], range=[CHOSEN, LEFT_OUT]),
        legend=None,
    )
    axis = alt.Axis(grid=False, tickCount=8, labelExpr="datum.label + ' s'", title=None)
    time = alt.X("seconds:Q", scale=alt.Scale(domain=[0, length], nice=False), axis=axis)
    height = alt.Y("low:Q", axis=None, scale=alt.Scale(domain=[-1, 1]))
    chart: alt.Chart = (
        alt.Chart(bars.assign(part=inside.map({True: "chosen", False: "left out"})))
        .mark_bar(width=1.4)
        .encode(x=time, y=height, y2="high:Q", color=colour)
        .properties(height=HEIGHT)
        .add_params(alt.selection_interval(name="brush", encodings=["x"]))
    )
    return chart


def _brushed(brush: str, slider: str, last: float) -> None:
    """Take a stretch from the brush to the slider."""
    chosen = st.session_state[brush].selection.get("brush", {}).get("seconds")
    if chosen:
        begin, end = sorted(min(max(round(float(edge), 1), 0.0), last) for edge in chosen)
        if end > begin:
            st.session_state[slider] = (begin, end)


def _slid(moved: str) -> None:
    """A slider that was moved by hand leaves the brush behind, so the chart is drawn anew without
    it; the colours show what is chosen.
    """
    st.session_state[moved] += 1
