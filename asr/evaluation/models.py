"""The models that `evaluate` compares: the trained one, what it began from, and other baselines."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from asr.decoding import loading, vocabulary
from asr.errors import ModelError
from asr.evaluation.hypotheses import Compared
from asr.evaluation.table import FINETUNED, START, START_CUT
from asr.model import loader
from asr.model.loader import Start
from asr.params import schema
from asr.storage import hashing


def baselines(folder: Path, run: dict[str, Any], params: schema.Params) -> list[str]:
    """`evaluate.baselines`, and beside the start the same as it was cut, if it was.

    Training begins from a Whisper whose window is shorter than it was published with, which may
    hear badly at first; that says nothing of the Whisper.

    Args:
        folder: of the fine-tuned model.
        run: the content of reports/train/run.json.
    """
    names = list(params.evaluate.baselines)
    if START in names and run["start"]["name"] != loader.SCRATCH:
        published = loader.load_config(params.model.name, start_revision(run, params))
        trained = loader.load_config(str(folder), None)
        if published.max_source_positions != trained.max_source_positions:
            names.insert(names.index(START) + 1, START_CUT)
    return names


def compared(name: str, folder: Path, run: dict[str, Any], params: schema.Params) -> Compared:
    """A model to score.

    Args:
        name: FINETUNED, or one of `baselines`.
        folder: of the fine-tuned model.
    """
    how = (params.evaluate.engine, params.evaluate.precision, params.evaluate.decoding)
    if name == FINETUNED:
        recognizer = partial(loading.of_folder, folder.resolve(), *how)
        return Compared(name, loading.identity(folder), recognizer)
    other = other_model(name, folder, run, params)
    title = name if name in (START, START_CUT) else other.name
    return Compared(title, identity(other), partial(loading.of_start, other, *how))


def identity(start: Start) -> str:
    """A hash of a model in memory; 1 s per GB."""
    config = start.model.config.to_dict()
    config.pop("_name_or_path", None)  # of the folder or the hub that it came from
    tokens = vocabulary.of_model(start).as_json()
    tokenizer = start.tokenizer.backend_tokenizer.to_str()
    return hashing.hash_of([loader.weights_hash(start.model), config, tokens, tokenizer])


def other_model(name: str, folder: Path, run: dict[str, Any], params: schema.Params) -> Start:
    """A model to compare with, at its own window, or the start as it was cut."""
    if name in (START, START_CUT):
        finetuned = loader.load_saved(folder)
        window = loader.window_seconds(finetuned.model) if name == START_CUT else None
        return start_again(finetuned, run, window, params)
    other = loader.load(name, None, None)
    loader.set_prompt(other.model, params.language, params.model.task)
    return other


def start_again(
    finetuned: Start, run: dict[str, Any], window: int | None, params: schema.Params
) -> Start:
    """The model before training.

    Args:
        window: in seconds; None for that which it was published with.
    Raises:
        ModelError: its weights are not those that `train` started from.
    """
    if run["start"]["name"] == loader.SCRATCH:
        model = loader.untrained(finetuned.model.config, run["seed"])
        model.generation_config = finetuned.model.generation_config
        start = Start(model, finetuned.tokenizer, loader.SCRATCH, None)
    else:
        start = loader.load(params.model.name, start_revision(run, params), window)
        loader.set_prompt(start.model, params.language, params.model.task)
    if loader.weights_hash(start.model) != run["start"]["sha256"]:
        raise ModelError(
            f"{params.model.name} has changed since it was trained from; "
            "train again (dvc repro -f train)"
        )
    return start


def start_revision(run: dict[str, Any], params: schema.Params) -> str | None:
    """The commit of a checkpoint from the hub that training started from."""
    return run["start"]["revision"] or params.model.revision
