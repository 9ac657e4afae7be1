"""Recordings to text: the command line, and the functions that it shares with the dashboard.

    python -m asr.transcribe talk.mp3 interviews/ --format srt --out subtitles

Files and folders, sound or video, of any length up to three hours. Features and decoding are those of evaluation: a recording
of up to two minutes gives the text that `evaluate` would score. Memory does not grow with the recording.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator
from io import TextIOWrapper
from itertools import chain, count
from pathlib import Path
from typing import cast

import numpy as np
from tqdm import tqdm

from asr import decode, features, files, model, revisions
from asr.audio import SAMPLE_RATE
from asr.faults import BadData, BadParams, exit_with
from asr.features import LogMel
from asr.languages import WHISPER_LANGUAGES
from asr.model import Start
from asr.sound import Sound, decode_apart, passages
from asr.transcripts import FORMATS, Segment

WORKSPACE = "workspace"
FINETUNED = "models/finetuned"
DETECT = "detect"
BATCH = 8  # stretches decoded together
MAX_NEW_TOKENS = 444
SUFFIXES = tuple(".aac .flac .m4a .mkv .mov .mp3 .mp4 .oga .ogg .opus .wav .webm".split())


def place(name: str) -> str:
    """Where a model lies: the workspace's, a folder, a DVC experiment or revision (fetched through DVC), or else a hub id.

    Raises:
        BadData: the workspace or the revision holds no model.
    """
    if name == WORKSPACE:
        if not files.resolve(FINETUNED).is_dir():
            raise BadData(f"{FINETUNED} is not there; run dvc repro, or choose another model")
        return FINETUNED
    if files.resolve(name).is_dir():
        return name
    try:
        return str(revisions.fetch(revisions.find(name), FINETUNED))
    except BadParams:
        return name


def load(name: str) -> Start:
    """A model ready to transcribe, by the names of `place`."""
    start = model.load(place(name), None, None)
    start.model.to(model.device()).eval()
    return start


def choose_prompt(start: Start, language: str | None, task: str | None, sound: Sound, begin: float, end: float) -> str | None:
    """Set the language and task that the model is asked for; returns the language.

    Args:
        language: Whisper's code, DETECT, or None for the model's own.
        task: transcribe, translate, or None for the model's own.
    """
    generation = start.model.generation_config
    if not generation.is_multilingual:
        if language or task == "translate":
            raise BadParams("this model knows one language and one task; choose neither")
        return None
    if language == DETECT:
        window = sound.read(begin, min(end, begin + model.window_seconds(start.model)))
        language, _ = decode.detect_language(start.model, log_mel(start, window))
    language = language or getattr(generation, "language", None) or "en"
    model.set_prompt(start.model, language.strip("<|>"), task or getattr(generation, "task", None) or "transcribe")
    return language


def log_mel(start: Start, samples: np.ndarray) -> LogMel:
    """Features as evaluation has them from data/features, 12 bits a value: a model that wavers between two words must not hear finer."""
    bins = start.model.config.num_mel_bins
    clip = features.log_mel(samples, bins)
    mel = features.unpack(features.pack(clip.mel, clip.floor), bins, clip.floor)
    edge = None if clip.edge is None else features.unpack(features.pack(clip.edge, clip.floor), bins, clip.floor)[:, 0]
    return LogMel(mel, clip.floor, edge)


def transcribe(start: Start, sound: Sound, begin: float, end: float, say: Callable[[float], None] = lambda _: None) -> Iterator[Segment]:
    """What is said between two moments, segment by segment.

    Args:
        say: is told the moment up to which all is decoded, after each batch; it may raise to stop.
    """
    for offset, samples in passages(sound, begin, end):
        length = len(samples) / SAMPLE_RATE

        def told(groups: Iterable[list[int]], total: int, offset: float = offset, length: float = length) -> Iterator[list[int]]:
            for done, group in enumerate(groups):
                say(offset + length * done / total)
                yield group

        clips = [log_mel(start, samples)]
        (heard,) = decode.hear(start.model, start.tokenizer, clips, BATCH, MAX_NEW_TOKENS, told)
        for one in heard:
            yield Segment(round(offset + one.start, 3), round(min(offset + one.start + one.duration, end), 3), one.text)
        say(offset + length)


def recordings(given: list[Path]) -> list[tuple[Path, Path]]:
    """Each recording to transcribe, with the name its transcript gets: its own without the ending, where that tells it from the others.

    Raises:
        BadData: a path that is not there, or nothing to transcribe at all.
    """
    found: list[tuple[Path, Path]] = []
    for path in given:
        if path.is_dir():
            inside = (file for file in sorted(path.rglob("*")) if file.suffix.lower() in SUFFIXES and file.is_file())
            found += [(file, file.relative_to(path)) for file in inside]
        elif path.is_file():
            found.append((path, Path(path.name)))
        else:
            raise BadData(f"{path}: not there")
    if not found:
        raise BadData(f"no recording in {', '.join(map(str, given))}; want files that end in {' '.join(SUFFIXES)}")
    bare = Counter(name.with_suffix("") for _, name in found)
    names: dict[Path, Path] = {}  # insertion keeps the order
    for path, name in found:
        names[_free(name if bare[name.with_suffix("")] > 1 else name.with_suffix(""), names)] = path
    return [(path, name) for name, path in names.items()]


def _free(name: Path, taken: Container[Path]) -> Path:
    """The name, with a number where another recording has it already."""
    numbered = (name.with_name(f"{name.name}-{number}") for number in count(2))
    return next(one for one in chain([name], numbered) if one not in taken)


def transcribe_file(start: Start, path: Path, language: str | None, task: str | None) -> list[Segment]:
    """One recording, with a progress bar in seconds of sound."""
    with tempfile.TemporaryDirectory(prefix="earshot-") as folder:
        sound = decode_apart(path, Path(folder) / "samples.f32")
        choose_prompt(start, language, task, sound, 0.0, sound.duration)
        with tqdm(total=round(sound.duration, 1), unit=" s", desc=path.name, disable=not sys.stderr.isatty()) as bar:
            return list(transcribe(start, sound, 0.0, sound.duration, lambda moment: bar.update(moment - bar.n) and None))


def write(segments: list[Segment], out: Path, formats: Iterable[str]) -> None:
    """The transcript beside its siblings, once per format; each appears whole."""
    for name in formats:
        files.write_text(out.with_name(f"{out.name}.{name}"), FORMATS[name](segments))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m asr.transcribe", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recordings", type=Path, nargs="+", metavar="FILE", help="sound or video files, or folders of them")
    models = "workspace (models/finetuned), a folder, a DVC experiment or revision, or a hub id (default: workspace)"
    parser.add_argument("--model", default=WORKSPACE, help=models)
    languages = "Whisper's code, such as sv, or detect (default: the model's own)"
    parser.add_argument("--language", choices=[DETECT, *WHISPER_LANGUAGES], metavar="CODE", help=languages)
    parser.add_argument("--task", choices=["transcribe", "translate"], help="translate goes to English (default: the model's own)")
    parser.add_argument("--format", choices=[*FORMATS, "all"], default="txt", help="(default: txt)")
    parser.add_argument("--out", type=Path, default=Path(), help="the folder for the transcripts (default: this one)")
    given = parser.parse_args()
    if given.out.exists() and not given.out.is_dir():
        parser.error(f"--out: {given.out} is a file, want a folder")
    return given


def main() -> None:
    given = arguments()
    cast(TextIOWrapper, sys.stdout).reconfigure(errors="backslashreplace")  # for what the terminal has no letters for
    jobs = recordings(given.recordings)
    start = load(given.model)
    failed = 0
    for path, name in jobs:
        try:
            segments = transcribe_file(start, path, given.language, given.task)
        except BadData as fault:
            failed += 1
            print(f"{path}: left out: {fault}", file=sys.stderr, flush=True)
            continue
        write(segments, given.out / name, FORMATS if given.format == "all" else [given.format])
        print(f"{path}: {' '.join(one.text for one in segments if one.text)}", flush=True)
    if failed:
        raise BadData(f"{failed} of {len(jobs)} recordings could not be transcribed")


if __name__ == "__main__":
    exit_with(main)
