"""Evaluation of a tiny model: the contracts of its files, paired verdicts, the start rebuilt, and
text that stays text.
"""

from __future__ import annotations

import html
import math
import re
import shutil
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr import wer
from asr.decoding.recognizer import Recognizer
from asr.engines import openvino_engine
from asr.errors import DataError, ModelError, ParamsError, UserError
from asr.evaluation import decoded, models, report
from asr.evaluation.table import errors, words
from asr.features import FeatureRows
from asr.markdown import cell
from asr.model import loader
from asr.params import reader, schema
from asr.runs import states
from asr.runs.states import State
from asr.runtime import machine
from asr.storage import files, shards
from asr.tracking import journal
from stages import evaluate, train
from support import journals
from support.model import hub_folder, hush_timestamps, scratch, write_features
from support.repository import SHIPPED

HOSTILE = (
    "<script>alert(1)</script> | **fet** [länk](http://x.y) ![bild](z) `kod` _u_ ~s~ # h \\| "
    "&lt;b&gt;\n\n| ny | rad |"
)
MARKS = st.sampled_from([*"\\`*_{}[]<>#|~! \n\ta", "&lt;", "&#60;"])
SPEAKERS = ["a", "b", "c", None]
CONTRACT = (
    "wer",
    "cer",
    "wer_raw",
    "cer_raw",
    "wer_low",
    "wer_high",
    "ci_unit",
    "rows",
    "words",
    "hours",
    "rtfx",
)
COLUMNS = ["hits", "substitutions", "deletions", "insertions"]
STEPS = (
    "step,train_loss,learning_rate,validation_loss,validation_wer\n0,,,5.5,1.0\n2,5.25,0.001"
    ",,\n4,5.0,0.0005,5.125,0.75\n"
)


def chosen(name: str = "scratch", **changes: Any) -> schema.Params:
    """The shipped params with another start and other values of `evaluate`."""
    shipped = reader.load(SHIPPED)
    values = {"bootstrap_resamples": 200, "max_new_tokens": 12, **changes}
    return shipped.model_copy(
        update={
            "model": shipped.model.model_copy(update={"name": name}),
            "evaluate": shipped.evaluate.model_copy(update=values),
        }
    )


def told(start: loader.Start, seed: int = 1) -> dict[str, Any]:
    """reports/train/run.json."""
    return {
        "fingerprint": "f" * 32,
        "best_step": 4,
        "seed": seed,
        "start": start.provenance(),
        "params": {"train.max_steps": 4},
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> SimpleNamespace:
    """A repository in which a model that learnt nothing was evaluated against its start."""
    root = tmp_path_factory.mktemp("evaluated")
    shutil.copy(empty_store, root / "mlflow.db")
    rows = [
        {
            "id": f"r{n}",
            "text": f"ett två {n}",
            "seconds": 0.5 + 0.3 * n,
            "speaker": SPEAKERS[n % 4],
        }
        for n in range(9)
    ]
    rows[2] |= {"text": HOSTILE, "id": "r2|<b>"}
    test = write_features(root / "data/features/test", rows)
    start = hush_timestamps(scratch(1))
    loader.save(start.model, start.tokenizer, root / "models/finetuned")
    files.write_json(root / "reports/train/run.json", told(start))
    files.write_text(root / "reports/train/steps.csv", STEPS)
    np.save(root / "reports/train/taught.npy", np.zeros((0, 12), np.uint8))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", str(root))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        evaluate.run(
            test,
            root / "models/finetuned",
            root / "reports/train",
            root / "reports/evaluate",
            chosen(),
        )
    return SimpleNamespace(
        root=root,
        rows=rows,
        test=test,
        start=start,
        reports=root / "reports/evaluate",
    )


def test_metrics_hold_what_the_contract_names(made: SimpleNamespace) -> None:
    metrics = files.read_json(made.reports / "metrics.json")
    assert not [key for key in (*CONTRACT, "test_hash", "models") if key not in metrics]
    assert list(metrics["models"]) == ["finetuned", "start"]
    for scores in metrics["models"].values():
        assert not [key for key in CONTRACT if key not in scores]
    assert {key: metrics[key] for key in CONTRACT} == {
        key: metrics["models"]["finetuned"][key] for key in CONTRACT
    }
    assert metrics["test_hash"] == shards.data_hash(made.test)
    assert metrics["rows"] == 9
    assert metrics["hours"] == pytest.approx(sum(row["seconds"] for row in made.rows) / 3600)
    assert (metrics["ci_unit"], metrics["speakers"]) == ("utterance", 3)
    assert metrics["wer_low"] <= metrics["wer"] <= metrics["wer_high"]
    assert metrics["rtfx"] > 0


def test_utterances_hold_what_the_contract_names_and_sum_to_the_metrics(
    made: SimpleNamespace,
) -> None:
    table = pq.read_table(made.reports / "utterances.parquet")
    raw = [f"raw_{name}" for name in COLUMNS]
    wanted = [
        "id",
        "model",
        "reference",
        "hypothesis",
        *COLUMNS,
        *raw,
        "cer_errors",
        "cer_chars",
        "duration",
        "speaker",
        "attributes",
    ]
    assert not [name for name in wanted if name not in table.column_names]
    lines = table.to_pylist()
    ours = [line for line in lines if line["model"] == "finetuned"]
    assert [line["id"] for line in ours] == [row["id"] for row in made.rows]
    assert [line["reference"] for line in ours] == [row["text"] for row in made.rows]
    assert [line["speaker"] for line in ours] == [row["speaker"] for row in made.rows]
    metrics = files.read_json(made.reports / "metrics.json")
    assert (
        metrics["words"]
        == sum(words(line) for line in ours)
        == sum(len(wer.normalize(row["text"]).split()) for row in made.rows)
    )
    assert metrics["wer"] == pytest.approx(sum(errors(line) for line in ours) / metrics["words"])
    assert metrics["cer"] == pytest.approx(
        sum(line["cer_errors"] for line in ours) / sum(line["cer_chars"] for line in ours)
    )
    assert metrics["wer_raw"] == pytest.approx(
        sum(line[name] for line in ours for name in raw[1:])
        / sum(line[name] for line in ours for name in raw[:3])
    )


def test_a_model_that_is_its_start_is_not_distinguishable_from_it(made: SimpleNamespace) -> None:
    start = files.read_json(made.reports / "metrics.json")["models"]["start"]
    assert (
        start["verdict"],
        start["difference"],
        start["difference_low"],
        start["difference_high"],
    ) == (
        "not distinguishable",
        0.0,
        0.0,
        0.0,
    )
    lines = pq.read_table(made.reports / "utterances.parquet").to_pylist()
    said = {
        name: [line["hypothesis"] for line in lines if line["model"] == name]
        for name in ("finetuned", "start")
    }
    assert said["finetuned"] == said["start"]
    assert len(set(said["start"])) > 1


def test_a_second_evaluation_gives_the_same_rows_and_scores(made: SimpleNamespace) -> None:
    scores, table = evaluate.evaluate(
        FeatureRows(made.test),
        made.root / "models/finetuned",
        told(made.start),
        chosen(),
    )
    assert table == pq.read_table(made.reports / "utterances.parquet").to_pylist()
    before = files.read_json(made.reports / "metrics.json")["models"]
    assert [without_speed(one) for one in scores.values()] == [
        without_speed(one) for one in before.values()
    ]


def without_speed(scores: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in scores.items() if key != "rtfx"}


def test_the_report_shows_hostile_transcripts_as_text(made: SimpleNamespace) -> None:
    text = (made.reports / "report.md").read_text(encoding="utf-8")
    (row,) = [line for line in text.splitlines() if "alert" in line]
    cells = re.split(r"(?<!\\)(?:\\\\)*\|", row)
    assert len(cells) == 6
    assert shown(cells[1].strip()) == "r2|<b>"
    assert shown(cells[3].strip()) == " ".join(HOSTILE.split())
    assert "<script" not in text


def shown(cell: str) -> str:
    """What a reader of Markdown sees: escapes and entities undone; nothing with a meaning may stand
    unescaped.
    """
    bare = re.sub(r"\\[!-/:-@\[-`{-~]|&(?:amp|lt|gt);", "", cell)
    assert not re.search(r"[\\`*_\[\]<>|~]|&\w+;|&#", bare), bare
    return html.unescape(re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", cell))


@settings(max_examples=100)
@given(st.lists(MARKS | st.characters(exclude_categories=["Cs", "Cc"]), max_size=12).map("".join))
def test_a_cell_reads_as_its_text_on_one_line(text: str) -> None:
    found = cell(text)
    assert len(found.splitlines()) == 1
    assert shown(found) == (" ".join(text.split()) or "(nothing)")


def test_the_report_tells_scores_caveat_curve_and_worst_first(made: SimpleNamespace) -> None:
    text = (made.reports / "report.md").read_text(encoding="utf-8")
    metrics = files.read_json(made.reports / "metrics.json")
    assert (
        f"| finetuned | {metrics['wer']:.4f} | {metrics['wer_low']:.4f} "
        f"to {metrics['wer_high']:.4f} |"
    ) in text
    assert "fine-tuned is not distinguishable (+0.0000, +0.0000 to +0.0000)" in text
    assert "With fewer than 10 known speakers (3), utterances were drawn, not speakers" in text
    assert "| 4 | 5.0 | 5.125 | 0.75 |" in text
    assert "![curves](curves.svg)" in text
    counts = [
        int(line.split(" | ")[1])
        for line in text.split("## Worst utterances")[1].splitlines()
        if " | " in line and line[2:4] != "id"
    ]
    assert counts == sorted(counts, reverse=True)
    assert len(counts) == 9


def test_curves_are_the_same_bytes_each_time(made: SimpleNamespace, tmp_path: Path) -> None:
    steps = [
        dict(zip(STEPS.split("\n")[0].split(","), line.split(","), strict=True))
        for line in STEPS.splitlines()[1:]
    ]
    report.curves(steps, tmp_path / "curves.svg")
    assert (tmp_path / "curves.svg").read_bytes() == (made.reports / "curves.svg").read_bytes()
    assert str(made.root) not in (made.reports / "curves.svg").read_text(encoding="utf-8")


def test_reports_hold_no_path(made: SimpleNamespace) -> None:
    assert not [
        path.name for path in made.reports.iterdir() if str(made.root).encode() in path.read_bytes()
    ]


def test_the_journal_of_a_training_that_was_fetched_is_begun_and_told_the_scores(
    made: SimpleNamespace,
) -> None:
    lines = [
        record for record, _ in journal.read(made.root / ".cache/journal" / f"{'f' * 32}.jsonl")
    ]
    assert [line["kind"] for line in lines] == [
        "begin",
        "metrics",
        "metrics",
        "metrics",
        "end",
        "evaluation",
    ]
    assert lines[1]["values"] == {"validation/loss": 5.5, "validation/wer": 1.0}
    metrics = files.read_json(made.reports / "metrics.json")
    assert lines[-1]["values"]["test/wer"] == metrics["wer"]
    assert lines[-1]["values"]["test/start/difference"] == 0.0
    assert lines[-1]["step"] == 4
    with closing(sqlite3.connect(made.root / "mlflow.db")) as store:
        written = store.execute("SELECT key FROM metrics").fetchall()
    assert ("test/wer",) in written


def test_start_from_scratch_is_rebuilt_bit_for_bit(made: SimpleNamespace) -> None:
    finetuned = loader.load_saved(made.root / "models/finetuned")
    for value in finetuned.model.parameters():
        value.data += 0.1
    start = models.start_again(finetuned, told(made.start), None, chosen())
    assert (
        loader.weights_hash(start.model)
        == loader.weights_hash(made.start.model)
        != loader.weights_hash(finetuned.model)
    )


def test_start_from_scratch_with_another_seed_is_refused(made: SimpleNamespace) -> None:
    finetuned = loader.load_saved(made.root / "models/finetuned")
    with pytest.raises(
        ModelError,
        match=(
            r"^scratch has changed since it was trained from; train again \(dvc repro -f "
            r"train\)$"
        ),
    ) as caught:
        models.start_again(finetuned, {**told(made.start), "seed": 2}, None, chosen())
    assert caught.value.exit_code == 5


@pytest.mark.parametrize(("window", "wanted"), [(None, 30), (2, 2)])
def test_start_from_a_folder_is_loaded_as_published_or_cut_and_its_hash_checked(
    tmp_path: Path, window: int | None, wanted: int
) -> None:
    folder = hub_folder(tmp_path / "whisper-tiny")
    finetuned, whole = loader.load(str(folder), None, 2), loader.load(str(folder), None, None)
    start = models.start_again(finetuned, told(whole), window, chosen(str(folder)))
    assert (
        start.name,
        loader.window_seconds(start.model),
        start.model.generation_config.language,
    ) == ("whisper-tiny", wanted, "sv")
    with pytest.raises(ModelError, match="has changed since it was trained from; train again"):
        models.start_again(finetuned, told(scratch()), window, chosen(str(folder)))


@pytest.mark.parametrize("window", [2, None])
def test_the_start_is_scored_as_published_and_beside_it_as_it_was_cut(
    made: SimpleNamespace, tmp_path: Path, window: int | None
) -> None:
    folder, finetuned, cut = (tmp_path / name for name in ("published", "finetuned", "cut"))
    published = hush_timestamps(loader.load(str(hub_folder(tmp_path / "tiny")), None, None))
    loader.set_prompt(published.model, "sv", "transcribe")
    loader.save(published.model, published.tokenizer, folder)
    trained = loader.load(str(folder), None, window)
    for path in (finetuned, cut):
        loader.save(trained.model, trained.tokenizer, path)
    run, test = told(published), FeatureRows(made.test)
    scores, table = evaluate.evaluate(test, finetuned, run, chosen(str(folder), decoding="greedy"))
    others = [str(folder), str(cut)]
    known, plain = evaluate.evaluate(
        test, finetuned, run, chosen(baselines=others, decoding="greedy")
    )
    heard = {name: texts(table, name) for name in scores}
    assert heard["start"] == texts(plain, "published"), "as the model is by itself"
    windows = {name: one["window_seconds"] for name, one in scores.items()}
    if window is None:
        assert windows == {"finetuned": 30, "start": 30}
        return
    assert windows == {"finetuned": 2, "start": 30, "start_cut": 2}
    assert heard["start_cut"] == texts(plain, "cut") != heard["start"]
    assert known["cut"]["wer"] == scores["start_cut"]["wer"]
    metrics = {**scores["finetuned"], "rows_taught": 0, "models": scores}
    assert "a window of 30 s. `start_cut` is the same with one of 2 s" in report.report(
        metrics, table, []
    )


def texts(table: list[dict[str, Any]], model: str) -> list[str]:
    return [line["hypothesis"] for line in table if line["model"] == model]


def test_a_baseline_with_its_own_window_is_named_by_its_folder(
    made: SimpleNamespace, tmp_path: Path
) -> None:
    folder = hub_folder(tmp_path / "whisper-tiny")
    finetuned = made.root / "models/finetuned"
    scores, table = evaluate.evaluate(
        FeatureRows(made.test), finetuned, told(made.start), chosen(baselines=[str(folder)])
    )
    assert list(scores) == ["finetuned", "whisper-tiny"]
    assert {line["model"] for line in table} == {"finetuned", "whisper-tiny"}
    assert math.isfinite(scores["whisper-tiny"]["difference"])


def test_a_baseline_folder_called_finetuned_does_not_take_the_place_of_our_scores(
    made: SimpleNamespace, tmp_path: Path
) -> None:
    other = shutil.copytree(hub_folder(tmp_path / "whisper-tiny"), tmp_path / "finetuned")
    finetuned = made.root / "models/finetuned"
    ours = (
        files.read_json(made.reports / "metrics.json")["words"],
        files.read_json(made.reports / "metrics.json")["insertions"],
    )
    try:
        scores, table = evaluate.evaluate(
            FeatureRows(made.test), finetuned, told(made.start), chosen(baselines=[str(other)])
        )
    except UserError:
        return
    assert (scores["finetuned"]["words"], scores["finetuned"]["insertions"]) == ours
    assert len(table) == 2 * len(made.rows)


def test_features_with_other_mel_bins_are_refused(made: SimpleNamespace, tmp_path: Path) -> None:
    split = write_features(tmp_path / "test", made.rows[:1], num_mel_bins=128)
    with pytest.raises(
        ModelError,
        match=r"the features have 128 mel bins, the model wants 80: -S featurize.num_mel_bins=80",
    ):
        evaluate.evaluate(
            FeatureRows(split),
            made.root / "models/finetuned",
            told(made.start),
            chosen(baselines=[]),
        )


def test_a_test_split_without_words_can_be_scored(made: SimpleNamespace, tmp_path: Path) -> None:
    split = write_features(tmp_path / "test", [{"id": "a", "text": "!?", "seconds": 0.5}])
    scores, (line,) = evaluate.evaluate(
        FeatureRows(split),
        made.root / "models/finetuned",
        told(made.start),
        chosen(baselines=[]),
    )
    assert scores["finetuned"]["words"] == 0
    assert scores["finetuned"]["wer"] == line["insertions"]


HELD_OUT = [
    {
        "id": "h0",
        "text": "ett två",
        "seconds": 0.8,
        "speaker": "x",
        "attributes": '{"source": "other"}',
    },
    {
        "id": "h1",
        "text": "eins zwei",
        "seconds": 0.8,
        "speaker": "y",
        "attributes": '{"language": "de", "source": "other"}',
    },
]


@pytest.mark.usefixtures("in_process")
def test_what_is_held_out_is_scored_apart(
    made: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each row in its own language; the test's scores are what they were."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    shutil.copytree(made.test, tmp_path / "features/test")
    write_features(tmp_path / "features/holdout", HELD_OUT)
    asked: list[str] = []
    hypotheses = Recognizer.hypotheses

    def noted(one: Recognizer, clips: Any, durations: Any, prompts: Any, limit: int) -> Any:
        by_token = {token: name for name, token in one.vocabulary.languages.items()}
        asked.append(by_token[prompts[0][1]])
        return hypotheses(one, clips, durations, prompts, limit)

    monkeypatch.setattr(Recognizer, "hypotheses", noted)
    evaluate.run(
        tmp_path / "features/test",
        made.root / "models/finetuned",
        made.root / "reports/train",
        tmp_path / "reports",
        chosen(),
    )
    metrics, before = (
        files.read_json(folder / "metrics.json") for folder in (tmp_path / "reports", made.reports)
    )
    held_out = metrics.pop("holdout")
    models, models_before = (one.pop("models") for one in (metrics, before))
    assert without_speed(metrics) == without_speed(before)
    assert {name: without_speed(one) for name, one in models.items()} == {
        name: without_speed(one) for name, one in models_before.items()
    }
    assert (held_out["rows"], set(held_out["models"])) == (2, {"finetuned", "start"})
    table = pq.read_table(tmp_path / "reports/holdout.parquet").to_pylist()
    assert [(row["id"], row["model"]) for row in table] == [
        (id, name) for name in ("finetuned", "start") for id in ("h0", "h1")
    ]
    assert asked == ["sv", "sv", "sv", "de", "sv", "de"]
    assert (
        "Held out, never trained on: 2 utterances, 4 words."
        in (tmp_path / "reports/report.md").read_text()
    )


@pytest.mark.usefixtures("in_process")
def test_held_out_rows_that_were_taught_are_told(
    made: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    shutil.copytree(made.test, tmp_path / "features/test")
    shutil.copytree(made.root / "reports/train", tmp_path / "train")
    write_features(tmp_path / "features/holdout", HELD_OUT)
    held_out = FeatureRows(tmp_path / "features/holdout")
    np.save(tmp_path / "train/taught.npy", np.frombuffer(held_out.digest(1), np.uint8)[None])
    evaluate.run(
        tmp_path / "features/test",
        made.root / "models/finetuned",
        tmp_path / "train",
        tmp_path / "reports",
        chosen(),
    )
    metrics = files.read_json(tmp_path / "reports/metrics.json")
    assert metrics["holdout"]["rows_taught"] == 1
    assert (
        "CHECK FAILED: holdout_rows_unseen: 1 of 2 holdout rows are in training"
        in capsys.readouterr().out
    )


def test_without_anything_held_out_nothing_is_said_of_it(made: SimpleNamespace) -> None:
    assert "holdout" not in files.read_json(made.reports / "metrics.json")
    assert pq.read_table(made.reports / "holdout.parquet").num_rows == 0


def test_how_it_was_decoded_stands_with_every_result(made: SimpleNamespace) -> None:
    metrics = files.read_json(made.reports / "metrics.json")
    how = {"decoding": "robust", "engine": "openvino", "precision": "fp32"}
    for scores in (metrics, *metrics["models"].values()):
        assert {key: scores[key] for key in how} == how
        assert scores["processor"] == machine.processor()
        assert all(0 <= scores[key] <= 9 for key in decoded.COUNTS)
    report = (made.reports / "report.md").read_text(encoding="utf-8")
    assert f"Decoding: robust, OpenVINO in fp32 on {machine.processor()}. " in report
    assert f"- start: {decoded.counts_text(metrics['models']['start'])}" in report
    (*_, told) = journal.read(made.root / ".cache/journal" / f"{'f' * 32}.jsonl")
    assert {key: told[0]["params"][f"evaluate.{key}"] for key in how} == how
    assert told[0]["values"]["test/fell_back"] == metrics["fell_back"]


def test_older_results_name_no_way_of_decoding() -> None:
    assert decoded.settings_text({"wer": 0.1}) == ""
    new = {"decoding": "greedy", "engine": "torch", "precision": "bf16"}
    assert decoded.settings_text(new) == "greedy, torch in bf16"
    assert decoded.settings_text({**new, "processor": "A 1"}) == "greedy, torch in bf16 on A 1"


def without_openvino(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(sys.modules, "asr.engines.openvino_engine", None)


def without_bf16(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(openvino_engine, "has_bf16", lambda: False)


# What this machine lacks, what is asked of it, and the way out that is told; "" where it will do.
MACHINES: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], str, str, str]] = {
    "no bf16": (without_bf16, "openvino", "bf16", "-S evaluate.precision=fp32"),
    "no bf16, fp32": (without_bf16, "openvino", "fp32", ""),
    "no bf16, torch": (without_bf16, "torch", "bf16", ""),
    "no OpenVINO": (without_openvino, "openvino", "fp32", "-S evaluate.engine=torch"),
    "no OpenVINO, bf16": (without_openvino, "openvino", "bf16", "-S evaluate.engine=torch"),
    "no OpenVINO, torch": (without_openvino, "torch", "fp32", ""),
}


@pytest.mark.parametrize("machine", MACHINES)
def test_what_a_machine_cannot_decode_is_refused_before_any_work(
    machine: str, made: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By `evaluate`, and by the training before it."""
    lacking, engine, precision, way_out = MACHINES[machine]
    lacking(monkeypatch)
    params = chosen(engine=engine, precision=precision)
    folders = (made.test, made.root / "models/finetuned", made.root / "reports/train", tmp_path)
    monkeypatch.setattr(evaluate, "FeatureRows", lambda _: 1 / 0)
    monkeypatch.setattr(train, "FeatureRows", lambda _: 1 / 0)
    wanted = ParamsError if way_out else ZeroDivisionError  # when work begins
    for stage in (evaluate, train):
        with pytest.raises(wanted, match=re.escape(way_out) or None):
            stage.run(*folders, params)


@pytest.mark.parametrize(
    ("device", "engine", "tells"),
    [
        ("cuda", "openvino", True),
        ("cuda", "torch", False),
        ("cpu", "openvino", False),
        ("cpu", "torch", False),
    ],
)
def test_a_gpu_that_stays_idle_is_told(
    device: str, engine: str, tells: bool, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(loader, "device", lambda: device)
    evaluate.tell_of_gpu(chosen(engine=engine).evaluate)
    assert ("-S evaluate.engine=torch" in capsys.readouterr().out) is tells


LIVES: dict[str, tuple[bool, Exception | None, State]] = {
    "well": (True, None, State("finished")),
    "failed": (True, DataError("no\n test"), State("failed", stage="evaluate", line="no test")),
    "a bug": (True, KeyError(), State("failed", stage="evaluate", line="KeyError")),
    "failed outside DVC": (
        False,
        ModelError("no"),
        State("failed", stage="evaluate", line="no"),
    ),
}


@pytest.mark.parametrize("life", LIVES)
def test_the_journal_and_mlflow_hear_how_an_evaluation_ended(
    life: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_recorded, error, state = LIVES[life]
    told: list[Path] = []
    monkeypatch.setattr(evaluate.follower, "sync_apart", told.append)
    monkeypatch.setattr(evaluate.attempts, "note", lambda _: is_recorded)
    log = journals.training(journals.new_path(tmp_path / ".cache/journal"))
    files.write_json(tmp_path / "run.json", {"fingerprint": log.stem})
    with suppress(Exception), evaluate.journaled(tmp_path):
        kinds = [record["kind"] for record, _ in journal.read(log)]
        assert (kinds[-1] == "testing") is is_recorded
        if error:
            raise error
        journals.evaluation(log, "inputs", 0.5)
    course = journal.course(log)
    assert course is not None
    assert replace(states.of_journal(course), step=None, steps=None) == state
    assert told == ([log] if error else [])
