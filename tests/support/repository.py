"""The repository under test, its params shrunk to seconds, and a copy of what a pipeline needs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

REPOSITORY = Path(__file__).parents[2]
SHARED = REPOSITORY.parent / "shared"  # recordings and models that we may not ship
SHIPPED = Path(__file__).with_name("params.yaml")  # a user may have changed the other
PYTHONPATH = f"{REPOSITORY}:{REPOSITORY / 'tests'}"  # for child processes
ABSENT = "beside this repository"  # why a test of what is not shipped was skipped
TINY: dict[str, Any] = {
    "download.synthetic.rows.train": 40,
    "download.synthetic.rows.validation": 8,
    "download.synthetic.rows.test": 8,
    "download.synthetic.voices.train": 8,
    "download.synthetic.voices.validation": 2,
    "download.synthetic.voices.test": 4,
    "chunk.rows_per_chunk": 16,
    "model.scratch.d_model": 32,
    "model.scratch.encoder_layers": 1,
    "model.scratch.decoder_layers": 1,
    "model.scratch.encoder_attention_heads": 2,
    "model.scratch.decoder_attention_heads": 2,
    "model.scratch.encoder_ffn_dim": 64,
    "model.scratch.decoder_ffn_dim": 64,
    "model.scratch.max_target_positions": 32,
    "model.apply_spec_augment": False,
    "train.learning_rate": 1e-3,
    "train.warmup_steps": 2,
    "train.max_steps": 10,
    "train.per_device_train_batch_size": 4,
    "train.eval_steps": 5,
    "train.eval_rows": 6,
    "train.save_steps": 3,
    "train.logging_steps": 2,
    "evaluate.bootstrap_resamples": 200,
}


def write_params(target: Path, changes: dict[str, Any]) -> Path:
    """The shipped params with some values changed."""
    yaml = YAML()
    values = yaml.load(SHIPPED.read_text(encoding="utf-8"))
    for key, value in changes.items():
        *sections, name = key.split(".")
        section = values
        for one in sections:
            section = section[one]
        assert name in section, key
        section[name] = value
    with target.open("w", encoding="utf-8") as file:
        yaml.dump(values, file)
    return target


def copy_repository(target: Path) -> Path:
    """The tracked rooms that a pipeline run needs."""
    for name in ("asr", "stages", ".dvc"):
        shutil.copytree(
            REPOSITORY / name,
            target / name,
            ignore=shutil.ignore_patterns("__pycache__", "cache", "tmp"),
        )
    for path in (
        REPOSITORY / "dvc.yaml",
        SHIPPED,
        REPOSITORY / ".dvcignore",
        REPOSITORY / ".gitignore",
    ):
        shutil.copy(path, target / path.name)
    return target
