"""The rooms of this package, in the order sound travels: each imports only rooms that stand before
it.

Walls follow who depends on what. A room is a dep of stages in dvc.yaml and part of the hashes under
which work is kept, so a change in it costs hours; what changes no byte of an output therefore
stands apart, in a room that is exempt. Imports nothing.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Room:
    """A folder or a file of `asr/`.

    exempt: changes no byte of an output but through params, so it is no dep of a stage and part of
        no hash.
    """

    name: str
    purpose: str
    exempt: bool = False


ROOMS = (
    Room("rooms.py", "this list", exempt=True),
    Room(
        "errors.py",
        "errors that a person can mend, their exit codes, the last line of a command",
        exempt=True,
    ),
    Room("paths.py", "where things lie", exempt=True),
    Room("whisper.py", "what Whisper fixes: rates, languages, token names"),
    Room("storage", "files that appear whole, hashes, Arrow rows, the cache of computed files"),
    Room("markdown.py", "text inside a Markdown table"),
    Room(
        "runtime",
        "processes, limits, signals, progress, command lines, numbers as text",
        exempt=True,
    ),
    Room("params", "params.yaml, read and checked", exempt=True),
    Room("audio", "encoded recordings to samples"),
    Room("sources", "where a corpus comes from, and which rows of it are taken"),
    Room("cleaning", "recordings measured apart, reasons to leave a row out, copies across splits"),
    Room("stats", "what the recordings are like, and which window to take"),
    Room("features.py", "log-mel features and their rows"),
    Room("augmentation.py", "copies of training rows that sound otherwise"),
    Room(
        "model",
        "a Whisper: built, loaded, saved, prompted, decoded greedily, made ready for training",
    ),
    Room("wer.py", "errors counted, intervals, paired tests"),
    Room("metrics.py", "names of what is measured"),
    Room("training", "what decides the weights, and nothing else"),
    Room(
        "preflight",
        "what is asked before hours are spent: refusals, forecasts, trials",
        exempt=True,
    ),
    Room("checks", "questions to a training from outside, answered in checks.json"),
    Room("tracking", "the journal, MLflow and the mirror of checkpoints", exempt=True),
    Room("decoding", "what evaluation and transcription decode beyond what validation needs"),
    Room("evaluation", "the table of utterances, its scores, and what people read of it"),
    Room("runs", "finished work, read back, kept and compared"),
    Room("transcribe", "recordings to text for people"),
    Room("doctor.py", "what a killed DVC left behind"),
    Room("__main__.py", "the command `earshot`"),
)

_ROWS = ("asr/storage/files.py", "asr/storage/hashing.py", "asr/storage/shards.py")
_FEATURES = (
    "asr/audio/codec.py",
    "asr/features.py",
    "asr/storage/cache.py",
    *_ROWS,
    "asr/whisper.py",
    "stages/featurize.py",
)

# What is kept between runs, and the rooms and files whose code names it: another code, another
# name, and it is made anew.
KEPT = {
    "measurements": (
        "asr/audio/codec.py",
        "asr/cleaning/audio_fingerprint.py",
        "asr/cleaning/measurements.py",
        "asr/whisper.py",
    ),
    "chunks": (*_ROWS, "stages/chunk.py"),
    "features": _FEATURES,
    "augmented features": (*_FEATURES, "asr/audio/sample_file.py", "asr/augmentation.py"),
    "training": (
        "asr/features.py",
        "asr/metrics.py",
        "asr/model",
        *_ROWS,
        "asr/training",
        "asr/wer.py",
        "asr/whisper.py",
        "stages/train.py",
    ),
    "evaluation": (
        "asr/evaluation/error_rates.py",
        "asr/evaluation/metric.py",
        "asr/evaluation/table.py",
        "asr/features.py",
        "asr/metrics.py",
        "asr/model",
        *_ROWS,
        "asr/wer.py",
        "asr/whisper.py",
        "stages/evaluate.py",
    ),
}
