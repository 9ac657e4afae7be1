"""Eight rows by heart: a healthy model learns them and leaves nothing behind; one that is broken is
told apart.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from test_checks import Plant, _frozen_optimiser, _shifted_labels, planted

from asr.errors import DataError, Diverged
from asr.features import FeatureRows
from asr.model.start import start_model
from asr.params import schema
from asr.preflight import overfit
from support.training import given

pytestmark = pytest.mark.usefixtures("in_process")
# Wider than elsewhere, and all that hinders learning turned on: it is for `overfit` to turn it off.
HINDERED = {
    "model.scratch.d_model": 48,
    "model.dropout": 0.5,
    "model.apply_spec_augment": True,
    "train.learning_rate": 5e-3,
    "train.label_smoothing_factor": 0.3,
    "train.weight_decay": 1.0,
    "train.early_stopping_patience": 1,
}


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go."""
    found = tmp_path / "room"
    found.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(found))
    return found


@pytest.fixture
def chosen(tmp_path_factory: pytest.TempPathFactory) -> schema.Params:
    return given(tmp_path_factory.mktemp("given"), **HINDERED)


def test_a_healthy_model_learns_eight_rows_and_nothing_is_left(
    room: Path,
    chosen: schema.Params,
    tmp_path: Path,
    tiny_data: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    steps = overfit.run(tiny_data / "data/features/train", chosen)
    assert 0 < steps <= 100
    assert "validation WER 0.0000" in capsys.readouterr().out
    assert list(tmp_path.rglob("*")) == [room]


@pytest.mark.filterwarnings("ignore:Detected call of:UserWarning")
@pytest.mark.parametrize("plant", [_frozen_optimiser, _shifted_labels])
def test_a_broken_one_does_not_and_says_what_was_heard(
    plant: Plant,
    room: Path,
    chosen: schema.Params,
    tiny_data: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(overfit, "STEPS", 100)  # twice what a healthy one takes
    with (
        planted(plant),
        pytest.raises(
            Diverged, match=r"100 steps did not teach eight rows: loss .* was heard as"
        ) as fault,
    ):
        overfit.run(tiny_data / "data/features/train", chosen)
    assert fault.value.exit_code == 6
    assert list(room.iterdir()) == []


def test_rows_are_eight_that_fit_and_depend_on_the_seed(
    chosen: schema.Params, tiny_data: Path
) -> None:
    rows = FeatureRows(tiny_data / "data/features/train")
    start = start_model(chosen, rows)
    ids = [overfit.choose_rows(rows, start, seed).column("id") for seed in (1, 1, 2)]
    assert ids[0] == ids[1] != ids[2]
    assert len(set(ids[0])) == len(set(ids[2])) == overfit.ROWS
    with pytest.raises(DataError, match="4 of 4 training rows fit the model, want 8"):
        overfit.choose_rows(overfit.select(rows, range(4)), start, 1)
