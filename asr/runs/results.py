"""The table that ends `make repro`, and the README's table of results. Reads reports only; costs 50
ms.

earshot results           # the present workspace
earshot results --kept    # reports/kept/*.json as a Markdown table
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from asr import paths
from asr.errors import DataError, exit_with
from asr.runtime import command
from asr.storage import files

STAGES = ("download", "stats", "chunk", "featurize", "train", "evaluate")
NEXT = """next:
  dvc exp run -S train.max_steps=200 -S train.learning_rate=3e-4    # try an idea (dvc exp show lists them)
  make mlflow                                                       # WER per step of every run
  make keep NAME=base                                               # keep this model, to fine-tune it further"""


def interval(scores: dict[str, Any]) -> str:
    return f"{scores['wer']:.4f} ({scores['wer_low']:.4f} to {scores['wer_high']:.4f})"


def summary(reports: Path) -> str:
    """WER before and after, hours, seconds per stage, what to try next.

    Raises:
        BadData: nothing was evaluated yet.
    """
    if not (reports / "evaluate" / "metrics.json").is_file():
        raise DataError(f"{reports}/evaluate/metrics.json: not there; run dvc repro")
    metrics, stats = (
        files.read_json(reports / "evaluate" / "metrics.json"),
        files.read_json(reports / "stats" / "stats.json"),
    )
    models = metrics["models"]
    hours = ", ".join(
        f"{one['hours']:.2f} h {split}" for split, one in stats["durations"].items() if one["count"]
    )
    lines = [f"WER of the start     {interval(models['start'])}"] if "start" in models else []
    lines += [
        f"WER after training   {interval(metrics)}   95 % interval by {metrics['ci_unit']}, {metrics['rows']:,} test utterances"
    ]
    return "\n".join(
        [*lines, f"audio                {hours}", f"time                 {times(reports)}", NEXT]
    )


def times(reports: Path) -> str:
    """Seconds per stage; a stage that was restored rather than run keeps the time of the run it was
    restored from.
    """
    known = {name: reports / name / "timing.json" for name in STAGES}
    seconds = {
        name: files.read_json(path)["seconds"] for name, path in known.items() if path.is_file()
    }
    return (
        ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())
        + f"; in all {sum(seconds.values()):.0f} s"
    )


def kept_table(folder: Path) -> str:
    """One line per kept model."""
    lines = [
        "| model | corpus | start | window | steps | WER before | WER after (95 % interval) | CER |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for path in sorted(folder.glob("*.json")):
        one = files.read_json(path)
        before = one["metrics"]["models"].get("start", {}).get("wer")
        lines.append(
            f"| {path.stem} | {one['corpus']} | {one['start']['name']} | {one['window_seconds']} s "
            f"| {one['best_step']:,} of {one['max_steps']:,} "
            f"| {'' if before is None else f'{before:.4f}'} | {interval(one['metrics'])} | {one['metrics']['cer']:.4f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = command.parser(__doc__)
    parser.add_argument("--kept", action="store_true", help="all kept models, as a Markdown table")
    kept = parser.parse_args().kept
    print(kept_table(Path(paths.KEPT_REPORTS)) if kept else summary(Path(paths.REPORTS)))


if __name__ == "__main__":
    exit_with(main)
