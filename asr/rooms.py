"""The rooms of this package in order: each imports only rooms that come before it in this list.

A room is a folder or a file of `asr/`. Stages list it as a dep in dvc.yaml, and its code is part of
the hashes that name kept work, so a change in it may cost hours. Code that changes no byte of an
output is therefore in rooms of its own, which are exempt from both. Imports nothing.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Room:
    """A folder or a file of `asr/`.

    exempt: it changes an output only through params, so it is no dep of a stage and not part of a
        hash.
    """

    name: str
    purpose: str
    exempt: bool = False


ROOMS = (
    Room("rooms.py", "this list", exempt=True),
    Room(
        "errors.py",
        "errors that the user can fix, their exit codes, the last line of a command",
        exempt=True,
    ),
    Room("paths.py", "paths of data, models, reports and .cache", exempt=True),
    Room("dvc_hashes.py", "hashes of files and folders as DVC has them", exempt=True),
    Room("whisper.py", "constants of Whisper: rates, languages, vocabulary"),
    Room("storage", "files that appear whole, hashes, Arrow rows, the cache of computed files"),
    Room("markdown.py", "text escaped for a Markdown table"),
    Room(
        "runtime",
        "processes, limits, signals, progress, command lines, numbers as text",
        exempt=True,
    ),
    Room("params", "reads and checks params.yaml", exempt=True),
    Room("audio", "encoded recordings to samples"),
    Room("speech", "where a sound holds speech, and the pieces of it that a model decodes"),
    Room("sources", "where a corpus comes from, and which rows of it are taken"),
    Room("cleaning", "measurements of recordings, reasons to leave a row out, near duplicates"),
    Room("stats", "statistics of the recordings, and the window to choose"),
    Room("features.py", "log-mel features and their rows"),
    Room("augmentation.py", "copies of training rows that sound different"),
    Room("windows.py", "recordings cut at quiet points into windows, rows in groups"),
    Room("stopping.py", "when decoding stops: at a limit by duration, or at a loop of tokens"),
    Room(
        "model",
        "Whisper models: build, load, save, prompt, decode greedily, prepare for training",
    ),
    Room("engines", "a Whisper that encodes sound and scores the next token, on OpenVINO or torch"),
    Room("wer.py", "error rates, intervals, paired tests"),
    Room("metrics.py", "names of the metrics"),
    Room("training", "the code that decides the weights, and nothing else"),
    Room(
        "preflight",
        "before hours are spent: refusals, forecasts, trials",
        exempt=True,
    ),
    Room("checks", "checks of a training by other means than its own, written to checks.json"),
    Room(
        "tracking",
        "the journal, MLflow, kept results and the mirror of checkpoints",
        exempt=True,
    ),
    Room("decoding", "from sound to hypotheses and segments with times, on any engine"),
    Room("evaluation", "the table of utterances, its scores, and the report"),
    Room("runs", "trainings: their states, index, reports, comparison, and keeping a model"),
    Room("transcribe", "transcription for the command line and the dashboard"),
    Room("doctor.py", "finds and mends what a killed DVC left behind"),
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
_DECODING = (
    "asr/decoding/beam.py",
    "asr/decoding/options.py",
    "asr/decoding/recognizer.py",
    "asr/decoding/recordings.py",
    "asr/decoding/robust.py",
    "asr/decoding/rules.py",
    "asr/decoding/search.py",
    "asr/decoding/segments.py",
    "asr/decoding/vocabulary.py",
    "asr/decoding/words.py",
)
_HYPOTHESES = (
    *_DECODING,
    "asr/decoding/loading.py",
    "asr/engines",
    "asr/evaluation/hypotheses.py",
    "asr/features.py",
    "asr/model/loader.py",
    "asr/model/tokenization.py",
    *_ROWS,
    "asr/speech",
    "asr/stopping.py",
    "asr/whisper.py",
    "asr/windows.py",
)

# Work that is kept between runs, and the rooms and files whose code is part of the hash that names
# it: when this code changes, the name changes, and the work is done anew.
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
        "asr/stats/writing_systems.py",
        "asr/stopping.py",
        "asr/training",
        "asr/wer.py",
        "asr/whisper.py",
        "asr/windows.py",
        "stages/train.py",
    ),
    "hypotheses": _HYPOTHESES,
    "evaluation": (
        *_HYPOTHESES,
        "asr/evaluation/error_rates.py",
        "asr/evaluation/form.py",
        "asr/evaluation/loops.py",
        "asr/evaluation/metric.py",
        "asr/evaluation/models.py",
        "asr/evaluation/normalizers.py",
        "asr/evaluation/scores.py",
        "asr/evaluation/table.py",
        "asr/metrics.py",
        "asr/stats/writing_systems.py",
        "asr/wer.py",
        "stages/evaluate.py",
    ),
}
