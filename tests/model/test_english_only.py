"""A model of English alone, as openai/whisper-base.en: loaded, trained, evaluated, transcribed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from asr.audio import codec
from asr.decoding import loading, vocabulary
from asr.decoding.options import EACH
from asr.decoding.recognizer import ROBUST, Recognizer
from asr.engines.engine import FP32, OPENVINO
from asr.errors import ModelError, ParamsError
from asr.model import loader, tokenization
from asr.params import reader
from asr.sources import synthetic
from asr.storage import files
from asr.transcribe import recognizer
from asr.transcribe.prompt import OWN, Prompt
from asr.whisper import ENGLISH_ONLY_VOCABULARY
from stages import evaluate, train
from support.model import hub_folder, write_features
from support.repository import TINY, write_params
from support.samples import stored
from support.vocabulary import english_vocabulary

START, NO_SPEECH, NO_TIMESTAMPS = 50257, 50361, 50362


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A start with random weights, and features."""
    room = tmp_path_factory.mktemp("english")
    start = hub_folder(
        room / "whisper-base.en",
        multilingual=False,
        tables=english_vocabulary(),
        suppressed=[1, 2, 7, START, NO_SPEECH],
    )
    for seconds, split in ((1.0, "train"), (1.1, "validation"), (1.2, "test")):
        rows = [
            {"id": f"{split}{number}", "text": f"one two {number}", "seconds": seconds}
            for number in range(4)
        ]
        write_features(room / "features" / split, rows)
    return SimpleNamespace(room=room, start=start, features=room / "features")


@pytest.fixture(scope="module")
def ready(made: SimpleNamespace) -> Recognizer:
    start = loader.load(str(made.start), None, None)
    return loading.of_start(start, OPENVINO, FP32, ROBUST)


def test_its_tokens_are_told_from_its_files(ready: Recognizer) -> None:
    known = ready.vocabulary
    assert known.size == ENGLISH_ONLY_VOCABULARY
    assert (known.languages, known.tasks) == ({}, {})
    assert (known.start, known.no_speech, known.no_timestamps) == (START, NO_SPEECH, NO_TIMESTAMPS)
    assert known.has_timestamps


@pytest.mark.parametrize("language", [None, "en"])
@pytest.mark.parametrize("task", [None, "transcribe"])
def test_its_prompt_names_no_language(
    ready: Recognizer, language: str | None, task: str | None
) -> None:
    assert ready.vocabulary.prompt(language, task, timestamps=False) == [START, NO_TIMESTAMPS]
    assert ready.vocabulary.prompt(language, task, timestamps=True) == [START]


@pytest.mark.parametrize(
    ("language", "task"), [("sv", None), ("detect", None), (EACH, None), (None, "translate")]
)
def test_what_it_does_not_know_is_refused(
    ready: Recognizer, tmp_path: Path, language: str | None, task: str | None
) -> None:
    sound = stored(tmp_path, np.zeros(16000))
    work = recognizer.begin(ready, sound, 0.0, sound.duration)
    with pytest.raises(ParamsError, match="English only"):
        recognizer.choose_prompts([work], language, task)
    with pytest.raises(ModelError, match="English only"):
        ready.vocabulary.prompt(language, task, timestamps=True)


@pytest.mark.parametrize("language", [None, "en"])
def test_it_transcribes(ready: Recognizer, tmp_path: Path, language: str | None) -> None:
    spoken = codec.decode(synthetic.speak("eleven hundred and seven", "en+m3", 160, 50))
    sound = stored(tmp_path, spoken.reshape(-1))
    work = recognizer.begin(ready, sound, 0.0, sound.duration)
    assert recognizer.choose_prompts([work], language, None) == [Prompt(None, OWN)]
    list(work.segments())  # random weights say anything, or nothing
    (clip,) = [work.clip(piece.span) for piece in work._pieces()]
    (heard,) = ready.hypotheses([clip], [1.0], [[START, NO_TIMESTAMPS]], 8)
    (timed,) = ready.hypotheses([clip], [1.0], [[START]], 8)
    assert timed.no_speech_probability == heard.no_speech_probability


@pytest.mark.usefixtures("in_process")
def test_it_is_trained_and_evaluated(
    made: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(made.room))
    changes = {
        "download.language": "en",
        "model.name": str(made.start),
        "model.window_seconds": 2,
        "train.max_steps": 3,
        "train.eval_rows": 2,
        "train.warmup_steps": 1,
        "train.save_steps": 9,
        "train.eval_steps": 9,
        "evaluate.baselines": ["start"],
    }
    params = reader.load(write_params(made.room / "params.yaml", {**TINY, **changes}))
    finetuned, reports = made.room / "finetuned", made.room / "reports"
    features = made.features
    train.run(features / "train", features / "validation", finetuned, reports, params)
    checks = files.read_json(reports / "checks.json")
    failed = [name for name, check in checks.items() if not check["passed"] and name != "start"]
    assert failed == []  # random weights know nothing, so the start may fail
    saved = loader.load_saved(finetuned)
    assert saved.model.config.vocab_size == ENGLISH_ONLY_VOCABULARY
    assert tokenization.prompt(saved.model.generation_config) == [START, NO_TIMESTAMPS]
    assert vocabulary.of_model(saved).languages == {}
    evaluate.run(features / "test", finetuned, reports, made.room / "scores", params)
    scores = files.read_json(made.room / "scores/metrics.json")
    assert scores
