"""Train: fine-tune a Whisper, or train a small one from scratch, and keep the best weights.

    python -m stages.train data/features/train data/features/validation models/finetuned
    reports/train

The best weights are those with the lowest bounded validation WER, in which no row counts for more
errors than it has words; bounded CER where texts have no spaces (`asr.training.validation`). One
optimizer and one schedule over all rows; a training that is stopped at any moment and started again
ends with the same bits as one that never stopped (at the same number of threads). Checkpoints lie
in .cache/checkpoints/<fingerprint>, outside the outs that DVC deletes. With PROCESSES=4 in the
environment four GPUs (or processes) share each step, and give the curve of one that takes four
times as many batches a step. The test split is never opened. The results of the checks stand in
reports/train/checks.json.
"""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from asr import paths
from asr.checks import check
from asr.checks.check import Check
from asr.checks.data import splits_are_apart
from asr.checks.training import checks_after, checks_before, saved_model_of, weights_of
from asr.errors import ParamsError, Stopped
from asr.features import FeatureRows
from asr.metrics import STEP_COLUMNS
from asr.model import loader, lora
from asr.model.loader import Start
from asr.model.start import choose_trained, start_model
from asr.params import reader, schema
from asr.preflight import forecast, refusals
from asr.rooms import KEPT
from asr.runtime import attempts, command
from asr.runtime.signals import Interrupted
from asr.runtime.stage import run_stage
from asr.storage import files, hashing, shards
from asr.tracking import journal, mirror
from asr.tracking.follower import Follower
from asr.training import checkpoints, memory
from asr.training.loop import Training

EVALUATION_MEMORY = (
    "what is done besides a step; lower train.per_device_eval_batch_size, or take a smaller model"
)


@dataclass(frozen=True)
class Provenance:
    """What a training is made from.

    Attributes:
        fingerprint: hash of `identity`; names checkpoints, journal and MLflow run.
        identity: all that decides the weights.
        params: all params but those of `evaluate`, flat.
    """

    fingerprint: str
    identity: dict[str, Any]
    params: dict[str, Any]


def training_identity(
    params: schema.Params, start: Start, train: Path, validation: Path
) -> dict[str, Any]:
    """All that decides the weights; its hash is the training's fingerprint."""
    unused = set() if start.name == loader.SCRATCH else {"scratch"}
    model_params = params.model.model_dump(exclude=unused)
    model_params |= {"language": params.language, "name": start.name}
    return {
        "params": reader.flat({"model": model_params, "train": params.train.model_dump()}),
        "data": shards.data_hash(train, validation),
        "start": start.provenance(),
        "code": hashing.code_hash(KEPT["training"]),
    }


def say_if_longer(folder: Path, identity: dict[str, Any]) -> None:
    """Say how to go on from a finished training from which only `max_steps` differs.

    This one starts anew, for the schedule of the other has ended.

    Args:
        folder: the checkpoints of this training; others lie beside it.
    """
    for path in sorted(folder.parent.glob("*/identity.json")):
        other = files.read_json(path)
        if not other.get("finished") or path.parent == folder:
            continue
        if _without_steps(other["identity"]) != _without_steps(identity):
            continue
        finished_steps = other["identity"]["params"]["train.max_steps"]
        steps = identity["params"]["train.max_steps"]
        print(
            f"a training of {finished_steps} steps with the same params is finished; its schedule "
            f"has ended, so {steps} steps train anew. "
            "To go on from it: make keep NAME=mine, then -S model.name=models/kept/mine",
            flush=True,
        )


def _without_steps(identity: dict[str, Any]) -> dict[str, Any]:
    params = {key: value for key, value in identity["params"].items() if key != "train.max_steps"}
    return {**identity, "params": params}


def steps_csv(rows: list[dict[str, Any]]) -> str:
    """The content of steps.csv; a value that was not measured at a step stays empty.

    Args:
        rows: of the training's state, which has scores there besides.
    """
    table = io.StringIO()
    writer = csv.DictWriter(table, STEP_COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return table.getvalue()


def summary_of(
    training: Training, steps: list[int], loss_after: float, weight_facts: dict[str, Any]
) -> dict[str, Any]:
    """The content of reports/train/summary.json: what a person should know of a training.

    Args:
        steps: whose weights, or the mean of whose weights, the model has.
        loss_after: on the fixed batch.
        weight_facts: how far the weights moved.
    """
    state = training.state
    best = dict(zip(training.validation.compared_by, state.best_score or [], strict=False))
    return {
        "best_step": state.best_step,
        "averaged_steps": ", ".join(map(str, steps)) if len(steps) > 1 else "",
        "best_validation_wer": state.best_wer,
        "best_validation_wer_bounded": best.get("wer_bounded"),
        "best_validation_cer_bounded": best.get("cer_bounded"),
        "chosen_by": training.validation.compared_by[0],
        "learning_rate": training.learning_rate,
        "parameters": lora.merged(training.unwrapped).num_parameters(),
        "parameters_trained": training.unwrapped.num_parameters(only_trainable=True),
        "window_seconds": loader.window_seconds(training.unwrapped),
        "rows_trained": len(training.usable_rows.rows),
        "rows_left_out": training.usable_rows.left_out,
        "fixed_batch_loss_before": state.fixed_loss,
        "fixed_batch_loss_after": loss_after,
        **weight_facts,
    }


def chosen_by(summary: dict[str, Any]) -> str:
    """By which number the best step was chosen, for the log; empty if it is the WER itself."""
    if summary["chosen_by"] == "cer_bounded":
        return f", chosen by bounded CER {summary['best_validation_cer_bounded']:.4f}"
    bounded = summary["best_validation_wer_bounded"]
    return "" if bounded == summary["best_validation_wer"] else f", bounded {bounded:.4f}"


def print_summary(summary: dict[str, Any], checks: list[Check]) -> None:
    """Print the result of a training, the rows left out, and the checks that failed."""
    before, after = summary["fixed_batch_loss_before"], summary["fixed_batch_loss_after"]
    print(
        f"best step {summary['best_step']:,}: "
        f"validation WER {summary['best_validation_wer']:.4f}{chosen_by(summary)}; "
        f"weights moved by {summary['weights_moved']:.1%}; "
        f"loss on one fixed batch: {before:.4f} -> {after:.4f}"
    )
    for reason, count in summary["rows_left_out"].items():
        if count:
            print(f"left out: {count} training rows, {reason}")
    failed = [one for one in checks if not one.passed]
    for one in failed:
        print(f"CHECK FAILED: {one.name}: {one.detail}")
    print(f"checks: {len(checks) - len(failed)} of {len(checks)} passed")


def refuse_unfit(
    start: Start,
    rows: FeatureRows,
    validation_rows: FeatureRows,
    splits: tuple[Path, Path],
    params: schema.Params,
) -> None:
    """Refuse data and start models that would waste the time of a training.

    Raises:
        DataError: features are damaged, or rows stand in both splits.
        ModelError: tokenizer or prompt do not fit the model.
    """
    refusals.refuse_damaged_rows(*splits)
    refusals.refuse_shared_rows(rows, validation_rows)
    refusals.refuse_other_tokens(start, rows.column("text"))
    refusals.refuse_other_prompt(start, params.language, params.model.task)


def run(train: Path, validation: Path, out: Path, reports: Path, params: schema.Params) -> Path:
    """Train and write models/finetuned and reports/train; of several processes one writes.

    Returns:
        The path of the journal.
    """
    refusals.refuse_no_test(params.evaluate)
    rows = FeatureRows(train)
    validation_rows = FeatureRows(validation)
    start = start_model(params, rows)
    refuse_unfit(start, rows, validation_rows, (train, validation), params)
    identity = training_identity(params, start, train, validation)
    choose_trained(start, params.model, params.train.seed)
    fingerprint = hashing.hash_of(identity)[:32]
    all_params = reader.flat(params.model_dump(exclude={"evaluate"}))
    provenance = Provenance(fingerprint, identity, all_params)

    # at the top it would import torch before `asr` has set how torch is to wait
    from accelerate import PartialState

    folder = paths.cache("checkpoints", fingerprint)
    log = journal.path_of(fingerprint)
    is_main = PartialState(cpu=loader.device() == "cpu").is_main_process
    with ExitStack() as stack:
        if is_main:
            stack.enter_context(own_checkpoints(folder, log, identity))
        record = partial(journal.append, log)
        training = Training(start, rows, validation_rows, params.train, folder, record)
        if is_main:
            stack.enter_context(journaled(log, provenance))
        try:
            with memory.must_hold(EVALUATION_MEMORY):
                train_and_write(training, out, reports, provenance)
        except Interrupted:  # in a check; the checkpoint of the last step is written
            training.leave()
    return log


@contextmanager
def own_checkpoints(folder: Path, log: Path, identity: dict[str, Any]) -> Iterator[None]:
    """Keep a training's checkpoints to this process and copy them to the mirror, if there is one.

    identity.json beside them says what they belong to, and whether the training has finished.
    """
    path = folder / "identity.json"
    with checkpoints.hold_folder(folder):
        say_if_longer(folder, identity)
        files.write_json(path, {"identity": identity, "finished": False})
        with mirror.mirrored(folder, log):
            yield
        files.write_json(path, {"identity": identity, "finished": True})


@contextmanager
def journaled(log: Path, provenance: Provenance) -> Iterator[None]:
    """Write begin and end to the journal, and run the process that uploads it to MLflow."""
    journal.append(
        log,
        "begin",
        fingerprint=provenance.fingerprint,
        name=run_name(provenance.fingerprint),
        params=provenance.params,
        tags=tags(),
    )
    attempts.note(provenance.fingerprint)
    follower = Follower(log)
    try:
        yield
    except Stopped:
        raise
    except Exception as error:
        line = " ".join(str(error).split())
        journal.append(log, "end", status="FAILED", line=line or type(error).__name__)
        raise
    finally:
        follower.finish()


def train_and_write(training: Training, out: Path, reports: Path, provenance: Provenance) -> None:
    """Train, check what was trained, and write the outs."""
    training.accelerator.print(training.padding(), flush=True)
    weights_before = {
        name: value.clone() for name, value in training.unwrapped.state_dict().items()
    }
    checks = checks_before(training)
    training.resume()
    forecast.forecast(training, out)
    training.run()
    steps = training.load_best()

    params = provenance.params
    weights_check, weight_facts = weights_of(
        training, weights_before, params["model.freeze_encoder"], params["model.lora.rank"]
    )
    loss_after = training.mean_loss(training.train, training.fixed_batch())
    summary = summary_of(training, steps, loss_after, weight_facts)
    start = provenance.identity["start"]["name"]
    checks += checks_after(training, start, weights_check, loss_after)
    if training.accelerator.is_main_process:
        write_model(training, out)
        checks.append(saved_model_of(training, out, steps))
        train_digests = digests(training.train)
        validation_digests = digests(training.validation.rows)
        checks.append(splits_are_apart(train_digests, validation_digests))
        files.write_bytes(reports / "taught.npy", seen_audio(train_digests | validation_digests))
        write_reports(training, reports, summary, checks, provenance)
        record_end(training, checks)
        print_summary(summary, checks)


def record_end(training: Training, checks: list[Check]) -> None:
    """Tell the journal that the training has finished, and which checks failed, and why."""
    failed = {one.name: one.detail for one in checks if not one.passed}
    tags = {f"check.{name}": detail[: journal.MAX_TAG] for name, detail in failed.items()}
    tags["checks"] = f"failed: {', '.join(failed)}" if failed else "passed"
    training.record("end", status="FINISHED", tags=tags)


def write_reports(
    training: Training,
    reports: Path,
    summary: dict[str, Any],
    checks: list[Check],
    provenance: Provenance,
) -> None:
    """Write reports/train."""
    identity = provenance.identity
    run = {
        "fingerprint": provenance.fingerprint,
        "params_hash": hashing.hash_of(identity["params"]),
        "data_hash": identity["data"],
        "code_hash": identity["code"],
        "start": identity["start"],
        "best_step": training.state.best_step,
        "seed": training.params.seed,
        "params": provenance.params,
    }
    files.write_text(reports / "steps.csv", steps_csv(training.state.rows))
    files.write_json(reports / "summary.json", summary)
    files.write_json(reports / "checks.json", check.table(checks))
    files.write_json(reports / "run.json", run)


def digests(rows: FeatureRows) -> set[bytes]:
    """Digests of all sounds of a split, 12 bytes each."""
    return {rows.digest(row) for row in range(len(rows))}


def seen_audio(sounds: set[bytes]) -> bytes:
    """The content of taught.npy: digests of the sounds that the model was trained or chosen by.

    `evaluate` looks for them among the test rows.

    Args:
        sounds: their digests.
    Returns:
        A NumPy file of (N, 12) uint8.
    """
    array = np.frombuffer(b"".join(sorted(sounds)), np.uint8).reshape(len(sounds), -1)
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def write_model(training: Training, out: Path) -> None:
    with files.new_folder(out) as draft:
        loader.save(lora.merged(training.unwrapped), training.collator.tokenizer, draft)


def run_name(fingerprint: str) -> str:
    """The name of the MLflow run: that of the DVC experiment, if it is one."""
    return os.environ.get("DVC_EXP_NAME") or f"repro-{fingerprint[:8]}"


def tags() -> dict[str, str]:
    """Where DVC says we are: the experiment, and the commit it started from."""
    names = {"dvc.experiment": "DVC_EXP_NAME", "dvc.baseline": "DVC_EXP_BASELINE_REV"}
    return {tag: os.environ[name] for tag, name in names.items() if os.environ.get(name)}


def launch_processes() -> None:
    """Become torchrun if PROCESSES asks for several: it starts as many of this command.

    They share each batch, one per GPU.

    Raises:
        ParamsError: PROCESSES is not a number of processes.
    """
    count = os.environ.get("PROCESSES", "1")
    if not count.isdecimal() or int(count) < 1:
        raise ParamsError(f"PROCESSES: got {count!r}, want a number of processes")
    if int(count) == 1 or "LOCAL_RANK" in os.environ:
        return
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", count]
    command_line = ["-m", "stages.train", *sys.argv[1:]]
    attempts.withdraw()  # the first of those writes its own
    os.execv(sys.executable, [sys.executable, *launcher, *command_line])


def main() -> None:
    launch_processes()
    names = ("train", "validation", "out", "reports")
    train, validation, out, reports = command.paths(__doc__, *names)
    params = reader.load()
    with command.timing(reports) as timed:
        course = journal.course(run(train, validation, out, reports, params))
        if course:  # a training that was stopped took longer than its last piece
            timed["seconds"] = course.seconds


if __name__ == "__main__":
    run_stage(main)
