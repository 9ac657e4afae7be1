"""The training loop: one optimiser and one schedule over all rows, resumed bit for bit after any
stop.

Order, dropout and masks are a pure function of (seed, step), so that what a checkpoint holds is
weights, AdamW's moments and a few numbers. With several processes (`accelerate launch`) each takes
its micro-batches of the same global batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from accelerate.utils.memory import clear_device_cache
from transformers import WhisperForConditionalGeneration, get_scheduler

from asr import metrics
from asr.errors import DataError, Diverged, ModelError, Stopped
from asr.features import FeatureRows
from asr.model import loader, lora, regularization
from asr.model.loader import Start
from asr.params import schema
from asr.runtime.signals import Interrupted, Signals
from asr.training import batches, checkpoints, epochs, memory, optimization
from asr.training.batches import Collator
from asr.training.checkpoints import Checkpoint
from asr.training.examples import TrainingExample
from asr.training.state import TrainingState
from asr.training.validation import Validation, mean_loss

FIXED_ROWS = 16  # of the batch whose loss shows that something was learnt


class Training:
    """One training: the model, its optimiser and schedule, the rows, and where it stands.

    record: `record(kind, **values)` takes what happens, for the journal.
    """

    def __init__(
        self,
        start: Start,
        train: FeatureRows,
        validation: FeatureRows,
        given: schema.Train,
        folder: Path,
        record: Callable[..., None],
    ):
        self.given, self.folder, self.record, self.train = given, folder, record, train
        self.collator = Collator(start.model, start.tokenizer)
        self.choice = self.collator.choose(train)
        if not self.choice.examples:
            raise DataError(
                f"train: no row fits the model: {self.choice.left_out}; raise model.window_seconds"
            )
        self.windows = self._windows()
        self.lengths = tuple(one.num_frames for one in self.windows)
        self.validation = Validation(
            validation, self.collator, given.eval_rows, given.seed, given.per_device_eval_batch_size
        )
        self.learning_rate = optimization.learning_rate(given.learning_rate, start)
        self.accelerator = optimization.accelerator_for(given.precision, start.model)
        if given.gradient_checkpointing:
            with loader.quiet():
                start.model.activation_checkpointing_enable()
        optimizer = optimization.make_optimizer(start.model, self.learning_rate, given.weight_decay)
        self.schedule = get_scheduler(
            given.lr_scheduler_type, optimizer, given.warmup_steps, given.max_steps
        )
        self.model, self.optimizer = self.accelerator.prepare(start.model, optimizer)
        self.state = TrainingState()
        self.signals = Signals()

    @property
    def bare(self) -> WhisperForConditionalGeneration:
        return self.accelerator.unwrap_model(self.model)

    def _windows(self) -> list[TrainingExample]:
        """What one epoch teaches."""
        given, chosen = self.given, self.choice.examples
        found = epochs.speech_examples(
            self.train,
            chosen,
            self.collator,
            given.timestamp_share,
            given.pack_to_window,
            given.seed,
        )
        return found + epochs.silence_examples(
            len(found), self.collator, given.timestamp_share, given.no_speech_share, given.seed
        )

    def padding(self) -> str:
        """How much of what is computed is padding."""
        alone, packed = (
            [one.num_frames for one in rows] for rows in (self.choice.examples, self.windows)
        )
        shares = [epochs.padding(lengths, self.collator.frames) for lengths in (alone, packed)]
        return f"padding: {shares[0]:.0%} of frames" + (
            f", packed {shares[1]:.0%}" if self.given.pack_to_window else ""
        )

    def step_examples(self, step: int) -> list[list[TrainingExample]]:
        """What one optimiser step teaches, by micro-batch: those of all processes."""
        size, parts = (
            self.given.per_device_train_batch_size,
            self.given.gradient_accumulation_steps * self.accelerator.num_processes,
        )
        rows = [
            batches.batch_rows(self.lengths, size, self.given.seed, step * parts + part)
            for part in range(parts)
        ]
        return [[self.windows[row] for row in part] for part in rows]

    def my_parts(self) -> range:
        """Which micro-batches of a step this process takes."""
        world, parts = self.accelerator.num_processes, self.given.gradient_accumulation_steps
        return range(self.accelerator.process_index, parts * world, world)

    def micro_batches(self, step: int) -> list[dict[str, torch.Tensor]]:
        """This process's batches of one optimiser step."""
        examples = self.step_examples(step)
        return [
            self.collator.batch(self.train, examples[part], (self.given.seed, step))
            for part in self.my_parts()
        ]

    def loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Cross entropy summed over the labels of a batch; smoothed while training, if params say
        so.
        """
        batch = {
            key: value.to(self.accelerator.device, copy=True) for key, value in batch.items()
        }  # SpecAugment masks in place
        labels = batch.pop("labels")
        logits = self.model(**batch, use_cache=False).logits  # (B, L, V)
        smoothing = self.given.label_smoothing_factor if self.model.training else 0.0
        return batches.summed_loss(logits, labels, smoothing)

    def micro_batch_rows(self) -> int:
        """Rows that go through the model at once: those that params name, halved wherever memory
        ran out.
        """
        return -(-self.given.per_device_train_batch_size // (1 << self.state.halvings))

    def gradients(self, parts: list[dict[str, torch.Tensor]]) -> torch.Tensor:
        """Gradients of the loss per label, over all parts of all processes; gives this process's
        share of that loss.

        Where memory runs out in one of the processes, all halve their micro-batches and do the step
        again.

        Raises:
            BadModel: there is no memory for a single row.
        """
        total, full = self._backward(parts)
        while self._anywhere(full):
            self._halve()
            total, full = self._backward(parts)
        if self.accelerator.num_processes > 1:
            optimization.average_gradients(self.model)
        return total

    def _backward(self, parts: list[dict[str, torch.Tensor]]) -> tuple[torch.Tensor, bool]:
        """Add up this process's gradients; also tells whether memory ran out on the way."""
        num_labels = sum(
            len(one.text_ids) + 1 for part in self.step_examples(self.state.step) for one in part
        )
        self.model.train()
        total = torch.zeros((), device=self.accelerator.device)
        try:
            for number, part in zip(self.my_parts(), parts, strict=True):
                for place, batch in enumerate(memory.parts(part, self.micro_batch_rows())):
                    regularization.seed(
                        self.given.seed, self.state.step, (number << self.state.halvings) + place
                    )
                    with self.accelerator.no_sync(self.model):
                        loss = self.loss(batch) / num_labels
                        total += loss.detach()
                        self.accelerator.backward(
                            loss * self.accelerator.num_processes
                        )  # processes' gradients are averaged
        except Exception as error:
            if not memory.ran_out(error):
                raise
            memory.forgo_onednn(error)
            return total, True
        return total, False

    def _anywhere(self, here: bool) -> bool:
        """Whether it is so in any of the processes."""
        if self.accelerator.num_processes == 1:
            return here
        return bool(
            self.accelerator.reduce(
                torch.tensor(float(here), device=self.accelerator.device), "sum"
            )
        )

    def _halve(self) -> None:
        """From this step on, half as many rows at once; the same rows make an update, and their
        labels the mean.
        """
        self.optimizer.zero_grad(set_to_none=True)
        clear_device_cache(garbage_collection=True)
        rows, step = self.micro_batch_rows(), self.state.step + 1
        if rows == 1:
            raise ModelError(
                f"step {step}: no memory for a single row; take a smaller model or window, or set train.gradient_checkpointing"
            )
        self.state.halvings += 1
        self.accelerator.print(
            f"step {step}: out of memory with {rows} rows at once; from here on {self.micro_batch_rows()} at once, "
            "and the same rows make an update as before",
            flush=True,
        )

    def train_step(self, parts: list[dict[str, torch.Tensor]]) -> None:
        """One update, from gradients averaged over all labels of all parts of all processes."""
        total = self.gradients(parts)
        norm = float(
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.given.max_grad_norm)
        )
        value = float(self.accelerator.reduce(total, "sum"))
        if not math.isfinite(value) or not (math.isfinite(norm) or self.given.precision == "fp16"):
            self._diverged(value, norm)
        rate = float(self.optimizer.param_groups[0]["lr"])
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.schedule.step()
        state = self.state
        state.step += 1
        state.loss_sum += value
        state.loss_steps += 1
        state.first_rate = rate if state.first_rate is None else state.first_rate
        state.highest_rate = max(state.highest_rate, rate)

    def _diverged(self, loss: float, norm: float) -> None:
        ids = self.train.column("id")
        rows = [
            ids[row]
            for part in self.step_examples(self.state.step)
            for one in part
            for row in one.rows
        ]
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
        self._tell({metrics.TRAIN_LOSS: row["train_loss"], metrics.LEARNING_RATE: rate})

    def _tell(self, values: dict[str, float]) -> None:
        if self.accelerator.is_main_process:
            self.record("metrics", step=self.state.step, values=values)

    def mean_loss(self, rows: FeatureRows, windows: Sequence[TrainingExample]) -> float:
        """Loss per label in evaluation mode."""
        self.model.eval()
        size = self.given.per_device_eval_batch_size
        return mean_loss(
            self.loss, rows, list(windows), self.collator, size, self.accelerator, self.obey
        )

    def heard(self) -> list[str]:
        """What the model hears in each validation row."""
        self.model.eval()
        return self.validation.hypotheses(lora.merged(self.bare), self.accelerator, self.obey)

    def obey(self, groups: Iterable[Any], count: int = 0) -> Iterator[Any]:
        """Let an evaluation be left half-way, unless other processes would wait for its end."""
        return (
            self.signals.obey(groups, count)
            if self.accelerator.num_processes == 1
            else iter(groups)
        )

    def validate(self) -> None:
        """Loss and WER on the validation subset; keep the weights that may be wanted at the end."""
        validation, state = self.validation, self.state
        loss = self.mean_loss(validation.rows, validation.windows) if validation.windows else None
        scores = validation.scores(self.heard())
        row = state.row(state.step)
        row["validation_loss"], row["validation_wer"] = loss, scores["wer"]
        if state.step and (state.best_wer is None or scores["wer"] < state.best_wer):
            state.best_step, state.best_wer = state.step, scores["wer"]
        if state.step in self.wanted():
            self._write("weights", Checkpoint(state.step, {"model": self._weights()}, {}))
        values = {metrics.VALIDATION_WER: scores["wer"], metrics.VALIDATION_CER: scores["cer"]}
        self._tell(values if loss is None else {metrics.VALIDATION_LOSS: loss, **values})
        shown = "unknown: no row fits the window" if loss is None else f"{loss:.4f}"
        self.accelerator.print(
            f"step {state.step:,}: validation WER {scores['wer']:.4f}, CER {scores['cer']:.4f}, loss {shown}",
            flush=True,
        )

    def wanted(self) -> list[int]:
        """Steps whose weights are the best, or would be averaged."""
        return sorted(
            {
                self.state.best_step,
                *self.state.averaged(self.given.average_weights, self.given.average_count),
            }
            - {0}
        )

    def _weights(self) -> dict[str, torch.Tensor]:
        return lora.trained(
            {
                name: value
                for name, value in self.bare.state_dict().items()
                if name != "proj_out.weight"
            }
        )

    def _write(self, stem: str, checkpoint: Checkpoint) -> None:
        """One process writes; the others wait for it."""
        if self.accelerator.is_main_process:
            checkpoints.save(self.folder, stem, checkpoint)
        self.accelerator.wait_for_everyone()

    def save(self) -> None:
        """Write the checkpoint of this step, and drop what nobody will ask for."""
        moments = {
            f"{index}.{key}": torch.as_tensor(value)
            for index, values in self.optimizer.state_dict()["state"].items()
            for key, value in values.items()
        }
        scaler = self.accelerator.scaler
        state = {
            **vars(self.state),
            "schedule": {
                key: value
                for key, value in self.schedule.state_dict().items()
                if key != "lr_lambdas"
            },
            "scaler": scaler.state_dict() if scaler else None,
        }
        self._write(
            "step",
            Checkpoint(self.state.step, {"model": self._weights(), "optimizer": moments}, state),
        )
        if self.accelerator.is_main_process:
            checkpoints.keep_newest(self.folder, self.wanted())

    def resume(self) -> None:
        """Go on from the newest whole checkpoint, if there is one."""
        found = checkpoints.latest(self.folder)
        if found is None:
            return
        state = dict(found.state)
        schedule, scaler = state.pop("schedule"), state.pop("scaler")
        self.state = TrainingState(**state)
        self.load_weights(found.tensors["model"])
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
        self.accelerator.print(
            f"resumed at step {self.state.step} of {self.given.max_steps}", flush=True
        )

    def load_weights(self, weights: dict[str, torch.Tensor]) -> None:
        self.bare.load_state_dict(weights, strict=False)

    def load_best(self) -> list[int]:
        """Put the best weights into the model: those of one step, or an average that is better;
        returns its steps.
        """
        steps = self.state.averaged(self.given.average_weights, self.given.average_count)
        if len(steps) > 1:
            self.load_weights(self.best_weights(steps))
            scores = self.validation.scores(self.heard())
            self.accelerator.print(
                f"mean of the weights of steps {steps}: validation WER {scores['wer']:.4f}",
                flush=True,
            )
            if self.state.best_wer is None or scores["wer"] < self.state.best_wer:
                self.state.best_wer = scores["wer"]
                return steps
        steps = [self.state.best_step]
        self.load_weights(self.best_weights(steps))
        return steps

    def best_weights(self, steps: list[int]) -> dict[str, torch.Tensor]:
        """The mean of the weights that were kept at these steps."""
        found = [self._kept(step) for step in steps]
        return found[0] if len(found) == 1 else optimization.mean_weights(found)

    def _kept(self, step: int) -> dict[str, torch.Tensor]:
        return checkpoints.load(self.folder, "weights", step).tensors["model"]

    def _told_to_stop(self) -> bool:
        """Whether any of the processes was; all of them stop at the same step."""
        if self.accelerator.num_processes == 1:
            return bool(self.signals.received)
        received = self.accelerator.gather(
            torch.tensor([self.signals.received], device=self.accelerator.device)
        ).max()
        self.signals.received = int(received)
        return bool(received)

    def stop(self) -> None:
        """Save where we stand and leave."""
        self.save()
        if self.accelerator.is_main_process:
            self.record("end", status="KILLED")
        raise Stopped(
            self.signals.received,
            f"stopped by a signal at step {self.state.step} of {self.given.max_steps}; dvc repro goes on from there",
        )

    def fixed_batch(self) -> list[TrainingExample]:
        """The windows whose loss is measured before and after."""
        return [
            self.windows[row]
            for row in batches.batch_rows(self.lengths, FIXED_ROWS, self.given.seed, 0)
        ]

    def run(self, enough: Callable[[], bool] = lambda: False) -> None:
        """Train to the last step, from wherever we stand, or until it is enough.

        Raises:
            Stopped: by a signal, after a checkpoint.
            Diverged: a loss or gradient is no number.
            BadModel: there is no memory for a single row.
        """
        try:
            self._run(enough)
        except Interrupted:
            self.stop()

    def ended(self) -> bool:
        """Whether all steps are done, or patience is spent."""
        return self.state.step == self.given.max_steps or self.state.patience_spent(
            self.given.early_stopping_patience
        )

    def _run(self, enough: Callable[[], bool]) -> None:
        given, state = self.given, self.state
        if state.fixed_loss is None:
            state.fixed_loss = self.mean_loss(self.train, self.fixed_batch())
        began, first, halvings = time.monotonic(), state.step, state.halvings
        with ThreadPoolExecutor(1) as reader:
            coming = reader.submit(self.micro_batches, state.step)
            while True:
                if (self.ended() or state.step % given.eval_steps == 0) and not state.validated():
                    self.validate()
                if (
                    self.ended()
                    or (state.step % given.save_steps == 0 and state.step > first)
                    or state.halvings > halvings
                ):
                    self.save()
                    halvings = state.halvings
                if self.ended() or enough():
                    break
                if self._told_to_stop():
                    raise Interrupted
                parts, coming = coming.result(), reader.submit(self.micro_batches, state.step + 1)
                rate = float(self.schedule.get_last_lr()[0])
                self.train_step(parts)
                if state.step % given.logging_steps == 0 or state.step == given.max_steps:
                    self.record_loss(rate)
                    self._say(began, first)
        if state.step < given.max_steps and self.ended():
            self.accelerator.print(
                f"stopped early: {given.early_stopping_patience} evaluations brought no better WER",
                flush=True,
            )

    def _say(self, began: float, first: int) -> None:
        state, row = self.state, self.state.rows[-1]
        pace = (state.step - first) / (time.monotonic() - began)
        left = (self.given.max_steps - state.step) / pace
        self.accelerator.print(
            f"step {state.step:,} of {self.given.max_steps:,}: loss {row['train_loss']:.4f}, "
            f"rate {row['learning_rate']:.2e}, {pace:.1f} steps/s, {left:,.0f} s left",
            flush=True,
        )
