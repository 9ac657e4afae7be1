"""The process that decodes for the dashboard: it alone imports torch and holds models.

    python -m asr.transcribe.worker      # orders in on standard input, events out, one JSON line each; `asr.transcribe.job_queue` starts it

It leaves when the server that started it is gone, and after a quarter of an hour without work, to
give its memory back.
"""

from __future__ import annotations

import copy
import json
import os
import queue
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from asr import paths
from asr.audio.sample_file import Cancelled, SampleFile
from asr.errors import DataError, UserError
from asr.transcribe.job_queue import CANCELLED, DONE
from asr.whisper import HOP, SAMPLE_RATE

IDLE_SECONDS = 900.0
KEPT_MODELS = 2  # in memory: two may be compared


def serve(orders: TextIO, tell: Callable[[dict[str, Any]], None]) -> None:
    """The decoding process: do one job after the other, until nobody asks any more."""
    waiting: queue.Queue[dict[str, Any]] = queue.Queue()
    cancelled: set[int] = set()
    threading.Thread(target=_take, args=(orders, waiting, cancelled), daemon=True).start()
    models: OrderedDict[str, Any] = OrderedDict()
    while True:
        try:
            order = waiting.get(timeout=IDLE_SECONDS)
        except queue.Empty:
            return
        number = order["job"]
        try:
            _do(
                order,
                models,
                cancelled,
                lambda number=number, **event: tell({"job": number, **event}),
            )
            tell({"job": number, "state": DONE})
        except Cancelled:
            tell({"job": number, "state": CANCELLED})
        except UserError as fault:
            tell({"job": number, "fault": str(fault)})
        except OSError as error:
            tell(
                {
                    "job": number,
                    "fault": f"{type(error).__name__}: {error.strerror}; try again, or bring the recording again",
                }
            )


def _take(orders: TextIO, waiting: queue.Queue[dict[str, Any]], cancelled: set[int]) -> None:
    """Read orders until the desk is gone, and then go too, whatever is being done."""
    for line in orders:
        order = json.loads(line)
        if "cancel" in order:
            cancelled.add(order["cancel"])
        else:
            waiting.put(order)
    os._exit(0)


def _do(
    order: dict[str, Any],
    models: OrderedDict[str, Any],
    cancelled: set[int],
    tell: Callable[..., None],
) -> None:
    tell(doing="loading the model")
    from asr.transcribe import recognizer  # torch and transformers, 4 s, in this process alone

    def say(moment: float) -> None:
        if order["job"] in cancelled:
            raise Cancelled
        tell(moment=moment)

    start, sound = _model(order["model"], models), SampleFile(Path(order["sound"]))
    say(order["start"])
    if min(order["end"], sound.duration) - order["start"] < HOP / SAMPLE_RATE:
        raise DataError("there is no sound in this part; choose another")
    tell(doing="listening")
    own = start.model.generation_config
    start.model.generation_config = copy.deepcopy(
        own
    )  # what one job asks for is not the next one's
    try:
        language = recognizer.choose_prompt(
            start, order["language"], order["task"], sound, order["start"], order["end"]
        )
        tell(language=language)
        for segment in recognizer.transcribe(start, sound, order["start"], order["end"], say):
            tell(segment=asdict(segment))
    finally:
        start.model.generation_config = own


def _model(name: str, models: OrderedDict[str, Any]) -> Any:
    """A model, from memory where its files have not changed since."""
    from asr.transcribe import recognizer

    where = recognizer.resolve_model(name)
    weights = sorted(paths.resolve(where).glob("*.safetensors"))
    key = json.dumps([where, *([path.stat().st_mtime_ns, path.stat().st_ino] for path in weights)])
    if key not in models:
        models[key] = recognizer.load(where)
    models.move_to_end(key)
    while len(models) > KEPT_MODELS:
        models.popitem(last=False)
    return models[key]


def main() -> None:
    """Events go to the standard output that we were given; what libraries print goes to standard
    error.
    """
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    os.nice(5)  # pages come first

    def tell(event: dict[str, Any]) -> None:
        out.write(json.dumps(event, ensure_ascii=False) + "\n")
        out.flush()

    serve(sys.stdin, tell)


if __name__ == "__main__":
    main()
