"""Sound decoded apart: the same samples, in passages without a gap, and limits that hold against
hostile files.
"""

from __future__ import annotations

import io
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asr.audio import codec, sample_file
from asr.audio.sample_file import Cancelled, SampleFile
from asr.errors import DataError
from asr.whisper import SAMPLE_RATE
from support.data import encoded, encoded_by_av, voice
from support.imports import imported
from support.repository import REPOSITORY
from support.samples import stored

HOSTILE = {
    "nothing": b"",
    "text": b"this is no sound\n" * 100,
    "page": b"<!doctype html><html><body>not found</body></html>",
    "wav cut in two": encoded(voice(2.0))[:30_000],
    "flac cut in two": encoded(voice(2.0), format="FLAC")[:20_000],
    "header alone": encoded(voice(1.0))[:44],
    "playlist": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
    "not a number": encoded(np.full(16_000, np.nan, np.float32), subtype="FLOAT"),
}
ODD = "a\nb 'c' \"d\" $(touch x) ;-- ⁂"


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> SampleFile:
    """Six minutes of noise whose loudness wanders."""
    draw = np.random.default_rng(0)
    count = 360 * SAMPLE_RATE
    loudness = np.interp(np.arange(count), np.linspace(0, count, 300), draw.uniform(0.001, 1, 300))
    return stored(tmp_path_factory.mktemp("long"), draw.normal(0, 0.1, count) * loudness)


def left(folder: Path, *but: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path not in but)


@pytest.mark.parametrize(
    "content",
    [
        encoded(voice(1.3)),
        encoded(voice(1.3, 44_100), 44_100, "FLAC"),
        encoded(voice(1.3, 8_000), 8_000, "MP3"),
        encoded_by_av(voice(1.3, 48_000), 48_000, "mp4", "aac"),
    ],
    ids=["wav", "flac", "mp3", "m4a"],
)
def test_the_child_gives_the_samples_that_decoding_here_gives(
    tmp_path: Path, content: bytes
) -> None:
    recording = tmp_path / ODD
    recording.write_bytes(content)
    made = sample_file.decode_apart(recording, tmp_path / "samples.f32")
    wanted = codec.decode(content)
    assert np.array_equal(made.read(0.0, made.duration), wanted)
    assert made.duration == len(wanted) / SAMPLE_RATE
    assert left(tmp_path, recording, made.path) == []


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_is_no_sound_is_told_in_one_line_and_leaves_nothing(
    tmp_path: Path, name: str
) -> None:
    recording = tmp_path / "given"
    recording.write_bytes(HOSTILE[name])
    with pytest.raises(DataError) as told:
        sample_file.decode_apart(recording, tmp_path / "samples.f32")
    assert str(told.value)
    assert "\n" not in str(told.value)
    assert "Traceback" not in str(told.value)
    assert left(tmp_path, recording) == []


def test_a_file_that_breaks_late_leaves_nothing_in_this_process_either(tmp_path: Path) -> None:
    recording = tmp_path / "given"
    recording.write_bytes(encoded(voice(40.0))[:-20_000])
    with pytest.raises(DataError, match="truncated"):
        sample_file.decode(recording, tmp_path / "samples.f32")
    assert left(tmp_path, recording) == []


def child_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str) -> None:
    """Children of this test decode by `code`, which finds `audio` imported."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import sys\nif '-m' in sys.orig_argv and 'asr.audio.sample_file' in sys.orig_argv:\n"
        f"    from asr.audio import codec\n    def blocks(file):\n        {code}\n    "
        "codec.blocks = blocks\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{REPOSITORY}")


GREEDY = {
    "memory": "import numpy; hold = [numpy.ones(1 << 24) for _ in range(8)]; yield hold[0]",
    "death": "import os; os.kill(os.getpid(), 9); yield",
    "bug": "raise ValueError('a bug')\n        yield",
}


@pytest.mark.parametrize("what", GREEDY)
def test_a_recording_that_wants_too_much_is_refused_and_not_fatal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    child_with(monkeypatch, tmp_path, GREEDY[what])
    recording = tmp_path / "given"
    recording.write_bytes(encoded(voice(0.5)))
    with pytest.raises(DataError, match="512 MB"):
        sample_file.decode_apart(recording, tmp_path / "samples.f32")
    assert left(tmp_path, recording, tmp_path / "site") == []


def test_the_same_memory_is_had_where_there_is_no_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child_with(monkeypatch, tmp_path, GREEDY["memory"].replace("1 << 24", "1 << 21"))
    recording = tmp_path / "given"
    recording.write_bytes(b"anything")
    made = sample_file.decode_apart(recording, tmp_path / "samples.f32")
    assert np.array_equal(np.fromfile(made.path), np.ones(1 << 21))  # as the child yields them


def test_a_child_that_talks_a_lot_does_not_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import os, numpy; os.write(2, b'warning \\xff\\n' * 100_000); yield numpy.zeros(5, "
        "numpy.float32)"
    )
    child_with(monkeypatch, tmp_path, code)
    recording = tmp_path / "given"
    recording.write_bytes(b"anything")
    assert sample_file.decode_apart(recording, tmp_path / "samples.f32").duration == 5 / SAMPLE_RATE


ENDLESS = (
    "import numpy, time\n        while True: yield numpy.zeros(1000, numpy.float32); "
    "time.sleep(0.01)"
)


def children() -> set[int]:
    """This thread's child processes, where the system tells."""
    told = Path(f"/proc/self/task/{threading.get_native_id()}/children")
    return {int(pid) for pid in told.read_text().split()} if told.exists() else set()


def test_a_child_that_does_not_end_is_ended_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child_with(monkeypatch, tmp_path, ENDLESS)
    recording, before = tmp_path / "given", children()
    recording.write_bytes(b"anything")
    monkeypatch.setattr(sample_file, "LIMIT_SECONDS", 1.5)
    with pytest.raises(DataError, match=r"not decoded within 1\.5 s"):
        sample_file.decode_apart(recording, tmp_path / "samples.f32")
    assert left(tmp_path, recording, tmp_path / "site") == []
    assert children() <= before


def test_a_cancelled_child_is_gone_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child_with(monkeypatch, tmp_path, ENDLESS)
    recording, before = tmp_path / "given", children()
    recording.write_bytes(b"anything")
    seen: list[bool] = []

    def cancelled() -> bool:
        seen.append(bool(list(tmp_path.glob(".samples.f32.*.part"))))
        return seen[-1]

    with pytest.raises(Cancelled):
        sample_file.decode_apart(recording, tmp_path / "samples.f32", cancelled)
    assert seen[-1]  # it was at work
    assert left(tmp_path, recording, tmp_path / "site") == []
    assert children() <= before


def many(tmp_path: Path, *contents: bytes) -> tuple[list[Path], Path]:
    """Recordings of these bytes, and a folder for their samples."""
    recordings, folder = [], tmp_path / "together"
    folder.mkdir()
    for number, content in enumerate(contents):
        recordings.append(tmp_path / f"given {number}")
        recordings[-1].write_bytes(content)
    return recordings, folder


def seconds_of(found: list[SampleFile | DataError]) -> list[float | None]:
    return [one.duration if isinstance(one, SampleFile) else None for one in found]


def test_recordings_share_a_child_and_the_faults_of_one_are_its_own(tmp_path: Path) -> None:
    good = [encoded(voice(seconds)) for seconds in (0.5, 0.25)]
    recordings, folder = many(tmp_path, good[0], b"no sound", good[1], b"")
    found = sample_file.decode_together(recordings, folder)
    assert seconds_of(found) == [0.5, None, 0.25, None]
    assert all(str(one) and "\n" not in str(one) for one in (found[1], found[3]))
    assert sorted(path.name for path in folder.iterdir()) == ["0.f32", "2.f32"]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_recording_that_kills_the_child_takes_no_other_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    code = (
        "import os, numpy\n        if file.read(4) == b'kill': os.kill(os.getpid(), 9)\n"
        "        yield numpy.zeros(16_000, numpy.float32)"
    )
    child_with(monkeypatch, tmp_path, code)
    contents = [b"fine"] * 3
    contents[number] = b"kill"
    recordings, folder = many(tmp_path, *contents)
    found = sample_file.decode_together(recordings, folder)
    assert seconds_of(found) == [None if place == number else 1.0 for place in range(3)]
    assert "512 MB" in str(found[number])


def test_the_child_is_told_what_to_do_by_its_command_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "asr.audio.sample_file"],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
    )
    assert (done.returncode, done.stderr) == (
        2,
        "error 2: usage: python -m asr.audio.sample_file RECORDING SAMPLES ...\n",
    )


def covered(
    pieces: Iterator[tuple[float, np.ndarray]], begin: float
) -> tuple[list[int], np.ndarray]:
    """Where each passage starts, in samples, and all of them joined."""
    starts, samples = zip(*pieces, strict=True)
    return [round((start - begin) * SAMPLE_RATE) for start in starts], np.concatenate(samples)


@settings(max_examples=25)
@given(st.integers(0, 360 * SAMPLE_RATE - 1), st.integers(1, 360 * SAMPLE_RATE))
def test_passages_cover_the_stretch_without_gap_or_overlap(
    long: SampleFile, first: int, count: int
) -> None:
    begin, end = first / SAMPLE_RATE, min(first + count, 360 * SAMPLE_RATE) / SAMPLE_RATE
    pieces = list(sample_file.passages(long, begin, end))
    starts, joined = covered(iter(pieces), begin)
    lengths = [len(samples) for _, samples in pieces]
    assert starts == [0, *np.cumsum(lengths)[:-1]]
    assert np.array_equal(joined, long.read(begin, end))
    assert all(0 < length <= sample_file.PASSAGE_SECONDS * SAMPLE_RATE for length in lengths)
    assert all(
        length >= (sample_file.PASSAGE_SECONDS - sample_file.CUT_SECONDS) * SAMPLE_RATE
        for length in lengths[:-1]
    )


@settings(max_examples=25)
@given(st.floats(0, 400), st.floats(0, 400))
@example(0.0, 1e-9)
def test_any_stretch_gives_passages_that_hold_something(
    long: SampleFile, one: float, other: float
) -> None:
    begin, end = sorted((one, other))
    pieces = list(sample_file.passages(long, begin, end))
    assert all(len(samples) for _, samples in pieces)
    assert sum(len(samples) for _, samples in pieces) == pytest.approx(
        max(min(end, 360) - begin, 0) * SAMPLE_RATE, abs=2
    )


def test_a_passage_is_cut_in_the_pause(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, 130 * SAMPLE_RATE)
    samples[round(107.3 * SAMPLE_RATE) : round(107.9 * SAMPLE_RATE)] *= 1e-3
    samples[round(50.0 * SAMPLE_RATE) : round(60.0 * SAMPLE_RATE)] = 0  # too early to be looked at
    (_, _), (cut, _) = sample_file.passages(stored(tmp_path, samples), 0.0, 130.0)
    assert 107.3 < cut < 107.9


@settings(max_examples=40)
@given(st.integers(0, 4000), st.integers(1, 4000), st.integers(1, 50))
def test_peaks_are_the_least_and_the_greatest_sample(
    long: SampleFile, first: int, count: int, bars: int
) -> None:
    begin, end = first / SAMPLE_RATE, (first + count) / SAMPLE_RATE
    found = sample_file.peaks(long, begin, end, bars)
    assert found.shape == (bars, 2)
    samples = long.read(begin, end)
    assert found[:, 0].min() == min(samples.min(), 0 if count < bars else samples.min())
    assert found[:, 1].max() == max(samples.max(), 0 if count < bars else samples.max())
    edges = np.round(np.linspace(begin, end, bars + 1) * SAMPLE_RATE).astype(int) - first
    for bar, (low, high) in enumerate(found):
        part = samples[edges[bar] : edges[bar + 1]]
        assert (low, high) == ((part.min(), part.max()) if len(part) else (0, 0))


@settings(max_examples=20)
@given(st.integers(0, 2000), st.integers(1, 2000), st.floats(0.1, 30))
def test_wav_and_flac_give_back_the_stretch_clipped_to_what_16_bits_hold(
    tmp_path_factory, first: int, count: int, loud: float
) -> None:
    samples = (np.random.default_rng(first).normal(0, 0.2, 4000) * loud).astype(np.float32)
    made = stored(tmp_path_factory.mktemp("round"), samples)
    wanted = np.clip(samples[first : first + count], -1, 1)
    for write in (sample_file.wav, sample_file.flac):
        found, rate = soundfile.read(
            io.BytesIO(write(made, first / SAMPLE_RATE, (first + count) / SAMPLE_RATE)),
            dtype="float32",
        )
        assert rate == SAMPLE_RATE
        assert np.abs(found - wanted).max() <= 1 / 32768 + 1e-6


def test_memory_does_not_grow_with_the_recording(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from asr.audio import sample_file
made = sample_file.decode(Path(sys.argv[1]), Path(sys.argv[2]))
for _ in sample_file.passages(made, 0.0, made.duration): pass
lines = Path("/proc/self/status").read_text().splitlines()  # ru_maxrss begins with the parent's
print(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) >> 10)
"""
    peaks = []
    for minutes in (2, 20):
        recording = tmp_path / f"{minutes}.wav"
        recording.write_bytes(encoded(np.tile(voice(60.0, 8_000), minutes), 8_000))
        done = subprocess.run(
            [sys.executable, "-c", code, recording, tmp_path / "samples.f32"],
            cwd=REPOSITORY,
            capture_output=True,
            check=True,
        )
        peaks.append(int(done.stdout))
    assert peaks[1] - peaks[0] < 25  # twenty minutes are 73 MB of samples


def test_reading_sound_imports_no_torch() -> None:
    code = "import asr.audio.sample_file, asr.transcribe.job_queue, asr.transcribe.formats"
    assert imported(code, "torch", "transformers") == []
