"""Can the model learn eight rows by heart? If it cannot, no long run will teach it anything.

    earshot overfit data/features/train     # make overfit

Takes half a minute for the default model on one core. Takes eight training rows and the start model
of params.yaml, and trains, with everything off that keeps a model from learning by heart, until it
decodes the eight texts. Leaves nothing behind: no checkpoint, no MLflow run, no out. Ends with 6 if
it cannot.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from asr.errors import DataError, Diverged, Stopped, exit_with
from asr.features import FeatureRows
from asr.params import reader, schema
from asr.runtime import command

if TYPE_CHECKING:  # torch takes seconds that a question for help need not
    from asr.model.loader import Start
    from asr.training.loop import Training

ROWS = 8
LOSS = 0.05  # per label, below which a text is known by heart
STEPS = 600
SPARE = 8  # times as many rows are looked at, as some may not fit the model


def choose_rows(rows: FeatureRows, start: Start, seed: int) -> FeatureRows:
    """Eight rows that the model can take, chosen by seed.

    Raises:
        DataError: there are not so many.
    """
    from asr.training.batches import Collator
    from asr.training.validation import subset

    sample = select(rows, subset(rows.column("id"), SPARE * ROWS, seed))
    usable = Collator(start.model, start.tokenizer).choose(sample)
    fitting = select(sample, [example.index for example in usable.rows])
    if len(fitting) < ROWS:
        raise DataError(
            f"{len(fitting)} of {len(sample)} training rows fit the model, want {ROWS}; "
            "raise model.window_seconds"
        )
    return select(fitting, subset(fitting.column("id"), ROWS, seed))


def select(rows: FeatureRows, indices: Sequence[int]) -> FeatureRows:
    """Some rows of a split."""
    selected = copy.copy(rows)
    selected.dataset = rows.dataset.select(indices)
    return selected


def overfitting_params(params: schema.Params) -> schema.Params:
    """The same params without what keeps a model from learning rows by heart."""
    from asr.model import regularization

    model = params.model.model_copy(
        update={
            **dict.fromkeys(regularization.DROPOUTS, 0.0),
            "apply_spec_augment": False,
            "lora": params.model.lora.model_copy(update={"dropout": 0.0}),
        }
    )
    train = params.train.model_copy(
        update={
            "lr_scheduler_type": "constant_with_warmup",
            "warmup_steps": 20,
            "max_steps": STEPS,
            "per_device_train_batch_size": ROWS,
            "per_device_eval_batch_size": ROWS,
            "gradient_accumulation_steps": 1,
            "weight_decay": 0.0,
            "label_smoothing_factor": 0.0,
            "eval_steps": 50,
            "eval_rows": ROWS,
            "early_stopping_patience": None,
            "average_weights": "none",
            "pack_to_window": False,
            "no_speech_share": 0.0,
            "save_steps": STEPS,
            "logging_steps": 50,
        }
    )
    return params.model_copy(update={"model": model, "train": train})


def run(split: Path, params: schema.Params) -> int:
    """Train on eight rows.

    Returns:
        The steps that it took.
    Raises:
        Diverged: the model does not know them by heart after STEPS steps.
    """
    from asr.model.start import choose_trained, start_model
    from asr.training.loop import Training

    params = overfitting_params(params)
    rows = FeatureRows(split)
    start = start_model(params, rows)
    choose_trained(start, params.model, params.train.seed)
    eight = choose_rows(rows, start, params.train.seed)
    with tempfile.TemporaryDirectory(prefix="earshot-overfit-") as folder:
        checkpoints = Path(folder) / "checkpoints"
        training = Training(start, eight, eight, params.train, checkpoints, lambda *_, **__: None)
        try:
            training.run(lambda: known_by_heart(training))
        except Stopped:
            raise Stopped(
                training.signals.received, "stopped by a signal; nothing of it is left"
            ) from None
        refuse_unlearned(training)
    return training.state.step


def refuse_unlearned(training: Training) -> None:
    """Refuse a training that ended without knowing its rows.

    Raises:
        Diverged: with what it decodes instead.
    """
    if known_by_heart(training):
        return
    loss = training.state.evaluations()[-1]["validation_loss"]
    failure = failure_text(loss, texts(training), training.hypotheses())
    raise Diverged(
        f"{training.state.step} steps did not teach eight rows: {failure}; "
        "look at the rows, or at what was changed last"
    )


def known_by_heart(training: Training) -> bool:
    """Whether the evaluation of this step shows it; False where this step has none."""
    state = training.state
    if not state.step or not state.validated():
        return False
    last = state.evaluations()[-1]
    return (
        last["validation_loss"] < LOSS
        and last["validation_wer"] == 0
        and training.hypotheses() == texts(training)
    )


def failure_text(loss: float, texts: Sequence[str], hypotheses: Sequence[str]) -> str:
    """The loss of the last evaluation, and the texts that are decoded wrong."""
    wrong = [
        f"{text!r} was heard as {hypothesis!r}"
        for text, hypothesis in zip(texts, hypotheses, strict=True)
        if text != hypothesis
    ]
    return "; ".join([f"loss {loss:.3f}, want under {LOSS}", *wrong])


def texts(training: Training) -> list[str]:
    """The texts of the eight rows, in the order of validation."""
    return [training.train.text(row) for row in training.validation.row_numbers]


def main() -> None:
    (split,) = command.paths(__doc__, "split")
    print(f"the model said eight rows by heart after {run(split, reader.load())} steps")


if __name__ == "__main__":
    exit_with(main)
