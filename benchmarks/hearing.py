"""Transcription on the command line, beside its fastest peers: whole processes that take turns.

    python -m benchmarks.hearing PEERS GENAI CT2 [ROUNDS]      # 2 rounds: 5 minutes

PEERS is the Python of an environment with openvino-genai, faster-whisper, soundfile and soxr, whose
transformers is older than ours; GENAI and CT2 are whisper-base in int8, made there by

    optimum-cli export openvino -m MODEL --task automatic-speech-recognition-with-past \\
        --weight-format int8 GENAI
    ct2-transformers-converter --model MODEL --output_dir CT2 --quantization int8 \\
        --copy_files tokenizer.json preprocessor_config.json

whisper-base and the recordings lie in ../shared. Ours is converted before the first round, as
theirs are. Each figure is a median; CPU seconds have start-up in them.
"""

from __future__ import annotations

import csv
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from asr import wer

REPOSITORY = Path(__file__).parents[1]
SHARED = REPOSITORY.parent / "shared"
MODEL, DATA = SHARED / "models/whisper-base", SHARED / "data"
THREADS = os.cpu_count() or 1
READ = """
import json, sys, soundfile, soxr
def samples(path):
    sound, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return soxr.resample(sound.mean(1), rate, 16000)
model, threads, *paths = sys.argv[1:]
"""
GENAI = """
from openvino_genai import WhisperPipeline
whisper = WhisperPipeline(model, "CPU", INFERENCE_NUM_THREADS=int(threads))
asked = dict(language="<|en|>", task="transcribe", return_timestamps=True)
print(json.dumps([whisper.generate(samples(path).tolist(), **asked).texts[0] for path in paths]))
"""
FASTER = """
from faster_whisper import BatchedInferencePipeline, WhisperModel
model = WhisperModel(model, device="cpu", compute_type="int8", cpu_threads=int(threads))
whisper = BatchedInferencePipeline(model)
asked = dict(language="en", beam_size=1, batch_size=8)
heard = [whisper.transcribe(samples(path), **asked)[0] for path in paths]
print(json.dumps([" ".join(segment.text for segment in segments) for segments in heard]))
"""

Hear = Callable[[list[Path]], list[str]]  # texts of recordings, heard in a process of its own


def ours(recordings: list[Path]) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "asr", "transcribe", *map(str, recordings)]
        command += ["--model", str(MODEL), "--language", "en", "--out", folder]
        subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=True)
        return [(Path(folder) / f"{path.stem}.txt").read_text("utf-8") for path in recordings]


def peer(python: str, script: str, model: str) -> Hear:
    def hear(recordings: list[Path]) -> list[str]:
        command = [python, "-c", READ + script, model, str(THREADS), *map(str, recordings)]
        done = subprocess.run(command, capture_output=True, check=True)
        texts: list[str] = json.loads(done.stdout.splitlines()[-1])
        return texts

    return hear


def measure(hear: Hear, recordings: list[Path], said: list[str]) -> dict[str, float]:
    """CPU and wall seconds of a whole process, and its WER."""
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    heard = hear(recordings)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    texts = [wer.normalize(text) for text in heard]
    return {
        "cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "wall_s": time.monotonic() - began,
        "wer": wer.error_rates([wer.normalize(text) for text in said], texts)["wer"],
    }


def work() -> dict[str, tuple[list[Path], list[str]]]:
    """Recordings with what is said in them."""
    clips = rows(DATA / "clips/metadata.csv")
    paths = [DATA / "clips" / row["file_name"] for row in clips]
    sentences = rows(DATA / "long-en/pauses.csv")
    return {
        "nine short clips": (paths, [row["transcription"] for row in clips]),
        "ten minutes": (
            [DATA / "long-en/pauses.flac"],
            [" ".join(row["text"] for row in sentences)],
        ),
    }


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def median_of(measured: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(one[key] for one in measured) for key in measured[0]}


def main() -> None:
    if len(sys.argv) < 4:
        raise SystemExit(__doc__)
    python, genai, ct2 = sys.argv[1:4]
    rounds = int(sys.argv[4]) if len(sys.argv) > 4 else 2
    hearers = {
        "ours": ours,
        "GenAI int8": peer(python, GENAI, genai),
        "faster-whisper int8": peer(python, FASTER, ct2),
    }
    figures: dict[str, Any] = {}
    for name, (recordings, said) in work().items():
        ours(recordings[:1])  # converts, the first time
        found: dict[str, list[dict[str, float]]] = {hearer: [] for hearer in hearers}
        for _ in range(rounds):
            for hearer, hear in hearers.items():
                found[hearer].append(measure(hear, recordings, said))
        figures[name] = {hearer: median_of(measured) for hearer, measured in found.items()}
        fastest = min(figures[name][hearer]["cpu_s"] for hearer in hearers if hearer != "ours")
        for hearer, one in figures[name].items():
            print(
                f"{name:18}{hearer:22}{one['cpu_s']:7.1f} CPU s {one['cpu_s'] / fastest:6.2f} x "
                f"{one['wall_s']:7.1f} s   WER {one['wer']:.3f}",
                flush=True,
            )
    target = REPOSITORY / "reports/bench/hearing.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
