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


def recordings(paths: list[Path]) -> list[tuple[Path, Path]]:
    """List the recordings to transcribe, each with the name of its transcript.

    The name is the recording's without its ending; if two would be equal, the ending or a number is
    added. For a recording in a folder the name includes the path inside that folder.

    Raises:
        DataError: a path does not exist, or there is nothing to transcribe.
    """
    inputs = [recording for path in paths for recording in _recordings_at(path)]
    if not inputs:
        raise DataError(
            f"no recording in {', '.join(map(str, paths))}; "
            f"want files that end in {' '.join(SUFFIXES)}"
        )
    uses = Counter(name.with_suffix("") for _, name in inputs)
    by_name: dict[Path, Path] = {}  # in the order of `inputs`
    for path, name in inputs:
        bare_name = name.with_suffix("")
        by_name[_unused(name if uses[bare_name] > 1 else bare_name, by_name)] = path
    return [(path, name) for name, path in by_name.items()]


def _recordings_at(path: Path) -> list[tuple[Path, Path]]:
    """The file, or all recordings in the folder, each with its path inside the folder."""
    if path.is_file():
        return [(path, Path(path.name))]
    if not path.is_dir():
        raise DataError(f"{path}: not there")
    return [
        (file, file.relative_to(path))
        for file in sorted(path.rglob("*"))
        if file.suffix.lower() in SUFFIXES and file.is_file()
    ]


def _unused(name: Path, taken: Container[Path]) -> Path:
    """The name; with a number added if it is taken."""
    numbered = (name.with_name(f"{name.name}-{number}") for number in count(2))
    return next(candidate for candidate in chain([name], numbered) if candidate not in taken)


def transcribe_file(
    start: Start, path: Path, language: str | None, task: str | None
) -> list[Segment]:
    """Transcribe one recording, with a progress bar in seconds of sound.

    The language is told on standard error, so that standard output has the transcripts alone.
    """
    from asr.transcribe import recognizer

    with tempfile.TemporaryDirectory(prefix="earshot-") as folder:
        sound = decode_apart(path, Path(folder) / "samples.f32")
        prompt = recognizer.choose_prompt(start, language, task, sound, 0.0, sound.duration)
        print(f"{path}: {prompt.text}", file=sys.stderr, flush=True)
        with tqdm(
            total=round(sound.duration, 1),
            unit=" s",
            desc=path.name,
            disable=not sys.stderr.isatty(),
        ) as bar:

            def show(moment: float) -> None:
                bar.update(moment - bar.n)

            return list(recognizer.transcribe(start, sound, 0.0, sound.duration, show))


def write(segments: list[Segment], out: Path, formats: Iterable[str]) -> None:
    """Write the transcript once per format, as `out.txt`, `out.srt`; each file appears whole."""
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
    parser.add_argument(
        "--model",
        default="workspace",
        help="workspace (models/finetuned), a folder, a DVC experiment or revision, or a hub id "
        "(default: workspace)",
    )
    parser.add_argument(
        "--language",
        choices=["detect", *WHISPER_LANGUAGES],
        metavar="CODE",
        help="Whisper's code, such as sv, or detect "
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
    options = parser.parse_args()
    if options.out.exists() and not options.out.is_dir():
        parser.error(f"--out: {options.out} is a file, want a folder")
    return options


def main() -> None:
    options = arguments()
    # Characters that the terminal cannot show are escaped instead of raising an error.
    cast(TextIOWrapper, sys.stdout).reconfigure(errors="backslashreplace")
    inputs = recordings(options.recordings)
    from asr.transcribe import recognizer  # takes 4 s, and help or a wrong argument do not need it

    start = recognizer.load(options.model)
    formats = FORMATS if options.format == "all" else [options.format]
    failed = 0
    for path, name in inputs:
        try:
            segments = transcribe_file(start, path, options.language, options.task)
        except DataError as error:
            failed += 1
            print(f"{path}: left out: {error}", file=sys.stderr, flush=True)
            continue
        write(segments, options.out / name, formats)
        text = " ".join(segment.text for segment in segments if segment.text)
        print(f"{path}: {text}", flush=True)
    if failed:
        raise DataError(f"{failed} of {len(inputs)} recordings could not be transcribed")


if __name__ == "__main__":
    exit_with(main)
