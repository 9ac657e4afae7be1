"""The carrier of a language: each candidate is prompted for and heard as training would, the best
comes first, faults are told early.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from asr.errors import DataError, ModelError, ParamsError
from asr.features import FeatureRows
from asr.model import greedy, loader
from asr.model.loader import Start
from asr.params import reader, schema
from asr.preflight import prompt_language
from support.model import hub_folder, write_features
from support.repository import REPOSITORY, TINY, write_params

LANGUAGES = ["sv", "no", "haw"]
FOREIGN = {
    "download.language": "smj",
    "model.language": "sv",
    "model.window_seconds": 2,
    "train.per_device_eval_batch_size": 2,
}
ROWS = [
    {"id": f"v{number}", "text": f"ett {number}", "seconds": 0.6 + 0.2 * number}
    for number in range(5)
]


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Params and features of a language that Whisper does not know, and a start like the hub's."""
    room = tmp_path_factory.mktemp("carrier")
    hub_folder(room / "whisper-tiny")
    write_features(room / "data/features/validation", ROWS)
    write_params(room / "params.yaml", {**TINY, **FOREIGN})
    return room


@pytest.fixture
def given(room: Path) -> schema.Params:
    return reader.load(room / "params.yaml")


@pytest.fixture
def start(room: Path, given: schema.Params) -> Start:
    """Random weights that speak in words alone."""
    start = prompt_language.start_model(given, str(room / "whisper-tiny"))
    end = start.model.generation_config.eos_token_id
    start.model.generation_config.suppress_tokens = list(
        range(end + 1, start.model.config.vocab_size)
    )
    return start


@pytest.fixture
def rows(room: Path) -> FeatureRows:
    return FeatureRows(room / "data/features/validation")


def decoded_alone(
    start: Start, rows: FeatureRows, code: str, task: str = "transcribe"
) -> list[str]:
    """The same rows by the way of evaluation, one language at a time."""
    loader.set_prompt(start.model, code, task)
    return greedy.transcribe(
        start.model, start.tokenizer, rows.column("duration"), rows.log_mel, 2, 444
    )


def test_each_candidate_is_heard_as_evaluation_would_hear_it(
    start: Start, rows: FeatureRows
) -> None:
    prompted = prompt_language.prompts(start, LANGUAGES, "transcribe")
    found = prompt_language.hypotheses(start, rows, list(range(len(rows))), prompted, 2)
    told = {code: [text.strip() for text in texts] for code, texts in found.items()}
    assert told == {code: decoded_alone(start, rows, code) for code in LANGUAGES}
    assert len({tuple(texts) for texts in told.values()}) == len(LANGUAGES), (
        "candidates must not be heard alike"
    )


def test_candidates_differ_by_the_language_token_alone_and_share_the_encoder(
    start: Start, rows: FeatureRows
) -> None:
    heard: list[list[int]] = []
    encoded: list[int] = []
    whisper = start.model.model
    whisper.decoder.register_forward_pre_hook(
        lambda _, __, given: heard.append(given["input_ids"][0].tolist()), with_kwargs=True
    )
    whisper.encoder.register_forward_hook(lambda *_: encoded.append(1))
    prompted = prompt_language.prompts(start, LANGUAGES, "translate")
    prompt_language.hypotheses(start, rows, list(range(4)), prompted, 2)
    spoken = [start.tokenizer.convert_ids_to_tokens(ids) for ids in heard if len(ids) == 4]
    assert spoken == 2 * [
        ["<|startoftranscript|>", f"<|{code}|>", "<|translate|>", "<|notimestamps|>"]
        for code in LANGUAGES
    ]
    assert len(encoded) == 2


def test_the_language_that_was_spoken_for_comes_first(
    start: Start, rows: FeatureRows, given: schema.Params
) -> None:
    """What the model hears in one language is made the truth, with a word of it wrong here and
    there.
    """
    truth = decoded_alone(start, rows, "no")
    heard = {code: decoded_alone(start, rows, code) for code in LANGUAGES}
    found = prompt_language.scores(truth, heard, [None] * len(truth), 1)
    assert (found[0].language, found[0].wer, found[0].verdict) == ("no", 0.0, "best")
    assert [one.wer for one in found] == sorted(one.wer for one in found)
    assert {one.verdict for one in found[1:]} <= {"worse", "not distinguishable"}
    assert (
        prompt_language.table(found).splitlines()[-1]
        == "train with it: dvc exp run -S model.language=no"
    )
    measured = prompt_language.measure(start, rows, LANGUAGES, given, 3)
    assert {one.language for one in measured} == set(LANGUAGES)


def test_equal_candidates_are_told_apart_by_no_one() -> None:
    found = prompt_language.scores(
        ["ett två", "tre"], {"sv": ["ett", "tre"], "no": ["ett", "tre"]}, [None, None], 1
    )
    assert [one.verdict for one in found] == ["best", "not distinguishable"]


def test_rows_are_those_of_training_and_fit_the_window(
    rows: FeatureRows, capsys: pytest.CaptureFixture
) -> None:
    assert sorted(prompt_language.chosen_rows(rows, 99, 1, 2)) == [0, 1, 2, 3, 4]
    assert prompt_language.chosen_rows(rows, 99, 1, 1) == [2, 1, 0]
    assert capsys.readouterr().out == "left out: 2 rows longer than the window of 1 s\n"
    with pytest.raises(DataError, match="no row is shorter than the window of 0 s"):
        prompt_language.chosen_rows(rows, 99, 1, 0)


def test_a_start_from_scratch_knows_no_language(given: schema.Params) -> None:
    with pytest.raises(ParamsError, match="scratch knows no language yet; want a trained start"):
        prompt_language.start_model(given, None)


def test_a_start_of_one_language_has_no_candidates(given: schema.Params, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"whisper-tiny\.en knows one language only"):
        prompt_language.start_model(
            given, str(hub_folder(tmp_path / "whisper-tiny.en", multilingual=False))
        )


def test_a_language_that_came_later_than_the_model_is_named(start: Start) -> None:
    with pytest.raises(ModelError, match=r"the model has no token for <\|yue\|>"):
        prompt_language.prompts(start, ["sv", "yue"], "transcribe")


def call(room: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.chdir(room)
    monkeypatch.setenv("DVC_ROOT", str(room))
    monkeypatch.setattr(sys, "argv", ["carrier", *arguments])
    prompt_language.main()


def test_the_command_prints_a_table_and_the_way_to_go_on(
    room: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    call(room, monkeypatch, "sv", "no", "sv", "--model", str(room / "whisper-tiny"), "--rows", "3")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("decode for 2 languages: 2 batches in")
    assert {line[:18].strip() for line in lines[2:4]} == {"sv  Swedish", "no  Norwegian"}
    assert lines[-1] == f"train with it: dvc exp run -S model.language={lines[2][:2]}"


def test_the_command_needs_features_and_known_codes(
    room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ParamsError, match="nb, xx: not among Whisper's languages"):
        call(room, monkeypatch, "sv", "nb", "xx")
    write_params(tmp_path / "params.yaml", TINY)
    with pytest.raises(
        DataError, match="data/features/validation: not there; run dvc repro featurize"
    ):
        call(tmp_path, monkeypatch, "sv")


def test_help_waits_for_no_library(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv[1:] = ['--help']\nfrom asr.preflight import "
        "prompt_language\ntry: prompt_language.main()\nfinally: print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    assert "earshot prompt-language no da is" in done.stdout
    assert done.stdout.splitlines()[-1] == "False"
