"""Transcribing gives the text that evaluation scored; the command line takes files and folders and
loses nothing.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from transformers import WhisperConfig

from asr import features
from asr.audio import codec, sample_file
from asr.errors import DataError, ParamsError, exit_with
from asr.features import FeatureRows
from asr.model import loader
from asr.model.loader import Start
from asr.params import reader
from asr.storage import shards
from asr.transcribe import __main__, models, recognizer
from asr.transcribe.formats import FORMATS, Segment
from asr.transcribe.prompt import DETECTED, OWN, SET, Prompt
from asr.whisper import WHISPER_LANGUAGES
from stages import chunk, evaluate, featurize
from support.data import encoded, real, voice, write_rows
from support.model import hub_folder, hush_timestamps, lock_model, noise, scratch
from support.repository import REPOSITORY, SHARED, SHIPPED
from support.samples import stored, transcript

SECONDS = [
    0.01,
    0.05,
    0.3,
    0.99,
    1.0,
    1.3,
    1.99,
    2.0,
    2.01,
    3.7,
    5.0,
    9.3,
    14.2,
    *np.random.default_rng(0).uniform(0.2, 6, 40).round(3),
]


def babbling(seed: int = 1, **changes: Any) -> Start:
    """A tiny model with random weights, which wavers between words more than any trained one."""
    return hush_timestamps(scratch(seed, init_std=0.5, **changes))


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Recordings that went through chunk and featurize as a test split, and what evaluation has for
    them.
    """
    root = tmp_path_factory.mktemp("scored")
    rows = [
        {
            "id": f"r{n:02d}",
            "audio": encoded(noise(seconds, n), subtype="FLOAT"),
            "text": "ett två",
            "speaker": None,
        }
        | {"attributes": "{}", "duration": seconds}
        for n, seconds in enumerate(map(float, SECONDS))
    ]
    other = [
        {**row, "id": f"{row['id']}-b", "audio": encoded(noise(1.0, 100 + n))}
        for n, row in enumerate(rows[:2])
    ]
    write_rows(root / "raw", "part", {"train": other[:1], "validation": other[1:], "test": rows})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", str(root))
        chunk.run(root / "raw", root / "chunks", root / "reports/chunk", 100, (0.001, 30.0), [])
        featurize.run(root / "chunks", root / "features", 80)
    start = babbling()
    given = reader.load(SHIPPED).evaluate
    table, _ = evaluate.utterances("finetuned", start, FeatureRows(root / "features/test"), given)
    return SimpleNamespace(
        root=root, start=start, said={line["id"]: line["hypothesis"] for line in table}
    )


def differing(scored: SimpleNamespace, folder: Path) -> list[str]:
    """Rows whose recording is transcribed otherwise than evaluation has it."""
    found = []
    for row in shards.rows(scored.root / "chunks/test", ["id", "audio"]):
        recording, samples = folder / "recording", folder / "samples.f32"
        recording.write_bytes(row["audio"])
        sound = sample_file.decode(recording, samples)
        text = " ".join(filter(None, transcript(scored.start, sound)))
        if text != scored.said[row["id"]]:
            found.append(row["id"])
    return found


def test_every_recording_gives_the_text_that_evaluation_scored(
    scored: SimpleNamespace, tmp_path: Path
) -> None:
    assert len(scored.said) == len(SECONDS)
    assert len(set(scored.said.values())) > len(SECONDS) / 2
    assert differing(scored, tmp_path) == []


def test_finer_features_would_not_give_that_text(
    scored: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: several texts would be others."""
    monkeypatch.setattr(features, "stored_log_mel", features.log_mel)
    assert len(differing(scored, tmp_path)) > 3


def test_segments_follow_each_other_over_the_whole_stretch(tmp_path: Path) -> None:
    made, told = stored(tmp_path, np.tile(noise(50.0), 3)), []
    start = babbling(max_target_positions=12)
    found = list(recognizer.transcribe(start, made, 10.0, 149.5, told.append))
    assert found[0].start == 10.0
    assert found[-1].end == pytest.approx(149.5)
    for one, other in pairwise(found):
        assert (
            one.start < one.end == pytest.approx(other.start, abs=0.011)
        )  # a passage's last frame may be a part of one
    assert all(one.end - one.start <= 2.001 for one in found)
    assert told == sorted(told)
    assert (told[0], told[-1]) == (10.0, 149.5)


def test_telling_may_stop_it(tmp_path: Path) -> None:
    def enough(moment: float) -> None:
        if moment > 1:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        list(recognizer.transcribe(babbling(), stored(tmp_path, noise(60.0)), 0.0, 60.0, enough))


def test_language_and_task_are_asked_for_or_the_models_own(tmp_path: Path) -> None:
    start, made = babbling(), stored(tmp_path, noise(3.0))
    generation = start.model.generation_config
    for language, task, prompt, wanted in [
        (None, None, Prompt("sv", OWN), ("sv", "transcribe")),
        ("de", "translate", Prompt("de", SET), ("de", "translate")),
        ("fi", "transcribe", Prompt("fi", SET), ("fi", "transcribe")),
    ]:
        assert recognizer.choose_prompt(start, language, task, made, 0.0, 3.0) == prompt
        assert (generation.language, generation.task) == wanted
    prompt = recognizer.choose_prompt(start, "detect", None, made, 0.0, 3.0)
    assert (prompt.language, prompt.source) == (generation.language, DETECTED)
    assert f"<|{prompt.language}|>" in generation.lang_to_id


@pytest.mark.parametrize(
    ("own", "asked", "source", "text"),
    [
        (None, None, DETECTED, "detected: "),  # a real Whisper, told nothing
        ("fa", None, OWN, "set: Persian, by the model"),  # fine-tuned here
        ("<|fa|>", None, OWN, "set: Persian, by the model"),  # as older models have it
        ("Persian", None, OWN, "set: Persian, by the model"),  # as models of the hub have it
        ("fa", "detect", DETECTED, "detected: "),
        ("fa", "de", SET, "set: German"),
        (None, "de", SET, "set: German"),
    ],
)
def test_a_model_that_was_told_no_language_detects_it_instead_of_inventing_english(
    tmp_path: Path, own: str | None, asked: str | None, source: str, text: str
) -> None:
    start, made = babbling(3), stored(tmp_path, noise(3.0))
    start.model.generation_config.language = own
    prompt = recognizer.choose_prompt(start, asked, None, made, 0.0, 3.0)
    assert prompt.source == source
    assert prompt.text.startswith(text)
    if source == DETECTED:
        assert prompt == recognizer.choose_prompt(start, "detect", None, made, 0.0, 3.0)
    assert start.model.generation_config.language == prompt.language
    assert list(recognizer.transcribe(start, made, 0.0, 3.0))


@pytest.mark.parametrize(
    ("clip", "text"),
    [
        (("common-voice-fa", "clips", "common_voice_fa_37227442.mp3"), "detected: Persian"),
        (("clips", "jfk.flac"), "detected: English"),
    ],
)
def test_a_real_whisper_detects_the_language_of_real_speech(
    tmp_path: Path, clip: tuple[str, ...], text: str
) -> None:
    whisper = SHARED / "models/whisper-base"
    if not whisper.is_dir():
        pytest.skip("no whisper-base beside this repository")
    sound = sample_file.decode(real(*clip), tmp_path / "samples.f32")
    start = recognizer.load(str(whisper))
    assert recognizer.choose_prompt(start, None, None, sound, 0.0, sound.duration).text == text


def test_the_language_detected_is_that_of_the_stretch(tmp_path: Path) -> None:
    start, made = (
        babbling(3),
        stored(tmp_path, np.concatenate([noise(2.0, seed) * 10**-seed for seed in range(4)])),
    )
    whole = [
        recognizer.choose_prompt(start, "detect", None, made, begin, 8.0)
        for begin in (0.0, 2.0, 4.0, 6.0)
    ]
    assert whole == [
        recognizer.choose_prompt(start, "detect", None, made, begin, begin + 2.0)
        for begin in (0.0, 2.0, 4.0, 6.0)
    ]


def test_a_model_of_one_language_is_asked_for_nothing(tmp_path: Path) -> None:
    start = recognizer.load(str(hub_folder(tmp_path / "english", multilingual=False)))
    made = stored(tmp_path, noise(1.0))
    assert recognizer.choose_prompt(start, None, "transcribe", made, 0.0, 1.0) == Prompt(None, OWN)
    for language, task in [("sv", None), ("detect", None), (None, "translate")]:
        with pytest.raises(ParamsError, match="one language and one task"):
            recognizer.choose_prompt(start, language, task, made, 0.0, 1.0)
    assert list(recognizer.transcribe(start, made, 0.0, 1.0))


def test_a_name_is_the_workspace_a_folder_or_a_hub_id(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="dvc repro"):
        models.resolve("workspace")
    (tmp_path / "models/finetuned").mkdir(parents=True)
    assert models.resolve("workspace") == "models/finetuned"
    assert models.resolve("models/finetuned") == "models/finetuned"
    assert models.resolve("openai/whisper-small") == "openai/whisper-small"


def test_the_weights_that_a_name_stands_for_are_told(tmp_path: Path) -> None:
    one, other = babbling(1), babbling(2)
    texts = {recognizer.weights_text(name, one) for name in ("workspace", "models/kept/x")}
    assert len(texts) == 1
    assert texts.isdisjoint({recognizer.weights_text("models/kept/x", other)})
    of_hub = replace(one, revision="0123456789abcdef")
    assert recognizer.weights_text("nobody/whisper", of_hub) == "revision 01234567"
    loader.save(one.model, one.tokenizer, tmp_path / "models/finetuned")
    lock_model(tmp_path, "7d93b370aaaa")
    assert recognizer.weights_text("workspace", one) == "training 7d93b370"
    assert recognizer.weights_text("models/kept/x", one) in texts


@pytest.mark.parametrize(
    "changed",
    [
        "reports/train/run.json",
        "models/finetuned/config.json",
        "models/finetuned/model.safetensors",
        "dvc.lock",
    ],
)
def test_a_report_that_outlived_its_model_names_no_training(tmp_path: Path, changed: str) -> None:
    start = babbling()
    loader.save(start.model, start.tokenizer, tmp_path / "models/finetuned")
    lock_model(tmp_path, "7d93b370aaaa")
    assert models.training() == "7d93b370aaaa"
    with (tmp_path / changed).open("ab") as file:
        file.write(b" x")
    assert models.training() is None
    assert recognizer.weights_text("workspace", start).startswith("weights ")


def touch(folder: Path, *names: str) -> list[Path]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return [folder / name for name in names]


@pytest.mark.parametrize(
    "names",
    [
        ["a.wav", "b.mp3"],
        ["a.wav", "a.mp3", "a.wav.flac"],
        ["one/a.wav", "two/a.wav", "three/a.mp3"],
        ["a.wav.mp3", "a.wav", "a.mp3", "a"],
        ["x/a.wav", "y/a.wav", "y/a.wav-2.mp3"],
    ],
)
def test_no_two_recordings_get_one_transcript(tmp_path: Path, names: list[str]) -> None:
    given = touch(tmp_path, *names)
    for chosen in (given, given[::-1], [*given, given[0]]):
        found = __main__.recordings(chosen)
        assert [path for path, _ in found] == chosen
        assert len({name for _, name in found}) == len(chosen)
        assert all(name.name.startswith(path.stem) for path, name in found)


def test_a_folder_gives_its_recordings_with_their_places_in_it(tmp_path: Path) -> None:
    touch(tmp_path, "in/b/2.MP3", "in/1.wav", "in/notes.txt", "in/b/film.mkv", "in/.hidden.ogg")
    (tmp_path / "in/folder.wav").mkdir()
    found = {
        str(path.relative_to(tmp_path / "in")): str(name)
        for path, name in __main__.recordings([tmp_path / "in"])
    }
    assert found == {
        ".hidden.ogg": ".hidden",
        "1.wav": "1",
        "b/2.MP3": "b/2",
        "b/film.mkv": "b/film",
    }
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="no recording in"):
        __main__.recordings([tmp_path / "none"])
    with pytest.raises(DataError, match="not there"):
        __main__.recordings([tmp_path / "in", tmp_path / "gone.wav"])


def test_formats_are_written_beside_each_other(tmp_path: Path) -> None:
    __main__.write([Segment(0.0, 1.0, "ett")], tmp_path / "b/2.5", FORMATS)
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == sorted(
        f"2.5.{name}" for name in FORMATS
    )


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """One run of the command over good and bad recordings, in every format."""
    root = tmp_path_factory.mktemp("command")
    start = babbling()
    loader.save(start.model, start.tokenizer, root / "models/finetuned")
    odd = os.fsdecode(b"\xff odd \n name.wav")
    good = {
        "in/a.wav": encoded(voice(1.0)),
        "in/deep/b.flac": encoded(voice(5.0, seed=1), format="FLAC"),
        f"in/{odd}": encoded(voice(0.5)),
    }
    for name, content in {**good, "in/broken.mp3": b"no sound", "in/empty.ogg": b""}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    plain = {
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "DVC_ROOT": str(root),
        "PYTHONPATH": str(REPOSITORY),
    }
    arguments = [
        sys.executable,
        "-m",
        "asr.transcribe.__main__",
        "in",
        "--format",
        "all",
        "--out",
        "out",
    ]
    done = subprocess.run(
        arguments,
        cwd=root,
        env={**os.environ, **plain},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    return SimpleNamespace(root=root, start=start, good=good, done=done, odd=odd)


def test_the_command_writes_every_format_of_every_good_recording(command: SimpleNamespace) -> None:
    assert sorted(
        str(path.relative_to(command.root / "out")) for path in (command.root / "out").rglob("*.*")
    ) == sorted(
        f"{name.removeprefix('in/').rpartition('.')[0]}.{kind}"
        for name in command.good
        for kind in FORMATS
    )
    for name, content in command.good.items():
        stem = command.root / "out" / name.removeprefix("in/").rpartition(".")[0]
        written = {kind: Path(f"{stem}.{kind}").read_text(encoding="utf-8") for kind in FORMATS}
        wanted = json.loads(written["json"])
        sound = stored(command.root, codec.decode(content))
        assert wanted["text"] == " ".join(filter(None, transcript(command.start, sound)))
        assert written["txt"].split() == wanted["text"].split()
        assert [row["text"] for row in csv.DictReader(written["csv"].splitlines())] == [
            one["text"] for one in wanted["segments"]
        ]


def test_the_command_leaves_out_what_is_no_sound_and_says_so(command: SimpleNamespace) -> None:
    done = command.done
    assert done.returncode == 3
    language = ": set: Swedish, by the model"
    assert done.stderr.count(language) == len(command.good)
    odd = command.odd.encode("ascii", "backslashreplace").decode()
    said = done.stderr.replace(odd, "odd").strip().splitlines()
    said = [line for line in said if not line.endswith(language)]
    assert [line.partition(":")[0] for line in said] == ["in/broken.mp3", "in/empty.ogg", "error 3"]
    assert said[-1] == "error 3: 2 of 5 recordings could not be transcribed"
    assert "Traceback" not in done.stderr
    assert "in/a.wav: " in done.stdout
    assert not list(Path(command.root).rglob("*.part"))


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["gone.wav"], 3, "gone.wav: not there"),
        (["in/a.wav", "--model", "models/none"], 5, "not there"),
        (["in/a.wav", "--model", "in"], 5, "no config.json"),
        (["in/a.wav", "--model", "nobody/nothing"], 4, "cannot be fetched"),
        (["in/a.wav", "--language", "xx"], 2, "xx"),
        (["in/a.wav", "--format", "doc"], 2, "doc"),
        (["in/a.wav", "--out", "in/a.wav"], 2, "in/a.wav is a file"),
        (["in/broken.mp3", "in/a.wav", "--out", "later"], 3, "1 of 2"),
        ([], 2, "FILE"),
        (["in/a.wav", "--out", "fine"], 0, ""),
    ],
)
def test_the_command_ends_with_the_code_of_the_fault(
    command: SimpleNamespace,
    called: Callable[..., int],
    capfd: pytest.CaptureFixture,
    arguments: list[str],
    code: int,
    says: str,
) -> None:
    assert called(*arguments) == code
    assert says in (capfd.readouterr().err.splitlines() or [""])[-1]
    assert code or (command.root / "fine/a.txt").is_file()


def test_help_tells_every_option(called: Callable[..., int], capsys: pytest.CaptureFixture) -> None:
    assert called("--help") == 0
    said = capsys.readouterr().out
    assert not [
        one
        for one in ("--model", "--language", "--task", "--format", "--out", "earshot transcribe")
        if one not in said
    ]


def test_the_command_asks_for_a_language_and_a_task(
    called: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, str]] = []

    def hear(start: Start, *_: Any) -> Iterator[Segment]:
        seen.append((start.model.generation_config.language, start.model.generation_config.task))
        yield from ()

    monkeypatch.setattr(recognizer, "transcribe", hear)
    for more in (["--language", "de", "--task", "translate"], ["--language", "detect"], []):
        assert called("in/a.wav", "--out", "asked", *more) == 0
    assert [seen[0], seen[2]] == [("de", "translate"), ("sv", "transcribe")]
    assert seen[1][0] in WHISPER_LANGUAGES


@pytest.fixture
def called(command: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command in this process, which has torch already; gives its exit code."""
    monkeypatch.setenv("DVC_ROOT", str(command.root))
    monkeypatch.chdir(command.root)

    def offline(*_: Any, **__: Any) -> None:
        raise OSError("no network here")

    monkeypatch.setattr(
        WhisperConfig, "from_pretrained", of_folder_or(offline, WhisperConfig.from_pretrained)
    )

    def call(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["transcribe", *arguments])
        try:
            exit_with(__main__.main)
        except SystemExit as left:
            return int(left.code or 0)
        return 0

    return call


def of_folder_or(otherwise: Callable[..., Any], read: Callable[..., Any]) -> Callable[..., Any]:
    """Folders are read, and nothing is asked of the hub."""
    return lambda name, **how: read(name, **how) if Path(name).is_dir() else otherwise()
