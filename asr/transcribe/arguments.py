"""The command line of `earshot transcribe`: what may be asked for, and in which spellings."""

from __future__ import annotations

import argparse
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from pathlib import Path

from asr.decoding.options import EACH, Options
from asr.decoding.recognizer import METHODS
from asr.engines.engine import ENGINES, PRECISIONS
from asr.runtime import command
from asr.transcribe.cues import DEFAULT_LAYOUT, Layout
from asr.transcribe.formats import FORMATS
from asr.whisper import WHISPER_LANGUAGES

CHOICES = {"engine": ENGINES, "precision": PRECISIONS, "decoding": METHODS}
SWITCHED = {"True": "--", "False": "--no-"}  # how a switch begins by the value it is given
LIMITS = {
    "max-line-width": "columns of a line; a Chinese character takes two (default: 42)",
    "max-line-count": "lines of a cue (default: 2; 1 where words are counted)",
    "max-words-per-line": "words of a line (default: None)",
}


def hyphenated(words: Iterable[str]) -> Iterator[str]:
    """The command line with options as openai-whisper spells them in the spelling of ours.

    `--max_line_width` becomes `--max-line-width`, `--flag True` becomes `--flag`, and
    `--flag False` becomes `--no-flag`, as `argparse.BooleanOptionalAction` has them.
    """
    given = deque(words)
    while given and given[0] != "--":
        name, equals, value = given.popleft().partition("=")
        if not name.startswith("--"):
            yield name + equals + value
            continue
        name = name.replace("_", "-")
        if not equals and given and given[0] in SWITCHED:
            value = given.popleft()
        if value in SWITCHED:
            yield SWITCHED[value] + name.removeprefix("--")
        else:
            yield name + equals + value
    yield from given


def _limit(word: str) -> int | None:
    """Parse a number from 1, or None for no limit."""
    if word == "None":
        return None
    if not word.isdecimal() or not int(word):
        raise argparse.ArgumentTypeError(f"got {word}, want a number from 1, or None for no limit")
    return int(word)


def _positive(word: str) -> int:
    if not word.isdecimal() or not int(word):
        raise argparse.ArgumentTypeError(f"got {word}, want a number from 1")
    return int(word)


def _temperature(word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"got {word}, want a number from 0 to 1")
    return value


def _add_limits(parser: argparse.ArgumentParser) -> None:
    """Options for `Layout`, under its own names; those that are not given are absent."""
    group = parser.add_argument_group(
        "subtitles",
        "how srt and vtt are cut; None is no limit. All options may also be written with _\n"
        "in place of -, as openai-whisper has them.",
    )
    for name, text in LIMITS.items():
        group.add_argument(
            f"--{name}", type=_limit, metavar="N", default=argparse.SUPPRESS, help=text
        )


def _add_decoding(parser: argparse.ArgumentParser) -> None:
    """Settings of the model, and what `Options` has, under its own names."""
    group = parser.add_argument_group(
        "decoding", "by default as the model was evaluated, else as it does best on this machine"
    )
    for name, known in CHOICES.items():
        group.add_argument(f"--{name}", choices=known)
    group.add_argument(
        "--word-timestamps",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="tell when each word was said (json), and cut subtitles between words by it",
    )
    group.add_argument(
        "--initial-prompt", metavar="TEXT", default="", help="names and words to expect"
    )
    group.add_argument(
        "--condition-on-previous-text",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="the model reads what it wrote before; slower, and mistakes go on",
    )
    group.add_argument(
        "--beam-size", type=_positive, metavar="N", default=1, help="(default: 1, greedy)"
    )
    group.add_argument(
        "--temperature", type=_temperature, metavar="T", help="one alone, from 0 to 1"
    )


def asked(options: argparse.Namespace) -> Options:
    """What the options ask of decoding."""
    return Options(**{field.name: getattr(options, field.name) for field in fields(Options)})


def layout(options: argparse.Namespace) -> Layout:
    """The layout that the options ask for.

    A line is a cue where words are counted and lines are not, as openai-whisper has it.
    """
    given = {
        field.name: getattr(options, field.name)
        for field in fields(Layout)
        if field.name in options
    }
    if given.get("max_words_per_line"):
        given.setdefault("max_line_count", 1)
    return replace(DEFAULT_LAYOUT, **given)


def arguments(about: str | None) -> argparse.Namespace:
    """What was given on the command line.

    Args:
        about: the help text of the command.
    """
    parser = command.parser(about)
    parser.add_argument(
        "recordings",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="sound or video files, or folders of them",
    )
    parser.add_argument(
        "--model",
        default="workspace",
        help="workspace (models/finetuned), a folder, a DVC experiment or revision, or a hub id "
        "(default: workspace)",
    )
    parser.add_argument(
        "--language",
        choices=["detect", EACH, *WHISPER_LANGUAGES],
        metavar="CODE",
        help="Whisper's code, such as sv; detect; or each, for a recording in several languages "
        "(default: the model's own; detect, if it has none)",
    )
    parser.add_argument(
        "--task",
        choices=["transcribe", "translate"],
        help="translate goes to English (default: the model's own)",
    )
    parser.add_argument("--format", choices=[*FORMATS, "all"], default="txt", help="(default: txt)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(),
        help="the folder for the transcripts (default: the current folder)",
    )
    _add_limits(parser)
    _add_decoding(parser)
    options = parser.parse_args(list(hyphenated(sys.argv[1:])))
    if options.out.exists() and not options.out.is_dir():
        parser.error(f"--out: {options.out} is a file, want a folder")
    return options
