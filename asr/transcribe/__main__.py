"""Recordings to text, on the command line.

    earshot transcribe talk.mp3 interviews/ --format srt --out subtitles

Files and folders, sound or video, of any length up to three hours. A model decodes as it was
evaluated, or else robustly, in the fastest precision of this processor.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from collections import Counter, deque
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import TextIOWrapper
from itertools import chain, count
from pathlib import Path
from typing import NamedTuple, cast

from tqdm import tqdm

from asr.audio.sample_file import SUFFIXES, SampleFile, decode_together
from asr.decoding.long_form import BATCH, Transcription, begin_together
from asr.decoding.recognizer import Recognizer
from asr.decoding.segments import Segment
from asr.errors import DataError, DiskError, Stopped, exit_with
from asr.storage import files
from asr.transcribe import models, recognizer, settings
from asr.transcribe.arguments import arguments, asked, layout
from asr.transcribe.formats import Writer, writers
from asr.transcribe.recognizer import choose_prompts, fits_window

GROUP = 16  # recordings that are unpacked together
GROUP_BYTES = 4 << 20  # of them, unless one alone is larger
Recording = tuple[Path, Path]  # a file, and the name of its transcript


class Work(NamedTuple):
    """A recording, the name of its transcript, and the work on it."""

    path: Path
    name: Path
    job: Transcription


def recordings(paths: list[Path]) -> list[Recording]:
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


def _recordings_at(path: Path) -> list[Recording]:
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


def groups(inputs: list[Recording]) -> Iterator[list[Recording]]:
    """The recordings that are unpacked together: one at first, then several small ones."""
    group: list[Recording] = []
    size = GROUP_BYTES  # so that the first text does not wait for the second recording
    for path, name in inputs:
        size += path.stat().st_size
        if group and (size > GROUP_BYTES or len(group) == GROUP):
            yield group
            group, size = [], path.stat().st_size
        group.append((path, name))
    yield group


def sounds(inputs: list[Recording]) -> Iterator[list[tuple[Recording, SampleFile | DataError]]]:
    """The samples of each recording, or why there are none, by groups; the next one is unpacked
    meanwhile.

    The samples are deleted when the next group is asked for.
    """
    with tempfile.TemporaryDirectory(prefix="earshot-") as top, ThreadPoolExecutor(1) as ahead:

        def unpack(number: int, group: list[Recording]) -> list[SampleFile | DataError]:
            folder = Path(top, str(number))
            folder.mkdir()
            return decode_together([path for path, _ in group], folder)

        waiting = deque(enumerate(groups(inputs)))
        coming = ahead.submit(unpack, *waiting[0])
        while waiting:
            number, group = waiting.popleft()
            found = coming.result()
            if waiting:
                coming = ahead.submit(unpack, *waiting[0])
            yield list(zip(group, found, strict=True))
            shutil.rmtree(Path(top, str(number)))


def batches(works: Iterable[Work]) -> Iterator[list[Work]]:
    """Works in their order: by BATCH those that fit the model's window, each other alone."""
    batch: list[Work] = []
    for work in works:
        both_fit = batch and fits_window(batch[0].job) and fits_window(work.job)
        if batch and (not both_fit or len(batch) == BATCH):
            yield batch
            batch = []
        batch.append(work)
    if batch:
        yield batch


def listen(work: Transcription, path: Path) -> Iterator[Segment]:
    """The segments of a recording, with a progress bar in seconds of sound.

    A terminal that shows the text as it is heard needs no bar.
    """
    hidden = sys.stdout.isatty() or not sys.stderr.isatty()
    with tqdm(total=round(work.end, 1), unit=" s", desc=path.name, disable=hidden) as bar:

        def show(moment: float) -> None:
            bar.update(moment - bar.n)

        yield from work.segments(show)


def transcribe(batch: list[Work], options: argparse.Namespace, how: str) -> Iterator[Path]:
    """Write and print the transcripts of recordings that are decoded side by side.

    Language and settings are told on standard error, so that standard output has the transcripts
    alone.

    Args:
        how: the settings in words.
    Yields:
        each recording, once its transcript is written.
    """
    known = writers(layout(options))
    wanted = known if options.format == "all" else {options.format: known[options.format]}
    jobs = [work.job for work in batch]
    prompts = choose_prompts(jobs, options.language, options.task)
    if len(jobs) > 1:
        begin_together(jobs)
    for (path, name, job), prompt in zip(batch, prompts, strict=True):
        guess = "; the times of words are a guess" if job.guesses_words else ""
        print(f"{path}: {prompt.text}; {how}{guess}", file=sys.stderr, flush=True)
        if prompt.doubt:
            print(f"{path}: {prompt.doubt}", file=sys.stderr, flush=True)
        print(f"{path}:", end="", flush=True)
        segments = []
        for segment in listen(job, path):
            segments.append(segment)
            print("", segment.text, end="", flush=True)
        print(flush=True)
        for remark in remarks(job, segments):
            print(f"{path}: {remark}", file=sys.stderr, flush=True)
        write(segments, options.out / name, wanted)
        yield path


def remarks(work: Transcription, segments: Sequence[Segment]) -> Iterator[str]:
    """What a reader of the transcript should know."""
    if not segments:
        yield "no words were heard"
    if not work.trust.holds:
        yield f"times: {work.trust.text}"


def write(segments: list[Segment], out: Path, writers: Mapping[str, Writer]) -> None:
    """Write the transcript once per format, as `out.txt`, `out.srt`; each file appears whole."""
    for name, writer in writers.items():
        files.write_text(out.with_name(f"{out.name}.{name}"), writer(segments))


def load(options: argparse.Namespace) -> tuple[Recognizer, str]:
    """The model, and its settings in words."""
    folder = models.resolve(options.model)
    chosen = settings.choose(options.model, options.engine, options.precision, options.decoding)
    return recognizer.load(folder, chosen), chosen.text


def check_writable(folder: Path) -> None:
    """Make a folder, and write into it, before the work whose result goes there.

    Raises:
        DiskError: it cannot be made, or not be written into.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise DiskError(f"--out: {folder} cannot be written into: {error.strerror}") from None


def transcripts(inputs: list[Recording], options: argparse.Namespace) -> Iterator[Path]:
    """Transcribe all recordings, and tell which are left out, and why.

    Yields:
        each recording, once its transcript is written.
    """
    with ThreadPoolExecutor(1) as apart:
        loading = apart.submit(load, options)  # while the first recording is unpacked
        import scipy.fft  # noqa: F401 (what its features need, in the same time)

        for group in sounds(inputs):
            loaded, how = loading.result()
            works = []
            for (path, name), sound in group:
                if isinstance(sound, DataError):
                    print(f"{path}: left out: {sound}", file=sys.stderr, flush=True)
                else:
                    job = recognizer.begin(loaded, sound, 0.0, sound.duration, asked(options))
                    works.append(Work(path, name, job))
            for batch in batches(works):
                yield from transcribe(batch, options, how)


def main() -> None:
    options = arguments(__doc__)
    # Characters that the terminal cannot show are escaped instead of raising an error.
    cast(TextIOWrapper, sys.stdout).reconfigure(errors="backslashreplace")
    inputs = recordings(options.recordings)
    check_writable(options.out)
    written = 0
    try:
        for _ in transcripts(inputs, options):
            written += 1
    except KeyboardInterrupt:
        there = f"the transcripts of {written} of {len(inputs)} recordings are in {options.out}"
        raise Stopped(signal.SIGINT, f"stopped; {there}") from None
    if written < len(inputs):
        failed = len(inputs) - written
        raise DataError(f"{failed} of {len(inputs)} recordings could not be transcribed")


if __name__ == "__main__":
    exit_with(main)
