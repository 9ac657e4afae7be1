"""The color and dash of each run, its own for life: they follow from its identity alone."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from functools import lru_cache
from urllib.parse import quote

from asr.runs.run_rows import RunRow

# Each has a contrast of 3 or more on both themes.
COLORS = (
    "#0b8a8a",
    "#d9662b",
    "#7d6fd8",
    "#d0473b",
    "#3f8f3f",
    "#a97c08",
    "#c2529b",
    "#3f86cf",
    "#8a6d4f",
    "#6b8a1f",
    "#b05fd0",
    "#708090",
)
DASHES = ((), (7, 3), (2, 3), (9, 3, 2, 3))  # pixels of line and gap by turns
OTHER_COLOR = "#879394"  # of runs that are not compared


@dataclass(frozen=True)
class Style:
    """How the line of a run is drawn; 48 look different."""

    color: str
    dash: tuple[int, ...]


def of(row: RunRow) -> Style:
    """The style of a run, whatever other runs there are."""
    number = zlib.crc32((row.fingerprint or row.name).encode(errors="replace"))
    dash, color = divmod(number % (len(COLORS) * len(DASHES)), len(COLORS))
    return Style(COLORS[color], DASHES[dash])


def of_compared(rows: list[RunRow]) -> list[Style]:
    """The styles of runs in one chart: a run that looks like one before it has another dash."""
    styles: list[Style] = []
    for row in rows:
        own = of(row)
        others = [replace(own, dash=dash) for dash in DASHES]
        free = [style for style in (own, *others) if style not in styles]
        styles.append(free[0] if free else own)
    return styles


@lru_cache(maxsize=len(COLORS) * len(DASHES))
def swatch(style: Style) -> str:
    """A short line in this style as an SVG image: for a cell of a table, or a legend."""
    dash = f' stroke-dasharray="{" ".join(map(str, style.dash))}"' if style.dash else ""
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="12" viewBox="0 0 40 12">'
        f'<path d="M3 6H37" stroke="{style.color}" stroke-width="3"{dash}/></svg>'
    )
    return f"data:image/svg+xml,{quote(svg)}"
