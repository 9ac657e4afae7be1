"""The table that ends `make repro`, and the README's table of results. Reads reports only; 50 ms.

earshot results           # the present workspace
earshot results --kept    # reports/kept/*.json as a Markdown table
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from asr import dvc_hashes, paths
from asr.errors import DataError, exit_with
from asr.evaluation.cautions import cautions
from asr.evaluation.decoded import settings_text
from asr.evaluation.table import START
from asr.runs import failed_checks
from asr.runs.tested import (
    LOCK_ERRORS,
    TEST_IT,
    read_lock,
    stages_of_model,
    why_other_data,
    why_unknown,
    why_untested,
)
from asr.runtime import command
from asr.storage import files

STAGES = ("download", "stats", "chunk", "featurize", "train", "evaluate")
NEXT_STEPS = (
    (
        "dvc exp run -S train.max_steps=200 -S train.learning_rate=3e-4",
        "try an idea (dvc exp show lists them)",
    ),
    ("make mlflow", "WER per step of every run"),
    ("make keep NAME=base", "keep this model, to fine-tune it further"),
)


def interval(scores: dict[str, Any]) -> str:
    """WER with its 95 % interval."""
    return f"{scores['wer']:.4f} ({scores['wer_low']:.4f} to {scores['wer_high']:.4f})"


def summary(root: Path) -> str:
    """WER before and after, how the test was decoded, hours, seconds per stage, what to try next.

    Args:
        root: the repository.
    Raises:
        DataError: nothing was evaluated yet, or not the present model.
    """
    reports = root / paths.REPORTS
    if not (reports / "evaluate" / "metrics.json").is_file():
        raise DataError(f"{reports}/evaluate/metrics.json: not there; run dvc repro")
    if reason := why_untested(root):
        raise DataError(f"{reason}; {TEST_IT}")
    metrics = files.read_json(reports / "evaluate" / "metrics.json")
    lines = []
    if START in metrics["models"]:
        lines.append(f"WER of the start     {interval(metrics['models'][START])}")
    lines += [
        f"WER after training   {interval(metrics)}   "
        f"95 % interval by {metrics['ci_unit']}, {metrics['rows']:,} test utterances",
    ]
    for name, detail in failed_checks.in_workspace(root).items():
        lines.append(f"CHECK FAILED         {name}: {detail}")
    lines += [f"note                 {sentence}" for sentence in cautions(metrics["models"])]
    facts = {
        "decoding": settings_text(metrics),
        "audio": hours(root),
        "time": times(root),
        "not known": why_unknown(root),
    }
    lines += [f"{name:21}{text}" for name, text in facts.items() if text]
    lines += ["next:", *(f"  {line:66}# {purpose}" for line, purpose in NEXT_STEPS)]
    return "\n".join(lines)


def hours(root: Path) -> str:
    """Hours of each split, as text; empty where the statistics are, or may be, of other data."""
    if why_other_data(root) or why_unknown(root):
        return ""
    durations = files.read_json(root / paths.STATS)["durations"]
    return ", ".join(
        f"{split_durations['hours']:.2f} h {split}"
        for split, split_durations in durations.items()
        if split_durations["count"]
    )


def times(root: Path) -> str:
    """Seconds of each stage that led to the model, as text; empty where none is known.

    A stage that ran again since, for other data, is left out. If DVC restored a stage instead of
    running it, the time is that of the run it restored.
    """
    seconds = {
        stage: files.read_json(root / path)["seconds"]
        for stage, path in timings(root).items()
        if (root / path).is_file()
    }
    if not seconds:
        return ""
    by_stage = ", ".join(f"{stage} {value:.0f} s" for stage, value in seconds.items())
    return f"{by_stage}; in all {sum(seconds.values()):.0f} s"


def timings(root: Path) -> dict[str, str]:
    """The reports that tell how long the stages took which led to the model, by stage.

    Without a dvc.lock nothing speaks against any.
    """
    found = {stage: f"{paths.REPORTS}/{stage}/timing.json" for stage in STAGES}
    try:
        lock = read_lock(root, root / "dvc.lock")
        known = stages_of_model(lock)
    except FileNotFoundError:
        return found
    except LOCK_ERRORS:
        return {}
    return {
        stage: path
        for stage, path in found.items()
        if stage in known
        and (root / path).is_file()
        and lock.written.get(path) == dvc_hashes.of_file(root / path)
    }


def kept_table(folder: Path) -> str:
    """One line per kept model."""
    lines = [
        "| model | corpus | start | window | steps "
        "| WER before | WER after (95 % interval) | CER |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for path in sorted(folder.glob("*.json")):
        report = files.read_json(path)
        metrics = report["metrics"]
        before = metrics["models"].get(START, {}).get("wer")
        columns = [
            path.stem,
            report["corpus"],
            report["start"]["name"],
            f"{report['window_seconds']} s",
            f"{report['best_step']:,} of {report['max_steps']:,}",
            "" if before is None else f"{before:.4f}",
            interval(metrics),
            f"{metrics['cer']:.4f}",
        ]
        lines.append(f"| {' | '.join(columns)} |")
    return "\n".join(lines)


def main() -> None:
    parser = command.parser(__doc__)
    parser.add_argument("--kept", action="store_true", help="all kept models, as a Markdown table")
    kept = parser.parse_args().kept
    print(kept_table(Path(paths.KEPT_REPORTS)) if kept else summary(paths.root()))


if __name__ == "__main__":
    exit_with(main)
