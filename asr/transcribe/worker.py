"""The process that decodes for the dashboard: it alone holds models.

    python -m asr.transcribe.worker      # started by `asr.transcribe.job_queue`

It reads orders from standard input and writes events to standard output, one JSON object a line. It
ends when the server that started it has ended, and after a quarter of an hour without work, to free
its memory.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from asr.audio.sample_file import Cancelled, SampleFile
from asr.errors import DataError, UserError
from asr.transcribe.job_queue import CANCELLED, DONE
from asr.whisper import HOP, SAMPLE_RATE

if TYPE_CHECKING:
    from asr.decoding.recognizer import Recognizer

IDLE_SECONDS = 900.0
KEPT_MODELS = 2  # models kept in memory; a visitor may compare two


def serve(orders: TextIO, send: Callable[[dict[str, Any]], None]) -> None:
    """Run one job after the other, until there was none for IDLE_SECONDS.

    Args:
        orders: lines of JSON, {"job": number, ...} or {"cancel": number}.
        send: called with each event.
    """
    waiting: queue.Queue[dict[str, Any]] = queue.Queue()
    cancelled: set[int] = set()
    threading.Thread(target=_read_orders, args=(orders, waiting, cancelled), daemon=True).start()
    models: OrderedDict[str, Loaded] = OrderedDict()
    while True:
        try:
            order = waiting.get(timeout=IDLE_SECONDS)
        except queue.Empty:
            return

        def report(number: int = order["job"], **event: Any) -> None:
            send({"job": number, **event})

        try:
            run_job(order, models, cancelled, report)
            report(state=DONE)
        except Cancelled:
            report(state=CANCELLED)
        except UserError as error:
            report(fault=str(error))
        except OSError as error:
            what = f"{type(error).__name__}: {error.strerror}"
            report(fault=f"{what}; try again, or bring the recording again")


def _read_orders(orders: TextIO, waiting: queue.Queue[dict[str, Any]], cancelled: set[int]) -> None:
    """Read orders until the server closes the pipe, then end the process at once."""
    for line in orders:
        order = json.loads(line)
        if "cancel" in order:
            cancelled.add(order["cancel"])
        else:
            waiting.put(order)
    os._exit(0)


def run_job(
    order: dict[str, Any],
    models: OrderedDict[str, Loaded],
    cancelled: set[int],
    report: Callable[..., None],
) -> None:
    """Transcribe one stretch of a recording, reporting each segment.

    Raises:
        Cancelled: the job's number is in `cancelled`.
    """
    report(doing="loading the model")
    from asr.transcribe import recognizer

    def on_progress(moment: float) -> None:
        if order["job"] in cancelled:
            raise Cancelled
        report(moment=moment)

    begin, end = order["start"], order["end"]
    loaded = _model(order["model"], models)
    report(weights=loaded.weights, settings=loaded.settings, wer=loaded.wer)
    sound = SampleFile(Path(order["sound"]))
    on_progress(begin)
    if min(end, sound.duration) - begin < HOP / SAMPLE_RATE:
        raise DataError("there is no sound in this part; choose another")
    report(doing="listening")
    began = time.monotonic()
    work = recognizer.begin(loaded.recognizer, sound, begin, min(end, sound.duration))
    (prompt,) = recognizer.choose_prompts([work], order["language"], order["task"])
    report(
        language=prompt.language,
        language_source=prompt.source,
        language_probability=prompt.probability,
        doubt=prompt.doubt,
    )
    for segment in work.segments(on_progress):
        report(segment=asdict(segment), seconds=time.monotonic() - began)
    times = None if work.trust.holds else f"Times: {work.trust.text}."
    report(seconds=time.monotonic() - began, times=times)


class Loaded(NamedTuple):
    """A model in memory, which weights and settings it has, in words, and its WER with these."""

    recognizer: Recognizer
    weights: str
    settings: str
    wer: float | None


def _model(name: str, models: OrderedDict[str, Loaded]) -> Loaded:
    """Load a model, or take it from memory if neither its files nor its settings have changed."""
    from asr.transcribe import models as names
    from asr.transcribe import recognizer, settings

    folder = names.resolve(name)
    chosen = settings.choose(name)
    weights = sorted(folder.glob("*.safetensors"))
    stamps = [[file.stat().st_mtime_ns, file.stat().st_ino] for file in weights]
    wer = settings.tested_wer(name, chosen)
    key = json.dumps([name, str(folder), chosen.text, wer, *stamps])
    if key not in models:
        ready = recognizer.load(folder, chosen)
        models[key] = Loaded(ready, names.weights_text(name, folder), chosen.text, wer)
    models.move_to_end(key)
    while len(models) > KEPT_MODELS:
        models.popitem(last=False)
    return models[key]


def main() -> None:
    """Send events to standard output, and what libraries print there to standard error."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    os.nice(5)  # the pages come first

    def send(event: dict[str, Any]) -> None:
        try:
            out.write(json.dumps(event, ensure_ascii=False) + "\n")
            out.flush()
        except BrokenPipeError:  # the server has ended; `_read_orders` may not know yet
            os._exit(0)

    serve(sys.stdin, send)


if __name__ == "__main__":
    main()
