"""The training loop: one optimizer and one schedule over all rows, resumed bit for bit.

Order, dropout and masks are a pure function of (seed, step), so a checkpoint holds only weights,
AdamW's moments and a few numbers. With several processes (`accelerate launch`) each computes its
share of the micro-batches of a step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

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

FIXED_ROWS = 16  # size of the batch whose loss is measured before and after training
# The values of an evaluation, and their names in the journal.
EVALUATION_METRICS = {
    "loss": metrics.VALIDATION_LOSS,
    "wer": metrics.VALIDATION_WER,
    "cer": metrics.VALIDATION_CER,
    "wer_bounded": metrics.VALIDATION_WER_BOUNDED,
    "cer_bounded": metrics.VALIDATION_CER_BOUNDED,
}


class Training:
    """One training.

    params: the params of the `train` section.
    folder: folder of its checkpoints.
    record: `record(kind, **values)` writes an event to the journal.
    train: rows of the training split; usable_rows: those that fit the model.
    examples: the training examples of one epoch; lengths: their lengths in frames.
    model: the model as accelerate wraps it; unwrapped: the Whisper itself.
    state: everything that changes, except tensors.
    """

    def __init__(
        self,
        start: Start,
        train: FeatureRows,
        validation: FeatureRows,
        params: schema.Train,
        folder: Path,
        record: Callable[..., None],
    ):
        self.params = params
        self.folder = folder
        self.record = record
        self.train = train
        self.collator = Collator(start.model, start.tokenizer)
        self.usable_rows = self.collator.choose(train)
        if not self.usable_rows.rows:
            raise DataError(
                f"train: no row fits the model: {self.usable_rows.left_out}; "
                "raise model.window_seconds"
            )
        self.examples = self._epoch_examples()
        self.lengths = tuple(window.num_frames for window in self.examples)
        self.validation = Validation(
            validation,
            self.collator,
            params.eval_rows,
            params.seed,
            params.per_device_eval_batch_size,
        )
        self.learning_rate = optimization.learning_rate(params.learning_rate, start)
        self.accelerator = optimization.accelerator_for(params.precision, start.model)
        self.model, self.optimizer, self.schedule = self._prepare(start.model)
        self.state = TrainingState()
        self.signals = Signals()

    def _prepare(self, whisper: WhisperForConditionalGeneration) -> tuple[Any, Any, Any]:
        """Model and optimizer as accelerate wraps them, and the schedule of the learning rate."""
        params = self.params
        if params.gradient_checkpointing:
            with loader.quiet():
                whisper.activation_checkpointing_enable()
        optimizer = optimization.make_optimizer(whisper, self.learning_rate, params.weight_decay)
        schedule = get_scheduler(
            params.lr_scheduler_type, optimizer, params.warmup_steps, params.max_steps
        )
        return *self.accelerator.prepare(whisper, optimizer), schedule

    @property
    def unwrapped(self) -> WhisperForConditionalGeneration:
        return self.accelerator.unwrap_model(self.model)

    # The data of a step

    def _epoch_examples(self) -> list[TrainingExample]:
        params = self.params
        speech = epochs.speech_examples(
            self.train,
            self.usable_rows.rows,
            self.collator,
            params.timestamp_share,
            params.pack_to_window,
            params.seed,
        )
        return speech + epochs.silence_examples(
            len(speech), self.collator, params.timestamp_share, params.no_speech_share, params.seed
        )

    def padding(self) -> str:
        """The share of frames that are padding, as a line for the log."""
        row_lengths = [row.num_frames for row in self.usable_rows.rows]
        alone = epochs.padding(row_lengths, self.collator.frames)
        packed = epochs.padding(self.lengths, self.collator.frames)
        line = f"padding: {alone:.0%} of frames"
        return f"{line}, packed {packed:.0%}" if self.params.pack_to_window else line

    def step_examples(self, step: int) -> list[list[TrainingExample]]:
        """The examples of one optimizer step, by micro-batch, for all processes."""
        params = self.params
        count = params.gradient_accumulation_steps * self.accelerator.num_processes
        rows = [
            batches.batch_rows(
                self.lengths, params.per_device_train_batch_size, params.seed, step * count + number
            )
            for number in range(count)
        ]
        return [[self.examples[row] for row in micro_batch] for micro_batch in rows]

    def my_micro_batches(self) -> range:
        """Numbers of the micro-batches of a step that this process computes."""
        num_processes = self.accelerator.num_processes
        count = self.params.gradient_accumulation_steps * num_processes
        return range(self.accelerator.process_index, count, num_processes)

    def micro_batches(self, step: int) -> list[dict[str, torch.Tensor]]:
        """This process's micro-batches of one optimizer step."""
        examples = self.step_examples(step)
        return [
            self.collator.batch(self.train, examples[number], (self.params.seed, step))
            for number in self.my_micro_batches()
        ]

    def fixed_batch(self) -> list[TrainingExample]:
        """The examples whose loss is measured before and after training."""
        rows = batches.batch_rows(self.lengths, FIXED_ROWS, self.params.seed, 0)
        return [self.examples[row] for row in rows]

    # One step

    def train_step(self, micro_batches: list[dict[str, torch.Tensor]]) -> None:
        """Update with the mean gradient over the labels of all micro-batches and processes.

        Raises:
            Diverged: the loss or the gradient is not finite; nothing was updated.
            ModelError: there is no memory for a single row.
        """
        total = self.gradients(micro_batches)
        norm = float(
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.params.max_grad_norm)
        )
        loss = float(self.accelerator.reduce(total, "sum"))
        # With fp16 the gradient may overflow: the scaler then skips the update and scales less.
        norm_is_sound = math.isfinite(norm) or self.params.precision == "fp16"
        if not math.isfinite(loss) or not norm_is_sound:
            self._diverged(loss, norm)
        rate = float(self.optimizer.param_groups[0]["lr"])
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.schedule.step()
        state = self.state
        state.step += 1
        state.loss_sum += loss
        state.loss_steps += 1
        state.first_rate = rate if state.first_rate is None else state.first_rate
        state.highest_rate = max(state.highest_rate, rate)

    def gradients(self, micro_batches: list[dict[str, torch.Tensor]]) -> torch.Tensor:
        """Compute the gradients of the loss per label; return this process's share of that loss.

        If any process runs out of memory, all of them halve their micro-batches and repeat the
        step.

        Raises:
            ModelError: there is no memory for a single row.
        """
        total, out_of_memory = self._backward(micro_batches)
        while self._in_any_process(out_of_memory):
            self._halve_micro_batches()
            total, out_of_memory = self._backward(micro_batches)
        if self.accelerator.num_processes > 1:
            optimization.average_gradients(self.model)
        return total

    def _backward(self, micro_batches: list[dict[str, torch.Tensor]]) -> tuple[torch.Tensor, bool]:
        """Sum this process's gradients; return its share of the loss, and if memory ran out."""
        num_labels = sum(
            len(example.text_ids) + 1  # the end token
            for examples in self.step_examples(self.state.step)
            for example in examples
        )
        self.model.train()
        total = torch.zeros((), device=self.accelerator.device)
        try:
            for number, micro_batch in zip(self.my_micro_batches(), micro_batches, strict=True):
                # A micro-batch has at most 2 ** halvings parts; each part has its own seed.
                first_part = number << self.state.halvings
                parts = memory.split_batch(micro_batch, self.micro_batch_rows())
                for index, part in enumerate(parts):
                    regularization.seed(self.params.seed, self.state.step, first_part + index)
                    total += self._backward_part(part, num_labels)
        except Exception as error:
            if not memory.ran_out(error):
                raise
            memory.forgo_onednn(error)
            return total, True
        return total, False

    def _backward_part(self, part: dict[str, torch.Tensor], num_labels: int) -> torch.Tensor:
        """Add the gradients of some rows; return their share of the loss per label."""
        with self.accelerator.no_sync(self.model):
            loss = self.loss(part) / num_labels
            share = loss.detach()
            # We need the sum of the processes' gradients, but they will be averaged.
            self.accelerator.backward(loss * self.accelerator.num_processes)
        return share

    def loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Cross entropy summed over a batch's labels; in training mode with label smoothing."""
        device = self.accelerator.device
        # A copy, because SpecAugment masks the features in place.
        batch = {key: value.to(device, copy=True) for key, value in batch.items()}
        labels = batch.pop("labels")
        logits = self.model(**batch, use_cache=False).logits  # (B, L, V)
        smoothing = self.params.label_smoothing_factor if self.model.training else 0.0
        return batches.summed_loss(logits, labels, smoothing)

    def micro_batch_rows(self) -> int:
        """Rows in one forward pass: the number in params, halved each time memory ran out."""
        return -(-self.params.per_device_train_batch_size // (1 << self.state.halvings))

    def _in_any_process(self, condition: bool) -> bool:
        """Whether a condition holds in at least one of the processes."""
        if self.accelerator.num_processes == 1:
            return condition
        flag = torch.tensor(float(condition), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag, "sum"))

    def _halve_micro_batches(self) -> None:
        """From this step on, pass half as many rows through the model at once.

        An update still takes the same rows, and its loss is still the mean over all their labels.

        Raises:
            ModelError: it is a single row already.
        """
        self.optimizer.zero_grad(set_to_none=True)
        clear_device_cache(garbage_collection=True)
        rows, step = self.micro_batch_rows(), self.state.step + 1
        if rows == 1:
            raise ModelError(
                f"step {step}: no memory for a single row; take a smaller model or window, "
                "or set train.gradient_checkpointing"
            )
        self.state.halvings += 1
        self.accelerator.print(
            f"step {step}: out of memory with {rows} rows at once; "
            f"from here on {self.micro_batch_rows()} at once, "
            "and the same rows make an update as before",
            flush=True,
        )

    def _diverged(self, loss: float, norm: float) -> None:
        ids = self.train.column("id")
        names = [
            ids[row]
            for examples in self.step_examples(self.state.step)
            for example in examples
            for row in example.rows
        ]
        raise Diverged(
            f"step {self.state.step + 1}: loss {loss}, gradient norm {norm}; "
            "stopped before the update; "
            f"lower train.learning_rate, or look at the rows {', '.join(names)}"
        )

    # Measuring

    def record_loss(self, rate: float) -> None:
        """Record the mean loss since it was last recorded, and the rate of this update."""
        state = self.state
        row = state.row(state.step)
        row["train_loss"] = state.loss_sum / state.loss_steps
        row["learning_rate"] = rate
        state.loss_sum = 0.0
        state.loss_steps = 0
        self._record_metrics({metrics.TRAIN_LOSS: row["train_loss"], metrics.LEARNING_RATE: rate})

    def _record_metrics(self, values: dict[str, float]) -> None:
        if self.accelerator.is_main_process:
            self.record("metrics", step=self.state.step, values=values)

    def _record_progress(self, kind: str) -> None:
        """Record that the training was resumed, or that all its steps are done."""
        if self.accelerator.is_main_process:
            self.record(kind, step=self.state.step)

    def mean_loss(self, rows: FeatureRows, examples: Sequence[TrainingExample]) -> float:
        """Loss per label in evaluation mode."""
        self.model.eval()
        return mean_loss(
            self.loss,
            rows,
            list(examples),
            self.collator,
            self.params.per_device_eval_batch_size,
            self.accelerator,
            self.until_signal,
        )

    def hypotheses(self) -> list[str]:
        """Decode the validation rows; return the text of each."""
        self.model.eval()
        return self.validation.hypotheses(
            lora.merged(self.unwrapped), self.accelerator, self.until_signal
        )

    def until_signal(self, groups: Iterable[Any], count: int = 0) -> Iterator[Any]:
        """Yield the groups; after a signal raise `Interrupted` before the next one.

        With several processes all groups are yielded: if one process stopped, the others would
        wait for it.
        """
        if self.accelerator.num_processes > 1:
            return iter(groups)
        return self.signals.until_signal(groups, count)

    def validate(self) -> None:
        """Evaluate the weights of this step; save them if they may be needed."""
        state = self.state
        loss, rates = self.evaluate()
        state.add_evaluation(loss, rates["wer"], self.validation.score({**rates, "loss": loss}))
        if state.step in self.weights_to_keep():
            self._write("weights", Checkpoint(state.step, {"model": self._weights()}, {}))
        self._record_evaluation(loss, rates)
        loss_text = "unknown: no row fits the window" if loss is None else f"{loss:.4f}"
        self.accelerator.print(
            f"step {state.step:,}: {rates_text(rates)}, loss {loss_text}", flush=True
        )

    def evaluate(self) -> tuple[float | None, dict[str, float]]:
        """Loss and error rates on the validation subset; no loss if no row fits the window."""
        validation, loss = self.validation, None
        if validation.examples:
            loss = self.mean_loss(validation.rows, validation.examples)
        return loss, validation.scores(self.hypotheses())

    def _record_evaluation(self, loss: float | None, rates: dict[str, float]) -> None:
        measured = {} if loss is None else {"loss": loss}
        values = {EVALUATION_METRICS[name]: value for name, value in (measured | rates).items()}
        if self.state.best_step:
            values[metrics.VALIDATION_BEST_STEP] = self.state.best_step
        self._record_metrics(values)

    # Checkpoints

    def weights_to_keep(self) -> list[int]:
        """The best step so far, and those whose weights would be averaged if training ended now."""
        averaged = self._averaged_steps()
        return sorted({self.state.best_step, *averaged} - {0})

    def _averaged_steps(self) -> list[int]:
        return self.state.averaged(self.params.average_weights, self.params.average_count)

    def _weights(self) -> dict[str, torch.Tensor]:
        """The trained weights, without the output layer, which is the decoder's embedding."""
        weights = self.unwrapped.state_dict()
        return lora.trained({name: value for name, value in weights.items() if name != loader.TIED})

    def _write(self, stem: str, checkpoint: Checkpoint) -> None:
        """Write a checkpoint in the main process, while the others wait."""
        if self.accelerator.is_main_process:
            checkpoints.save(self.folder, stem, checkpoint)
        self.accelerator.wait_for_everyone()

    def save(self) -> None:
        """Write the checkpoint of this step, and delete those no longer needed."""
        schedule = self.schedule.state_dict()
        schedule.pop("lr_lambdas", None)  # functions, which are made anew from the params
        scaler = self.accelerator.scaler
        state = {
            **vars(self.state),
            "schedule": schedule,
            "scaler": scaler.state_dict() if scaler else None,
        }
        tensors = {
            "model": self._weights(),
            "optimizer": optimization.moments(self.optimizer),
        }
        self._write("step", Checkpoint(self.state.step, tensors, state))
        if self.accelerator.is_main_process:
            checkpoints.keep_newest(self.folder, self.weights_to_keep())

    def resume(self) -> None:
        """Continue from the newest undamaged checkpoint, if there is one."""
        checkpoint = checkpoints.latest(self.folder)
        if checkpoint is None:
            return
        state = dict(checkpoint.state)
        schedule, scaler = state.pop("schedule"), state.pop("scaler")
        self.state = TrainingState(**state)
        self.load_weights(checkpoint.tensors["model"])
        optimization.load_moments(
            self.optimizer, checkpoint.tensors["optimizer"], schedule["_last_lr"]
        )
        self.schedule.load_state_dict({**self.schedule.state_dict(), **schedule})
        if scaler and self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(scaler)
        self._record_progress("resumed")
        self.accelerator.print(
            f"resumed at step {self.state.step} of {self.params.max_steps}", flush=True
        )

    def load_weights(self, weights: dict[str, torch.Tensor]) -> None:
        """Load weights into the model; it keeps its own where `weights` has none."""
        self.unwrapped.load_state_dict(weights, strict=False)

    def load_best(self) -> list[int]:
        """Load the best weights into the model; return the steps they come from.

        They are those of the best step, or the mean over several steps if its score is better.
        """
        steps = self._averaged_steps()
        if len(steps) > 1:
            self.load_weights(self.best_weights(steps))
            loss, rates = self.evaluate()
            self.accelerator.print(
                f"mean of the weights of steps {steps}: {rates_text(rates)}", flush=True
            )
            score = self.validation.score({**rates, "loss": loss})
            if self.state.is_best(score):
                self.state.best_score, self.state.best_wer = score, rates["wer"]
                return steps
        steps = [self.state.best_step]
        self.load_weights(self.best_weights(steps))
        return steps

    def best_weights(self, steps: list[int]) -> dict[str, torch.Tensor]:
        """The mean of the weights that were saved at these steps."""
        saved = [checkpoints.load(self.folder, "weights", step).tensors["model"] for step in steps]
        return saved[0] if len(saved) == 1 else optimization.mean_weights(saved)

    # From the first step to the last

    def run(self, enough: Callable[[], bool] = lambda: False) -> None:
        """Train from the present step to the last, or until `enough` returns true.

        Raises:
            Stopped: by a signal, after a checkpoint.
            Diverged: a loss or gradient is not finite.
            ModelError: there is no memory for a single row.
        """
        try:
            self._run(enough)
        except Interrupted:
            self.stop()

    def _run(self, enough: Callable[[], bool]) -> None:
        state = self.state
        if state.fixed_loss is None:
            state.fixed_loss = self.mean_loss(self.train, self.fixed_batch())
        began, first_step = time.monotonic(), state.step
        saved_halvings = state.halvings
        with ThreadPoolExecutor(1) as reader:
            next_batches = reader.submit(self.micro_batches, state.step)
            while True:
                if self._validation_is_due():
                    self.validate()
                if self._save_is_due(first_step) or state.halvings > saved_halvings:
                    self.save()
                    saved_halvings = state.halvings
                if self.ended() or enough():
                    break
                if self._stop_requested():
                    raise Interrupted
                micro_batches = next_batches.result()
                # The batches of the next step are read while this step is computed.
                next_batches = reader.submit(self.micro_batches, state.step + 1)
                rate = float(self.schedule.get_last_lr()[0])
                self.train_step(micro_batches)
                if self._loss_is_due():
                    self.record_loss(rate)
                    self._print_progress(began, first_step)
        if self.ended():
            self._record_progress("trained")
        if state.step < self.params.max_steps and self.ended():
            self.accelerator.print(
                f"stopped early: {self.params.early_stopping_patience} evaluations "
                "were no better than the best",
                flush=True,
            )

    def ended(self) -> bool:
        """Whether all steps are done, or early stopping ends the training."""
        return self.state.step == self.params.max_steps or self.state.patience_spent(
            self.params.early_stopping_patience
        )

    def _validation_is_due(self) -> bool:
        at_step = self.ended() or self.state.step % self.params.eval_steps == 0
        return at_step and not self.state.validated()

    def _save_is_due(self, first_step: int) -> bool:
        step = self.state.step
        return self.ended() or (step % self.params.save_steps == 0 and step > first_step)

    def _loss_is_due(self) -> bool:
        step = self.state.step
        return step % self.params.logging_steps == 0 or step == self.params.max_steps

    def _print_progress(self, began: float, first_step: int) -> None:
        step, max_steps = self.state.step, self.params.max_steps
        row = self.state.rows[-1]
        steps_per_second = (step - first_step) / (time.monotonic() - began)
        seconds_left = (max_steps - step) / steps_per_second
        self.accelerator.print(
            f"step {step:,} of {max_steps:,}: loss {row['train_loss']:.4f}, "
            f"rate {row['learning_rate']:.2e}, {pace_text(steps_per_second)}, "
            f"{seconds_left:,.0f} s left",
            flush=True,
        )

    def _stop_requested(self) -> bool:
        """Whether any of the processes got a signal; all of them stop at the same step."""
        if self.accelerator.num_processes == 1:
            return bool(self.signals.received)
        mine = torch.tensor([self.signals.received], device=self.accelerator.device)
        self.signals.received = int(self.accelerator.gather(mine).max())
        return bool(self.signals.received)

    def stop(self) -> NoReturn:
        """Save a checkpoint, record the end in the journal, and raise `Stopped`.

        Raises:
            Stopped: always.
        """
        self.save()
        self.leave()

    def leave(self) -> NoReturn:
        """Record the end in the journal, and raise `Stopped`; the last checkpoint stays.

        Raises:
            Stopped: always.
        """
        if self.accelerator.is_main_process:
            self.record("end", status="KILLED", step=self.state.step)
        raise Stopped(
            self.signals.received,
            f"stopped by a signal at step {self.state.step} of {self.params.max_steps}; "
            "dvc repro goes on from there",
        )


def pace_text(steps_per_second: float) -> str:
    """The pace of a training; that of a slow one as seconds a step."""
    if steps_per_second < 1:
        return f"{1 / steps_per_second:.1f} s/step"
    return f"{steps_per_second:.1f} steps/s"


def rates_text(rates: dict[str, float]) -> str:
    """The error rates of an evaluation for the log; the bounded ones only where they differ."""
    texts = []
    for name in ("wer", "cer"):
        plain, bounded = rates[name], rates[f"{name}_bounded"]
        text = f"{name.upper()} {plain:.4f}"
        texts.append(text if bounded == plain else f"{text} (bounded {bounded:.4f})")
    return f"validation {', '.join(texts)}"
