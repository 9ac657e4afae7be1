"""Keep the present model where no stage deletes it.

The model goes to models/kept/NAME, its scores and provenance go to reports/kept/NAME.json.

earshot keep NAME      # or: make keep NAME=base-sv
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from asr import paths
from asr.errors import DataError, ParamsError, exit_with
from asr.runs.tested import TEST_IT, why_untested
from asr.runtime import command
from asr.storage import files

SPEEDS = ("rtfx",)  # scores that differ from run to run
PATH_PARAMS = ("download.path", "model.name")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def provenance(root: Path) -> dict[str, Any]:
    """Origin, params and scores of the model, without paths, dates or speeds.

    So the same model gives the same file.

    Raises:
        FileNotFoundError: a stage has not written its report.
    """
    run = files.read_json(root / paths.RUN)
    summary = files.read_json(root / paths.SUMMARY)
    metrics = files.read_json(root / paths.METRICS)
    metrics["models"] = {name: _without_speed(scores) for name, scores in metrics["models"].items()}
    return {
        "corpus": files.read_json(root / paths.RAW / "manifest.json")["name"],
        "start": run["start"],
        "fingerprint": run["fingerprint"],
        "best_step": run["best_step"],
        "max_steps": run["params"]["train.max_steps"],
        "window_seconds": summary["window_seconds"],
        "params": {key: value for key, value in run["params"].items() if key not in PATH_PARAMS},
        "metrics": _without_speed(metrics),
    }


def _without_speed(scores: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in scores.items() if key not in SPEEDS}


def keep(root: Path, name: str) -> None:
    """Copy the model and write its provenance.

    Raises:
        ParamsError: the name is not a plain file name.
        DataError: there is no evaluated model, or the scores are of another one.
    """
    if not NAME.fullmatch(name):
        raise ParamsError(
            f"NAME: got {name!r}, want letters, digits, dots and dashes: make keep NAME=base-sv"
        )
    if not (root / paths.MODEL).is_dir() or not (root / paths.METRICS).is_file():
        raise DataError("there is no evaluated model here; run dvc repro")
    if reason := why_untested(root):
        raise DataError(f"{reason}; {TEST_IT}")
    try:
        report = provenance(root)
    except FileNotFoundError as error:
        raise DataError(f"{error.filename}: not there; run dvc repro") from None
    folder = f"{paths.KEPT_MODELS}/{name}"
    with files.new_folder(root / folder) as draft:
        shutil.copytree(root / paths.MODEL, draft, dirs_exist_ok=True)
    files.write_json(root / paths.KEPT_REPORTS / f"{name}.json", report)
    print(f"kept as {folder}; go on from it with -S model.name={folder}")


def main() -> None:
    parser = command.parser(__doc__)
    parser.add_argument(
        "name", nargs="?", default="", metavar="NAME", help="the folder under models/kept"
    )
    keep(paths.root(), parser.parse_args().name)


if __name__ == "__main__":
    exit_with(main)
