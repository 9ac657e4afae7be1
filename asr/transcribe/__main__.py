"""Recordings to text, on the command line.

    earshot transcribe talk.mp3 interviews/ --format srt --out subtitles

Files and folders, sound or video, of any length up to three hours. Decoding is that of evaluation
(`asr.transcribe.recognizer`).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Container, Iterable
from io import TextIOWrapper
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, cast

from tqdm import tqdm

from asr.audio.sample_file import SUFFIXES, decode_apart
from asr.errors import DataError, exit_with
from asr.runtime import command
from asr.storage import files
from asr.transcribe.formats import FORMATS, Segment
from asr.whisper import WHISPER_LANGUAGES

if TYPE_CHECKING:
    from asr.model.loader import Start


def recordings(given: list[Path]) -> list[tuple[Path, Path]]:
    """Each recording to transcribe, with the name its transcript gets: its own without the ending,
    where that tells it from the others.

    Raises:
        BadData: a path that is not there, or nothing to transcribe at all.
    """
    found: list[tuple[Path, Path]] = []
    for path in given:
        if path.is_dir():
            inside = (
                file
                for file in sorted(path.rglob("*"))
                if file.suffix.lower() in SUFFIXES and file.is_file()
            )
            found += [(file, file.relative_to(path)) for file in inside]
        elif path.is_file():
            found.append((path, Path(path.name)))
        else:
            raise DataError(f"{path}: not there")
    if not found:
        raise DataError(
            f"no recording in {', '.join(map(str, given))}; want files that end in {' '.join(SUFFIXES)}"
        )
    bare = Counter(name.with_suffix("") for _, name in found)
    names: dict[Path, Path] = {}  # insertion keeps the order
    for path, name in found:
        names[_free(name if bare[name.with_suffix("")] > 1 else name.with_suffix(""), names)] = path
    return [(path, name) for name, path in names.items()]


def _free(name: Path, taken: Container[Path]) -> Path:
    """The name, with a number where another recording has it already."""
    numbered = (name.with_name(f"{name.name}-{number}") for number in count(2))
    return next(one for one in chain([name], numbered) if one not in taken)


def transcribe_file(
    start: Start, path: Path, language: str | None, task: str | None
) -> list[Segment]:
    """One recording, with a progress bar in seconds of sound."""
    from asr.transcribe import recognizer

    with tempfile.TemporaryDirectory(prefix="earshot-") as folder:
        sound = decode_apart(path, Path(folder) / "samples.f32")
        recognizer.choose_prompt(start, language, task, sound, 0.0, sound.duration)
        with tqdm(
            total=round(sound.duration, 1),
            unit=" s",
            desc=path.name,
            disable=not sys.stderr.isatty(),
        ) as bar:

            def say(moment: float) -> None:
                bar.update(moment - bar.n)

            return list(recognizer.transcribe(start, sound, 0.0, sound.duration, say))


def write(segments: list[Segment], out: Path, formats: Iterable[str]) -> None:
    """The transcript beside its siblings, once per format; each appears whole."""
    for name in formats:
        files.write_text(out.with_name(f"{out.name}.{name}"), FORMATS[name](segments))


def arguments() -> argparse.Namespace:
    parser = command.parser(__doc__)
    parser.add_argument(
        "recordings",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="sound or video files, or folders of them",
    )
    models = "workspace (models/finetuned), a folder, a DVC experiment or revision, or a hub id (default: workspace)"
    parser.add_argument("--model", default="workspace", help=models)
    languages = "Whisper's code, such as sv, or detect (default: the model's own)"
    parser.add_argument(
        "--language", choices=["detect", *WHISPER_LANGUAGES], metavar="CODE", help=languages
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
        help="the folder for the transcripts (default: this one)",
    )
    given = parser.parse_args()
    if given.out.exists() and not given.out.is_dir():
        parser.error(f"--out: {given.out} is a file, want a folder")
    return given


def main() -> None:
    given = arguments()
    cast(TextIOWrapper, sys.stdout).reconfigure(
        errors="backslashreplace"
    )  # for what the terminal has no letters for
    jobs = recordings(given.recordings)
    from asr.transcribe import recognizer  # 4 s, which help and a wrong argument need not wait for

    start = recognizer.load(given.model)
    failed = 0
    for path, name in jobs:
        try:
            segments = transcribe_file(start, path, given.language, given.task)
        except DataError as fault:
            failed += 1
            print(f"{path}: left out: {fault}", file=sys.stderr, flush=True)
            continue
        write(segments, given.out / name, FORMATS if given.format == "all" else [given.format])
        print(f"{path}: {' '.join(one.text for one in segments if one.text)}", flush=True)
    if failed:
        raise DataError(f"{failed} of {len(jobs)} recordings could not be transcribed")


if __name__ == "__main__":
    exit_with(main)
