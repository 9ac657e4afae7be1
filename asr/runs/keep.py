"""Keep the present model where no stage deletes it.

The model goes to models/kept/NAME. Its scores and provenance go to reports/kept/NAME.json, and what
it heard in the test to reports/kept/NAME/utterances.parquet, so that a clone can compare with it.

earshot keep NAME      # or: make keep NAME=base-sv
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from asr import dvc_hashes, paths
from asr.errors import DataError, ParamsError, exit_with
from asr.runs import failed_checks, revision_facts, revisions
from asr.runs.tested import TEST_IT, read_lock, why_other_data, why_unknown, why_untested
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
    params = run["params"] | interval_params()
    return {
        "corpus": files.read_json(root / paths.RAW / "manifest.json")["name"],
        "start": run["start"],
        "fingerprint": run["fingerprint"],
        "best_step": run["best_step"],
        "best_validation_wer": summary["best_validation_wer"],
        "max_steps": run["params"]["train.max_steps"],
        "window_seconds": summary["window_seconds"],
        "params": {key: value for key, value in params.items() if key not in PATH_PARAMS},
        "failed_checks": failed_checks.in_workspace(root),
        "utterances": dvc_hashes.of_file(root / paths.UTTERANCES),
        "metrics": _without_speed(metrics),
    }


def interval_params() -> dict[str, int]:
    """The params of `evaluate` that its intervals are drawn with."""
    resamples, seed = revision_facts.bootstrap_params(revisions.HERE)
    return {"evaluate.bootstrap_resamples": resamples, "evaluate.seed": seed}


def _without_speed(scores: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in scores.items() if key not in SPEEDS}


def keep(root: Path, name: str) -> None:
    """Copy the model and write its provenance.

    Raises:
        ParamsError: the name is not a plain file name.
        DataError: there is no evaluated model, or the scores or the corpus are, or may be, of
            another one.
    """
    if not NAME.fullmatch(name):
        raise ParamsError(
            f"NAME: got {name!r}, want letters, digits, dots and dashes: make keep NAME=base-sv"
        )
    if not (root / paths.MODEL).is_dir() or not (root / paths.METRICS).is_file():
        raise DataError("there is no evaluated model here; run dvc repro")
    refuse(why_untested(root))
    if reason := why_other_data(root):
        raise DataError(f"this model's corpus is not here: {reason}; run dvc repro")
    if reason := why_unknown(root):
        raise DataError(reason)
    folder = f"{paths.KEPT_MODELS}/{name}"
    kept_reports = root / paths.KEPT_REPORTS
    try:
        report = provenance(root)
        with files.new_folder(kept_reports / name) as draft:
            shutil.copyfile(root / paths.UTTERANCES, draft / Path(paths.UTTERANCES).name)
            with files.new_folder(root / folder) as model:
                shutil.copytree(root / paths.MODEL, model, dirs_exist_ok=True)
                refuse(why_untested(root) or why_another(root, model))  # a stage may have started
    except FileNotFoundError as error:
        raise DataError(f"{error.filename}: not there; run dvc repro") from None
    files.write_json(kept_reports / f"{name}.json", report)
    for check, detail in report["failed_checks"].items():
        print(f"CHECK FAILED in its training: {check}: {detail}")
    print(f"kept as {folder}; go on from it with -S model.name={folder}")


def why_another(root: Path, model: Path) -> str:
    """Why a folder does not hold the model that dvc.lock knows; empty if it does.

    Without a dvc.lock nothing speaks against it.
    """
    path = root / "dvc.lock"
    known = read_lock(root, path).written.get(paths.MODEL) if path.is_file() else None
    if known in (None, dvc_hashes.of_folder(model)):
        return ""
    return f"{paths.MODEL} is not the one that dvc.lock knows"


def refuse(reason: str) -> None:
    """Refuse to keep, if there is a reason."""
    if reason:
        raise DataError(f"{reason}; {TEST_IT}")


def main() -> None:
    parser = command.parser(__doc__)
    parser.add_argument(
        "name", nargs="?", default="", metavar="NAME", help="the folder under models/kept"
    )
    keep(paths.root(), parser.parse_args().name)


if __name__ == "__main__":
    exit_with(main)
