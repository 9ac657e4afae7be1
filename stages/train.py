"""Train: fine-tune a Whisper, or train a small one from scratch; keep the weights with the best validation WER.

    python -m stages.train data/features/train data/features/validation models/finetuned reports/train

One optimiser and one schedule over all rows; order, dropout and masks are a pure function of (seed, step), so a training that
is stopped at any moment and started again ends with the same bits as one that never stopped (at the same number of threads).
Checkpoints lie in .cache/checkpoints/<fingerprint>, outside the outs that DVC deletes. The test split is never opened.
"""

from __future__ import annotations

import csv
import ctypes
import io
import math
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from transformers import WhisperConfig, WhisperForConditionalGeneration, WhisperTokenizer, get_scheduler

from asr import batches, checkpoints, decode, files, journal, model, params, shards, stage, tokenizer, tracking, wer
from asr.audio import FRAMES_PER_SECOND
from asr.batches import Choice, Example, Features
from asr.checkpoints import Checkpoint
from asr.faults import BadData, BadModel, BadParams, Diverged, Stopped, exit_with
from asr.model import Start
from asr.sources import fraction_of

CODE = tuple(
    """
    asr.audio asr.batches asr.checkpoints asr.decode asr.features asr.files asr.languages
    asr.model asr.shards asr.sources.__init__ asr.tokenizer asr.wer stages.train
    """.split()
)
BETAS = (0.9, 0.98)  # Radford et al. 2022, appendix F
FIXED_ROWS = 16  # of the batch whose loss shows that something was learnt
STEP_COLUMNS = ("step", "train_loss", "learning_rate", "validation_loss", "validation_wer")
PR_SET_PDEATHSIG = 1


@dataclass
class State:
    """All of a training that is not a tensor; it is JSON in the checkpoint."""

    step: int = 0
    best_step: int = 0
    best_wer: float | None = None
    loss_sum: float = 0.0
    loss_steps: int = 0
    fixed_loss: float | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)

    def row(self, step: int) -> dict[str, Any]:
        """The line of steps.csv for a step."""
        if not self.rows or self.rows[-1]["step"] != step:
            self.rows.append({"step": step})
        return self.rows[-1]

    def validated(self) -> bool:
        return any(row["step"] == self.step and "validation_wer" in row for row in self.rows[-2:])


class Signals:
    """SIGTERM and SIGINT are noted, and obeyed between two batches; the parent's death counts as SIGTERM."""

    def __init__(self) -> None:
        self.received = 0
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, self._note)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

    def _note(self, signum: int, _: Any) -> None:
        self.received = self.received or signum


class Interrupted(Exception):
    """Leaves an evaluation half-way; the training stops at its step."""


class Training:
    """One training: the model, its optimiser and schedule, the rows, and where it stands."""

    def __init__(self, start: Start, train: Features, validation: Features, given: params.Train, folder: Path, log: Path):
        self.given, self.folder, self.log, self.start = given, folder, log, start
        self.tokenizer: WhisperTokenizer = start.tokenizer
        self.prompt = tokenizer.prompt(start.model.generation_config)
        self.end = int(start.model.generation_config.eos_token_id)
        self.frames = model.window_seconds(start.model) * FRAMES_PER_SECOND
        self.train, self.validation = train, validation
        self.choice = self._choose(train)
        if not self.choice.examples:
            raise BadData(f"train: no row fits the model: {self.choice.left_out}; raise model.window_seconds")
        self.lengths = tuple(one.num_frames for one in self.choice.examples)
        self.validation_rows = validation_subset(validation.column("id"), given.eval_rows, given.seed)
        self.validation_durations = validation.column("duration")
        self.validation_texts = validation.column("text")
        chosen = set(self.validation_rows)
        self.validation_examples = [one for one in self._choose(validation).examples if one.index in chosen]
        self.learning_rate = model.learning_rate(given.learning_rate, start.model, start.name)
        if given.precision == "fp16" and model.device() == "cpu":
            raise BadParams("train.precision: got fp16, which needs a GPU; want bf16 or fp32")
        self.accelerator = Accelerator(mixed_precision="no" if given.precision == "fp32" else given.precision)
        optimizer = make_optimizer(start.model, self.learning_rate, given.weight_decay)
        self.schedule = get_scheduler(given.lr_scheduler_type, optimizer, given.warmup_steps, given.max_steps)
        self.model, self.optimizer = self.accelerator.prepare(start.model, optimizer)
        self.state = State()
        self.signals = Signals()

    def _choose(self, rows: Features) -> Choice:
        positions = self.start.model.config.max_target_positions
        return batches.choose(rows, self.tokenizer, len(self.prompt), positions, self.frames // FRAMES_PER_SECOND)

    @property
    def bare(self) -> WhisperForConditionalGeneration:
        return self.accelerator.unwrap_model(self.model)

    def batch(self, rows: Features, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        clips = [rows.log_mel(one.index) for one in examples]
        return batches.collate(clips, [one.text_ids for one in examples], self.prompt, self.end, self.frames)

    def micro_batches(self, step: int) -> list[dict[str, torch.Tensor]]:
        """The batches of one optimiser step."""
        size, parts = self.given.per_device_train_batch_size, self.given.gradient_accumulation_steps
        return [self.batch(self.train, [self.choice.examples[row] for row in rows]) for rows in self.step_rows(step, size, parts)]

    def step_rows(self, step: int, size: int, parts: int) -> list[list[int]]:
        return [batches.batch_rows(self.lengths, size, self.given.seed, step * parts + part) for part in range(parts)]

    def loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Cross entropy summed over the labels of a batch."""
        batch = {key: value.to(self.accelerator.device) for key, value in batch.items()}
        labels = batch.pop("labels")
        logits = self.model(**batch, use_cache=False).logits  # (B, L, V)
        return F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=batches.IGNORED, reduction="sum")

    def train_step(self, parts: list[dict[str, torch.Tensor]]) -> None:
        """One update, from gradients averaged over all labels of all parts."""
        num_labels = sum(int((part["labels"] != batches.IGNORED).sum()) for part in parts)
        self.model.train()
        total = 0.0
        for number, part in enumerate(parts):
            seed_dropout(self.given.seed, self.state.step, number)
            loss = self.loss(part) / num_labels
            total += loss.item()
            self.accelerator.backward(loss)
        norm = float(self.accelerator.clip_grad_norm_(self.model.parameters(), self.given.max_grad_norm))
        if not math.isfinite(total) or not (math.isfinite(norm) or self.given.precision == "fp16"):
            self._diverged(total, norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.schedule.step()
        self.state.step += 1
        self.state.loss_sum += total
        self.state.loss_steps += 1

    def _diverged(self, loss: float, norm: float) -> None:
        size, parts = self.given.per_device_train_batch_size, self.given.gradient_accumulation_steps
        ids = self.train.column("id")
        rows = [ids[self.choice.examples[row].index] for part in self.step_rows(self.state.step, size, parts) for row in part]
        raise Diverged(
            f"step {self.state.step + 1}: loss {loss}, gradient norm {norm}; stopped before the update; "
            f"lower train.learning_rate, or look at the rows {', '.join(rows)}"
        )

    def record_loss(self, rate: float) -> None:
        """The mean loss since the last line, and the rate of this step's update."""
        state = self.state
        row = state.row(state.step)
        row["train_loss"], row["learning_rate"] = state.loss_sum / state.loss_steps, rate
        state.loss_sum, state.loss_steps = 0.0, 0
        journal.append(
            self.log, "metrics", step=state.step, values={"train/loss": row["train_loss"], "train/learning_rate": row["learning_rate"]}
        )

    def obey(self, groups: Iterable[Any], _: int = 0) -> Iterator[Any]:
        """Pass through, unless we were told to stop."""
        for group in groups:
            if self.signals.received:
                raise Interrupted
            yield group

    @torch.inference_mode()
    def mean_loss(self, rows: Features, examples: Sequence[Example]) -> float:
        """Loss per label in evaluation mode; 0 labels have loss 0."""
        self.model.eval()
        total, count = 0.0, 0
        for group in self.obey(batches.in_groups(range(len(examples)), self.given.per_device_eval_batch_size)):
            batch = self.batch(rows, [examples[index] for index in group])
            total += float(self.loss(batch))
            count += int((batch["labels"] != batches.IGNORED).sum())
        return total / max(count, 1)

    def validate(self) -> None:
        """Loss and WER on the validation subset; keep the weights if they are the best so far."""
        loss = self.mean_loss(self.validation, self.validation_examples) if self.validation_examples else None
        scores = self.scores()
        state = self.state
        row = state.row(state.step)
        row["validation_loss"], row["validation_wer"] = loss, scores["wer"]
        if state.step and (state.best_wer is None or scores["wer"] < state.best_wer):
            state.best_step, state.best_wer = state.step, scores["wer"]
            checkpoints.save(self.folder, "best", Checkpoint(state.step, {"model": self._weights()}, {}))
        values = {"validation/wer": scores["wer"], "validation/cer": scores["cer"]}
        journal.append(self.log, "metrics", step=state.step, values=values if loss is None else {"validation/loss": loss, **values})
        shown = "unknown: no row fits the window" if loss is None else f"{loss:.4f}"
        print(f"step {state.step:,}: validation WER {scores['wer']:.4f}, CER {scores['cer']:.4f}, loss {shown}", flush=True)

    def scores(self) -> dict[str, float]:
        """WER and CER of the validation subset, decoded as `evaluate` decodes."""
        rows = self.validation_rows
        durations = [self.validation_durations[row] for row in rows]
        size, limit = self.given.per_device_eval_batch_size, self.bare.config.max_target_positions
        texts = decode.transcribe(
            self.bare, self.tokenizer, durations, lambda index: self.validation.log_mel(rows[index]), size, limit, self.obey
        )
        references = [wer.normalise(self.validation_texts[row]) for row in rows]
        return wer.error_rates(references, [wer.normalise(text) for text in texts])

    def _weights(self) -> dict[str, torch.Tensor]:
        return {name: value for name, value in self.bare.state_dict().items() if name != "proj_out.weight"}

    def save(self) -> None:
        """Write the checkpoint of this step."""
        moments = {
            f"{index}.{key}": torch.as_tensor(value)
            for index, values in self.optimizer.state_dict()["state"].items()
            for key, value in values.items()
        }
        scaler = self.accelerator.scaler
        state = {
            **vars(self.state),
            "schedule": {key: value for key, value in self.schedule.state_dict().items() if key != "lr_lambdas"},
            "scaler": scaler.state_dict() if scaler else None,
        }
        checkpoints.save(self.folder, "step", Checkpoint(self.state.step, {"model": self._weights(), "optimizer": moments}, state))
        checkpoints.keep_newest(self.folder, self.state.best_step or None)

    def resume(self) -> None:
        """Go on from the newest whole checkpoint, if there is one."""
        found = checkpoints.latest(self.folder)
        if found is None:
            return
        state = dict(found.state)
        schedule, scaler = state.pop("schedule"), state.pop("scaler")
        self.state = State(**state)
        self._load_weights(found.tensors["model"])
        packed = self.optimizer.state_dict()
        packed["state"] = {}
        for name, tensor in found.tensors["optimizer"].items():
            index, _, key = name.partition(".")
            packed["state"].setdefault(int(index), {})[key] = tensor
        for group, rate in zip(packed["param_groups"], schedule["_last_lr"], strict=True):
            group["lr"] = rate
        self.optimizer.load_state_dict(packed)
        self.schedule.load_state_dict({**self.schedule.state_dict(), **schedule})
        if scaler and self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(scaler)
        print(f"resumed at step {self.state.step} of {self.given.max_steps}", flush=True)

    def _load_weights(self, weights: dict[str, torch.Tensor]) -> None:
        self.bare.load_state_dict(weights, strict=False)

    def load_best(self) -> None:
        """Put the best validation weights into the model."""
        self._load_weights(checkpoints.load(self.folder, "best", self.state.best_step).tensors["model"])

    def stop(self) -> None:
        """Save where we stand and leave."""
        self.save()
        journal.append(self.log, "end", status="KILLED")
        raise Stopped(
            self.signals.received, f"stopped by a signal at step {self.state.step} of {self.given.max_steps}; dvc repro goes on from there"
        )

    def run(self) -> None:
        """Train to the last step, from wherever we stand."""
        try:
            self._run()
        except Interrupted:
            self.stop()

    def _run(self) -> None:
        given, state = self.given, self.state
        fixed = [self.choice.examples[row] for row in batches.batch_rows(self.lengths, FIXED_ROWS, given.seed, 0)]
        if state.fixed_loss is None:
            state.fixed_loss = self.mean_loss(self.train, fixed)
        began, first = time.monotonic(), state.step
        with ThreadPoolExecutor(1) as reader:
            coming = reader.submit(self.micro_batches, state.step)
            while True:
                last = state.step == given.max_steps
                if (last or state.step % given.eval_steps == 0) and not state.validated():
                    self.validate()
                if last or (state.step % given.save_steps == 0 and state.step > first):
                    self.save()
                if last:
                    break
                if self.signals.received:
                    raise Interrupted
                parts, coming = coming.result(), reader.submit(self.micro_batches, state.step + 1)
                rate = float(self.schedule.get_last_lr()[0])
                self.train_step(parts)
                if state.step % given.logging_steps == 0 or state.step == given.max_steps:
                    self.record_loss(rate)
                    self._say(began, first)
        self.fixed = fixed

    def _say(self, began: float, first: int) -> None:
        state, row = self.state, self.state.rows[-1]
        pace = (state.step - first) / (time.monotonic() - began)
        left = (self.given.max_steps - state.step) / pace
        print(
            f"step {state.step:,} of {self.given.max_steps:,}: loss {row['train_loss']:.4f}, "
            f"rate {row['learning_rate']:.2e}, {pace:.1f} steps/s, {left:,.0f} s left",
            flush=True,
        )


def seed_dropout(seed: int, step: int, part: int) -> None:
    """Make dropout (torch) and SpecAugment (numpy's global generator) a function of where we stand."""
    words = np.random.SeedSequence([seed, step, part]).generate_state(2)
    torch.manual_seed(int(words[0]))
    np.random.seed(int(words[1]))


def make_optimizer(whisper: torch.nn.Module, rate: float, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW; weight decay spares biases and norms."""
    named = [(name, value) for name, value in whisper.named_parameters() if value.requires_grad]
    groups = [
        {"params": [value for _, value in named if value.ndim > 1], "weight_decay": weight_decay},
        {"params": [value for _, value in named if value.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rate, betas=BETAS, fused=True)


def validation_subset(ids: list[str], count: int, seed: int) -> list[int]:
    """A fixed choice of validation rows by a hash of their ids, in the corpus's order."""
    chosen = sorted(range(len(ids)), key=lambda row: fraction_of(f"{seed}:{ids[row]}"))[:count]
    return sorted(chosen)


def start_model(given: params.Params, train: Features) -> Start:
    """The model before training: built from the training texts, or loaded; prompt and regularisation set."""
    chosen = given.model
    if chosen.name == model.SCRATCH:
        shape = chosen.scratch.model_dump()
        shape["window_seconds"] = chosen.window_seconds or shape["window_seconds"]
        made = tokenizer.from_texts(train.column("text"), shape["vocab_size"])
        start = Start(model.build(shape, made, train.num_mel_bins, given.train.seed), made, model.SCRATCH, None)
    else:
        start = model.load(chosen.name, chosen.revision, chosen.window_seconds)
    model.check_mel_bins(start.model, train.num_mel_bins)
    model.set_prompt(start.model, given.language, chosen.task)
    regularise(start.model.config, chosen)
    return start


def regularise(config: WhisperConfig, chosen: params.Model) -> None:
    """Dropout and masks; layers read them from the config when they are built, so each is set where it is used too."""
    for name in ("dropout", "attention_dropout", "activation_dropout", "apply_spec_augment"):
        setattr(config, name, getattr(chosen, name))
    for name in ("time_prob", "time_length", "time_min_masks", "feature_prob", "feature_length", "feature_min_masks"):
        setattr(config, f"mask_{name}", getattr(chosen, f"mask_{name}"))


def apply_dropout(whisper: WhisperForConditionalGeneration) -> None:
    """Hand the config's dropouts to the layers, which copied theirs when they were built."""
    config = whisper.config
    for module in whisper.modules():
        for name, value in (("dropout", config.dropout), ("activation_dropout", config.activation_dropout)):
            if isinstance(getattr(module, name, None), float):
                is_attention = hasattr(module, "k_proj")
                setattr(module, name, config.attention_dropout if is_attention and name == "dropout" else value)


def check_prompt(start: Start) -> None:
    """Refuse to train labels that decoding would not be prompted for.

    Raises:
        BadModel: the prompt of the labels differs from that of plain `generate()`.
    """
    labels, generated = tokenizer.prompt(start.model.generation_config), decode.generation_prompt(start.model)
    if labels != generated:
        names = [" ".join(start.tokenizer.convert_ids_to_tokens(ids)) for ids in (labels, generated)]
        raise BadModel(f"labels start with {names[0]}, generation with {names[1]}; mend the model's generation_config.json")


def identity(given: params.Params, start: Start, train: Path, validation: Path) -> dict[str, Any]:
    """All that decides the weights; its hash is the training's fingerprint."""
    chosen = given.model.model_dump(exclude=set() if start.name == model.SCRATCH else {"scratch"})
    return {
        "params": params.flat({"model": {**chosen, "language": given.language, "name": start.name}, "train": given.train.model_dump()}),
        "data": shards.data_hash(train, validation),
        "start": start.provenance(),
        "code": files.code_hash(*CODE),
    }


def say_if_longer(folder: Path, known: dict[str, Any]) -> None:
    """Where only `max_steps` differs from a finished training: this one starts anew; say how to go on instead."""
    for path in sorted(folder.parent.glob("*/identity.json")):
        other = files.read_json(path)
        if other.get("finished") and _without_steps(other["identity"]) == _without_steps(known) and path.parent != folder:
            done, wanted = (one["params"]["train.max_steps"] for one in (other["identity"], known))
            print(
                f"a training of {done} steps with the same params is finished; its schedule has ended, so {wanted} steps train anew. "
                "To go on from it: make keep NAME=mine, then -S model.name=models/kept/mine",
                flush=True,
            )


def _without_steps(known: dict[str, Any]) -> dict[str, Any]:
    return {**known, "params": {key: value for key, value in known["params"].items() if key != "train.max_steps"}}


def steps_csv(rows: list[dict[str, Any]]) -> str:
    """steps.csv; a value that was not measured at a step stays empty."""
    table = io.StringIO()
    writer = csv.DictWriter(table, STEP_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return table.getvalue()


def movement(start: dict[str, torch.Tensor], end: dict[str, torch.Tensor]) -> dict[str, Any]:
    """How far the weights went, as a share of where they were, and the tensors that stayed."""
    names = [name for name in start if name != model.POSITIONS]
    squares = [(float((end[name] - start[name]).square().sum()), float(start[name].square().sum())) for name in names]
    stayed = [name for name, (moved, _) in zip(names, squares, strict=True) if moved == 0.0]
    share = math.sqrt(sum(moved for moved, _ in squares) / sum(size for _, size in squares))
    return {"weights_moved": share, "tensors": len(names), "tensors_unmoved": len(stayed), "unmoved": ", ".join(stayed)}


def summary_of(training: Training, moved: dict[str, Any]) -> dict[str, Any]:
    """What a person should know of a training: reports/train/summary.json."""
    state = training.state
    return {
        "best_step": state.best_step,
        "best_validation_wer": state.best_wer,
        "learning_rate": training.learning_rate,
        "parameters": training.bare.num_parameters(),
        "window_seconds": training.frames // FRAMES_PER_SECOND,
        "rows_trained": len(training.choice.examples),
        "rows_left_out": training.choice.left_out,
        "fixed_batch_loss_before": state.fixed_loss,
        "fixed_batch_loss_after": training.mean_loss(training.train, training.fixed),
        **moved,
    }


def print_summary(summary: dict[str, Any]) -> None:
    before, after = summary["fixed_batch_loss_before"], summary["fixed_batch_loss_after"]
    verdict = "fell" if after < before else "DID NOT FALL"
    print(
        f"best step {summary['best_step']:,}: validation WER {summary['best_validation_wer']:.4f}; weights moved by "
        f"{summary['weights_moved']:.1%}, {summary['tensors_unmoved']} of {summary['tensors']} tensors stayed where they were; "
        f"loss on one fixed batch {verdict}: {before:.4f} -> {after:.4f}"
    )
    for reason, count in summary["rows_left_out"].items():
        if count:
            print(f"left out: {count} training rows, {reason}")


def run(train: Path, validation: Path, out: Path, reports: Path, given: params.Params) -> None:
    """Train and write models/finetuned and reports/train."""
    rows = Features(train)
    start = start_model(given, rows)
    check_prompt(start)
    known = identity(given, start, train, validation)
    fingerprint = files.hash_of(known)[:32]
    folder, log = files.cache("checkpoints", fingerprint), journal.path_of(fingerprint)
    with checkpoints.held(folder):
        say_if_longer(folder, known)
        files.write_json(folder / "identity.json", {"identity": known, "finished": False})
        before = {name: value.clone() for name, value in start.model.state_dict().items()}
        apply_dropout(start.model)
        training = Training(start, rows, Features(validation), given.train, folder, log)
        training.resume()
        all_params = params.flat(given.model_dump(exclude={"evaluate"}))
        journal.append(log, "begin", fingerprint=fingerprint, name=run_name(fingerprint), params=all_params, tags=tags())
        follower = tracking.Follower(log)
        try:
            training.run()
            training.load_best()
            summary = summary_of(training, movement(before, training.bare.state_dict()))
            write(training, out, reports, summary, {**known, "params_all": all_params}, fingerprint)
            journal.append(log, "end", status="FINISHED")
            files.write_json(folder / "identity.json", {"identity": known, "finished": True})
        except Diverged:
            journal.append(log, "end", status="FAILED")
            raise
        finally:
            follower.finish()
    print_summary(summary)


def write(training: Training, out: Path, reports: Path, summary: dict[str, Any], known: dict[str, Any], fingerprint: str) -> None:
    """The outs of this stage, the model last."""
    files.write_text(reports / "steps.csv", steps_csv(training.state.rows))
    files.write_json(reports / "summary.json", summary)
    files.write_json(
        reports / "run.json",
        {
            "fingerprint": fingerprint,
            "params_hash": files.hash_of(known["params"]),
            "data_hash": known["data"],
            "code_hash": known["code"],
            "start": known["start"],
            "best_step": training.state.best_step,
            "seed": training.given.seed,
            "params": known["params_all"],
        },
    )
    with files.new_folder(out) as draft:
        model.save(training.bare, training.tokenizer, draft)


def run_name(fingerprint: str) -> str:
    return os.environ.get("DVC_EXP_NAME") or f"repro-{fingerprint[:8]}"


def tags() -> dict[str, str]:
    """Where DVC says we are: the experiment, and the commit it started from."""
    names = {"dvc.experiment": "DVC_EXP_NAME", "dvc.baseline": "DVC_EXP_BASELINE_REV"}
    return {tag: os.environ[name] for tag, name in names.items() if os.environ.get(name)}


def main() -> None:
    train, validation, out, reports = stage.paths(__doc__, "train", "validation", "out", "reports")
    given = params.load()
    with stage.timing(reports):
        run(train, validation, out, reports, given)


if __name__ == "__main__":
    exit_with(main)
