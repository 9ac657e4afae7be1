"""Train: fine-tune a Whisper, or train a small one from scratch; keep the weights with the best
validation WER.

    python -m stages.train data/features/train data/features/validation models/finetuned
    reports/train

One optimiser and one schedule over all rows; a training that is stopped at any moment and started
again ends with the same bits as one that never stopped (at the same number of threads). Checkpoints
lie in .cache/checkpoints/<fingerprint>, outside the outs that DVC deletes. With PROCESSES=4 in the
environment four GPUs (or processes) share each step, and give the curve of one that takes four
times as many batches a step. The test split is never opened. What was checked stands in
reports/train/checks.json.
"""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from asr import paths
from asr.checks import check
from asr.checks.check import Check
from asr.checks.data import batch_is_sound, order_is_whole, splits_are_apart
from asr.checks.decoding import (
    MAX_SHOWN,
    loss_and_wer_agree,
    metric_is_sound,
    saved_model_is_the_best,
)
from asr.checks.loss import (
    loss_fell,
    loss_is_of_all_labels,
    noise_is_where_it_belongs,
    start_knows_its_tokens,
)
from asr.checks.weights import rate_followed, updates_were_made, weights_moved
from asr.errors import DiskError, Diverged, ModelError, ParamsError, exit_with
from asr.features import FeatureRows
from asr.metrics import STEP_COLUMNS
from asr.model import loader, lora
from asr.model.loader import Start
from asr.model.start import choose_trained, start_model
from asr.params import reader, schema
from asr.preflight import forecast, refusals
from asr.rooms import KEPT
from asr.runtime import command
from asr.storage import files, hashing, shards
from asr.tracking import journal, mirror
from asr.tracking.follower import Follower
from asr.training import checkpoints, memory
from asr.training.loop import Training

EVALUATION_MEMORY = (
    "what is done besides a step; lower train.per_device_eval_batch_size, or take a smaller model"
)


def identity(given: schema.Params, start: Start, train: Path, validation: Path) -> dict[str, Any]:
    """All that decides the weights; its hash is the training's fingerprint."""
    chosen = given.model.model_dump(exclude=set() if start.name == loader.SCRATCH else {"scratch"})
    return {
        "params": reader.flat(
            {
                "model": {**chosen, "language": given.language, "name": start.name},
                "train": given.train.model_dump(),
            }
        ),
        "data": shards.data_hash(train, validation),
        "start": start.provenance(),
        "code": hashing.code_hash(KEPT["training"]),
    }


def say_if_longer(folder: Path, known: dict[str, Any]) -> None:
    """Where only `max_steps` differs from a finished training: this one starts anew; say how to go
    on instead.
    """
    for path in sorted(folder.parent.glob("*/identity.json")):
        other = files.read_json(path)
        if (
            other.get("finished")
            and _without_steps(other["identity"]) == _without_steps(known)
            and path.parent != folder
        ):
            done, wanted = (one["params"]["train.max_steps"] for one in (other["identity"], known))
            print(
                f"a training of {done} steps with the same params is finished; its schedule has ended, so {wanted} steps train anew. "
                "To go on from it: make keep NAME=mine, then -S model.name=models/kept/mine",
                flush=True,
            )


def _without_steps(known: dict[str, Any]) -> dict[str, Any]:
    return {
        **known,
        "params": {
            key: value for key, value in known["params"].items() if key != "train.max_steps"
        },
    }


def steps_csv(rows: list[dict[str, Any]]) -> str:
    """steps.csv; a value that was not measured at a step stays empty."""
    table = io.StringIO()
    writer = csv.DictWriter(table, STEP_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return table.getvalue()


def summary_of(
    training: Training, steps: list[int], loss_after: float, moved: dict[str, Any]
) -> dict[str, Any]:
    """What a person should know of a training: reports/train/summary.json."""
    state = training.state
    return {
        "best_step": state.best_step,
        "averaged_steps": ", ".join(map(str, steps)) if len(steps) > 1 else "",
        "best_validation_wer": state.best_wer,
        "learning_rate": training.learning_rate,
        "parameters": lora.merged(training.bare).num_parameters(),
        "parameters_trained": training.bare.num_parameters(only_trainable=True),
        "window_seconds": loader.window_seconds(training.bare),
        "rows_trained": len(training.choice.examples),
        "rows_left_out": training.choice.left_out,
        "fixed_batch_loss_before": state.fixed_loss,
        "fixed_batch_loss_after": loss_after,
        **moved,
    }


def print_summary(summary: dict[str, Any], found: list[Check]) -> None:
    before, after = summary["fixed_batch_loss_before"], summary["fixed_batch_loss_after"]
    print(
        f"best step {summary['best_step']:,}: validation WER {summary['best_validation_wer']:.4f}; "
        f"weights moved by {summary['weights_moved']:.1%}; loss on one fixed batch: {before:.4f} -> {after:.4f}"
    )
    for reason, count in summary["rows_left_out"].items():
        if count:
            print(f"left out: {count} training rows, {reason}")
    failed = [one for one in found if not one.passed]
    for one in failed:
        print(f"CHECK FAILED: {one.name}: {one.detail}")
    print(f"checks: {len(found) - len(failed)} of {len(found)} passed")


def before_training(
    start: Start,
    rows: FeatureRows,
    validation: FeatureRows,
    splits: tuple[Path, Path],
    given: schema.Params,
) -> None:
    """What must hold before any time is spent."""
    refusals.refuse_damaged_rows(*splits)
    refusals.refuse_shared_rows(rows, validation)
    refusals.refuse_other_tokens(start, rows.column("text"))
    refusals.refuse_other_prompt(start, given.language, given.model.task)


def run(train: Path, validation: Path, out: Path, reports: Path, given: schema.Params) -> None:
    """Train and write models/finetuned and reports/train; of several processes one writes."""
    rows, judged = FeatureRows(train), FeatureRows(validation)
    start = start_model(given, rows)
    before_training(start, rows, judged, (train, validation), given)
    known = identity(given, start, train, validation)
    choose_trained(start, given.model, given.train.seed)
    fingerprint = hashing.hash_of(known)[:32]
    from accelerate import (
        PartialState,
    )  # at the top it would import torch before `asr` has set how torch is to wait

    folder, log = paths.cache("checkpoints", fingerprint), journal.path_of(fingerprint)
    main = PartialState(cpu=loader.device() == "cpu").is_main_process
    with checkpoints.held(folder) if main else nullcontext():
        if main:
            say_if_longer(folder, known)
            files.write_json(folder / "identity.json", {"identity": known, "finished": False})
        with mirror.copied(folder, log) if main else nullcontext():
            training = Training(
                start, rows, judged, given.train, folder, partial(journal.append, log)
            )
            all_params = reader.flat(given.model_dump(exclude={"evaluate"}))
            with (
                journaled(log, fingerprint, all_params) if main else nullcontext(),
                memory.must_hold(EVALUATION_MEMORY),
            ):
                train_and_write(
                    training, out, reports, {**known, "params_all": all_params}, fingerprint
                )
        if main:
            files.write_json(folder / "identity.json", {"identity": known, "finished": True})


@contextmanager
def journaled(log: Path, fingerprint: str, all_params: dict[str, Any]) -> Iterator[None]:
    """Tell the journal how a training begins and ends, and MLflow from it."""
    journal.append(
        log,
        "begin",
        fingerprint=fingerprint,
        name=run_name(fingerprint),
        params=all_params,
        tags=tags(),
    )
    follower = Follower(log)
    try:
        yield
    except (ModelError, DiskError, Diverged):
        journal.append(log, "end", status="FAILED")
        raise
    finally:
        follower.finish()


def train_and_write(
    training: Training, out: Path, reports: Path, known: dict[str, Any], fingerprint: str
) -> None:
    """The training itself, what must hold of it, and its outs."""
    main = training.accelerator.is_main_process
    training.accelerator.print(training.padding(), flush=True)
    before = {name: value.clone() for name, value in training.bare.state_dict().items()}
    look = (
        batch_is_sound,
        order_is_whole,
        metric_is_sound,
        noise_is_where_it_belongs,
        loss_is_of_all_labels,
    )
    found = [check(training) for check in look]
    training.resume()
    forecast.forecast(training, out)
    training.run()
    steps = training.load_best()
    given = known["params_all"]
    moved, facts = weights_moved(
        before, training, given["model.freeze_encoder"], given["model.lora.rank"]
    )
    loss = training.mean_loss(training.train, training.fixed_batch())
    summary = summary_of(training, steps, loss, facts)
    found += [
        start_knows_its_tokens(training, known["start"]["name"]),
        moved,
        *after_training(training, loss),
    ]
    if main:
        write_model(training, out)
        names = digests(training.train), digests(training.validation.rows)
        found += [saved_model_is_the_best(out, training, steps), splits_are_apart(*names)]
        files.write_bytes(reports / "taught.npy", seen_audio(names[0] | names[1]))
        write_reports(training, reports, summary, found, known, fingerprint)
        failed = [one.name for one in found if not one.passed]
        training.record(
            "end",
            status="FINISHED",
            tags={"checks": f"failed: {', '.join(failed)}" if failed else "passed"},
        )
        print_summary(summary, found)


def after_training(training: Training, loss: float) -> list[Check]:
    """What must hold of a training that has ended."""
    state = training.state
    prefix = " ".join(training.collator.made.convert_ids_to_tokens(training.collator.prompt))
    return [
        loss_fell(state.fixed_loss or 0.0, loss),
        rate_followed(training),
        updates_were_made(training),
        loss_and_wer_agree(
            state.rows, lambda: training.validation.worst(training.heard(), MAX_SHOWN), prefix
        ),
    ]


def write_reports(
    training: Training,
    reports: Path,
    summary: dict[str, Any],
    found: list[Check],
    known: dict[str, Any],
    fingerprint: str,
) -> None:
    """reports/train."""
    files.write_text(reports / "steps.csv", steps_csv(training.state.rows))
    files.write_json(reports / "summary.json", summary)
    files.write_json(reports / "checks.json", check.table(found))
    files.write_json(
        reports / "run.json",
        {
            "fingerprint": fingerprint,
            "params_hash": hashing.hash_of(known["params"]),
            "data_hash": known["data"],
            "code_hash": known["code"],
            "start": known["start"],
            "best_step": training.state.best_step,
            "seed": training.given.seed,
            "params": known["params_all"],
        },
    )


def digests(rows: FeatureRows) -> set[bytes]:
    """Short names of all sounds of a split."""
    return {rows.digest(row) for row in range(len(rows))}


def seen_audio(names: set[bytes]) -> bytes:
    """(N, 12) names of the sounds that the model was taught or chosen by, for `evaluate` to find
    none of them in the test.
    """
    file = io.BytesIO()
    np.save(
        file,
        np.frombuffer(b"".join(sorted(names)), np.uint8).reshape(len(names), -1),
        allow_pickle=False,
    )
    return file.getvalue()


def write_model(training: Training, out: Path) -> None:
    with files.new_folder(out) as draft:
        loader.save(lora.merged(training.bare), training.collator.made, draft)


def run_name(fingerprint: str) -> str:
    return os.environ.get("DVC_EXP_NAME") or f"repro-{fingerprint[:8]}"


def tags() -> dict[str, str]:
    """Where DVC says we are: the experiment, and the commit it started from."""
    names = {"dvc.experiment": "DVC_EXP_NAME", "dvc.baseline": "DVC_EXP_BASELINE_REV"}
    return {tag: os.environ[name] for tag, name in names.items() if os.environ.get(name)}


def launch_processes() -> None:
    """With PROCESSES in the environment, start that many of this command, which share each batch
    (torchrun, one per GPU).
    """
    count = os.environ.get("PROCESSES", "1")
    if not count.isdecimal() or int(count) < 1:
        raise ParamsError(f"PROCESSES: got {count!r}, want a number of processes")
    if int(count) > 1 and "LOCAL_RANK" not in os.environ:
        launcher = [
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc_per_node",
            count,
            "-m",
            "stages.train",
            *sys.argv[1:],
        ]
        os.execv(sys.executable, [sys.executable, *launcher])


def main() -> None:
    launch_processes()
    train, validation, out, reports = command.paths(
        __doc__, "train", "validation", "out", "reports"
    )
    given = reader.load()
    with command.timing(reports):
        run(train, validation, out, reports, given)


if __name__ == "__main__":
    exit_with(main)
