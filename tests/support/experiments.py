"""Two experiments that train: a model that has learnt a few sentences by heart, and one that has
not. They are made once, and each process has a copy.
"""

from __future__ import annotations

import csv
import io
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from support.pipeline import Workspace, copied, made_once, make_workspace
from support.repository import REPOSITORY, TINY, write_params

SENTENCES = ("ett två tre", "fyra fem", "sju åtta nio", "tio elva", "tolv tretton", "noll")
COPIES = {"train": 10, "validation": 1, "test": 1}
LEARNT = {
    **TINY,
    "download.source": "folder",
    "download.path": "corpus",
    "chunk.allow_shared": ["speaker", "clip"],
    "model.scratch.d_model": 64,
    "model.scratch.encoder_ffn_dim": 128,
    "model.scratch.decoder_ffn_dim": 128,
    "train.learning_rate": 2e-3,
    "train.warmup_steps": 20,
    "train.max_steps": 120,
    "train.eval_steps": 60,
    "train.save_steps": 120,
    "train.logging_steps": 20,
    "train.per_device_train_batch_size": 12,
}


def speech(text: str, before: float = 0.3, after: float = 0.3) -> np.ndarray:
    """(S,) one voice says a text between two silences, at 22,050 Hz."""
    from asr.sources import synthetic

    samples, rate = soundfile.read(
        io.BytesIO(synthetic.speak(text, "sv+m3", 180, 50)), dtype="float32"
    )
    return np.concatenate(
        [np.zeros(int(before * rate), np.float32), samples, np.zeros(int(after * rate), np.float32)]
    )


def wav(samples: np.ndarray, rate: int = 22_050) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV")
    return file.getvalue()


def write_corpus(folder: Path) -> None:
    """Each sentence a few times in each split, at other moments and loudnesses: learnt by heart,
    wherever it begins.
    """
    folder.mkdir()
    draw = random.Random(1)
    rows = []
    for split, copies in COPIES.items():
        for number, text in enumerate(SENTENCES):
            for copy in range(copies):
                heard = speech(text, draw.uniform(0, 1.2), draw.uniform(0, 0.5)) * draw.uniform(
                    0.4, 1.0
                )
                name = f"{split}-{number}-{copy}.flac"
                soundfile.write(folder / name, heard, 22_050)
                rows.append(
                    {"file_name": name, "transcription": text, "speaker_id": "m3", "split": split}
                )
    with (folder / "metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def make_experiments(workspace: Path, root: Path) -> None:
    """The two experiments, in a copy of the tiny run that has the pages, too."""
    made = copied(workspace, root)
    for name in ("dashboard", ".streamlit"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / name, made.root / name, ignore=ignored)
    write_corpus(made.root / "corpus")
    made.commit("pages and corpus")
    write_params(made.root / "params.yaml", LEARNT)
    for name, steps in (("brief", 30), ("learnt", LEARNT["train.max_steps"])):
        words = ("dvc", "exp", "run", "-n", name, "-S", f"train.max_steps={steps}")
        made.run(*words, WORKERS="1")  # one process is quickest for so little


@pytest.fixture(scope="session")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The tiny run on branch main; above it two experiments: `brief`, and `learnt`, whose model is
    the workspace's and knows SENTENCES. Each process has a copy.
    """
    return learnt_copy(tmp_path_factory)


def learnt_copy(factory: pytest.TempPathFactory) -> Workspace:
    """Another copy of `learnt`, to be changed."""
    workspace = made_once(factory, "pipeline", make_workspace)
    made = made_once(factory, "experiments", lambda root: make_experiments(workspace, root))
    return copied(made, factory.mktemp("experiments"))
