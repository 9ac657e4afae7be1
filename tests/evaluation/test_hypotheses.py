"""Hypotheses are decoded once, and again when anything that decides them is another."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from asr import paths
from asr.decoding import loading, recordings
from asr.decoding.recordings import Heard
from asr.engines import available
from asr.evaluation import hypotheses, models
from asr.evaluation.hypotheses import Compared
from asr.features import FeatureRows
from asr.params import reader, schema
from asr.storage import hashing
from support.model import hush_timestamps, scratch, write_features
from support.repository import SHIPPED

ROWS = [{"id": f"r{n}", "text": f"ett {n}", "seconds": 0.5 + 0.4 * n} for n in range(3)]


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of rows that were decoded, one for each time."""
    counts: list[int] = []
    really = recordings.decode

    def decode(recognizer: Any, durations: Any, *rest: Any) -> list[Heard]:
        counts.append(len(durations))
        return really(recognizer, durations, *rest)

    monkeypatch.setattr(recordings, "decode", decode)
    return counts


def features_of(folder: Path, rows: list[dict[str, Any]] = ROWS) -> FeatureRows:
    return FeatureRows(write_features(folder / "features/test", rows))


def how(**changes: Any) -> schema.Evaluate:
    return reader.load(SHIPPED).evaluate.model_copy(update={"max_new_tokens": 12, **changes})


def model(seed: int = 1, params: schema.Evaluate | None = None, **shape: int) -> Compared:
    start = hush_timestamps(scratch(seed, **shape))
    params = params or how()
    ways = (params.engine, params.precision, params.decoding)
    return Compared("one", models.identity(start), partial(loading.of_start, start, *ways))


def test_what_was_heard_once_is_not_decoded_again(
    tmp_path: Path, decoded: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = features_of(tmp_path)
    first = hypotheses.of_split(model(), rows, how())
    assert "before" not in capsys.readouterr().out
    assert hypotheses.of_split(model(), rows, how()) == first
    assert decoded == [3]
    assert "decode one: as decoded before, 3 rows" in capsys.readouterr().out
    heard, told = first
    assert told["looped"] == sum(one.looped for one in heard)
    assert told["processor"] == available.device_name("openvino")
    assert told["rtfx"] > 0


CHANGES = {
    "another model": lambda: (model(2), how()),
    "the same weights in other heads": lambda: (model(decoder_attention_heads=1), how()),
    "another method": lambda: (model(), how(decoding="greedy")),
    "another engine": lambda: (model(1, how(engine="torch")), how(engine="torch")),
    "more tokens": lambda: (model(), how(max_new_tokens=5)),
    "another batch": lambda: (model(), how(per_device_eval_batch_size=1)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_decides_the_text_is_decoded_again(
    change: str, tmp_path: Path, decoded: list[int]
) -> None:
    rows = features_of(tmp_path)
    hypotheses.of_split(model(), rows, how())
    hypotheses.of_split(CHANGES[change]()[0], rows, CHANGES[change]()[1])
    assert sum(decoded) == 6


@pytest.mark.parametrize("what", ["code", "library", "processor"])
def test_other_code_another_library_or_processor_decodes_again(
    what: str, tmp_path: Path, decoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = features_of(tmp_path)
    hypotheses.of_split(model(), rows, how())
    if what == "code":
        monkeypatch.setattr(hashing, "code_hash", lambda _: "other")
    elif what == "library":
        monkeypatch.setattr(hypotheses, "version", lambda _: "another")
    else:
        monkeypatch.setattr(available, "device_name", lambda _: "another")
    hypotheses.of_split(model(), rows, how())
    assert decoded == [3, 3]


def test_other_rows_are_decoded(tmp_path: Path, decoded: list[int]) -> None:
    hypotheses.of_split(model(), features_of(tmp_path / "a"), how())
    hypotheses.of_split(model(), features_of(tmp_path / "b", ROWS[:2]), how())
    assert decoded == [3, 2]


def test_the_scoring_params_decode_nothing(tmp_path: Path, decoded: list[int]) -> None:
    rows = features_of(tmp_path)
    first = hypotheses.of_split(model(), rows, how())
    again = how(bootstrap_resamples=7, seed=3, baselines=["a/b"])
    assert hypotheses.of_split(model(), rows, again) == first
    assert decoded == [3]


def test_a_damaged_file_is_made_anew(tmp_path: Path, decoded: list[int]) -> None:
    rows = features_of(tmp_path)
    first = hypotheses.of_split(model(), rows, how())
    (kept,) = paths.cache(hypotheses.STORE).glob("*.arrow")
    kept.write_bytes(kept.read_bytes()[:-9])
    assert hypotheses.of_split(model(), rows, how())[0] == first[0]
    assert decoded == [3, 3]
