"""Transcribing decodes as evaluation does; the command line takes files and folders and loses
nothing.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from huggingface_hub import constants
from transformers import WhisperConfig

from asr import features
from asr.audio import codec, sample_file
from asr.audio.sample_file import SampleFile
from asr.decoding import loading, vocabulary
from asr.decoding.long_form import Transcription, begin_together
from asr.decoding.options import Options
from asr.decoding.recognizer import GREEDY, Recognizer
from asr.decoding.segments import Segment
from asr.engines.engine import FP32, OPENVINO
from asr.errors import DataError, ParamsError, exit_with
from asr.model import loader
from asr.model.loader import Start
from asr.runtime import formatting
from asr.sources.utterances import one_line
from asr.stopping import max_tokens
from asr.storage import files
from asr.transcribe import __main__, models, recognizer
from asr.transcribe.formats import FORMATS
from asr.transcribe.prompt import DETECTED, OWN, SET, Prompt
from asr.transcribe.settings import Settings
from asr.whisper import SAMPLE_RATE, WHISPER_LANGUAGES
from support.data import encoded, real
from support.imports import imported
from support.model import hub_folder, hush_timestamps, lock_model, scratch
from support.repository import REPOSITORY, SHARED
from support.samples import say_evaluated, speech, stored, transcript


def babbling(seed: int = 1, **changes: Any) -> Start:
    """A tiny model with random weights, which wavers between words more than any trained one."""
    return hush_timestamps(scratch(seed, init_std=0.5, **changes))


def greedy(start: Start) -> Recognizer:
    return loading.of_start(start, OPENVINO, FP32, GREEDY)


def begun(
    loaded: Recognizer, sound: SampleFile, language: str | None = None, task: str | None = None
) -> tuple[Transcription, Prompt]:
    """The work on a recording, and what is told of its prompt."""
    work = recognizer.begin(loaded, sound, 0.0, sound.duration)
    (prompt,) = recognizer.choose_prompts([work], language, task)
    return work, prompt


def prompt_of(
    start: Start, sound: SampleFile, language: str | None = None, task: str | None = None
) -> tuple[Prompt, list[int]]:
    """What is told of the prompt, and its tokens where no times are asked for."""
    work, prompt = begun(greedy(start), sound, language, task)
    return prompt, tokens_of(work)


def tokens_of(work: Transcription) -> list[int]:
    """The prompt of the first piece, if there is one."""
    piece = work.first_piece()
    return work.prompt(piece) if piece else []


def texts(work: Transcription) -> list[str]:
    return [segment.text for segment in work.segments()]


SECONDS = [0.3, 0.5, 0.6, 0.61, 0.7, 0.75]  # less than a piece of a model that says no times


def test_a_clip_that_fits_gets_the_tokens_that_generate_gives(tmp_path: Path) -> None:
    """With the same engine, decoding and precision, asked in the same way."""
    start = babbling()
    for seed, seconds in enumerate(SECONDS):
        samples = speech(seconds, seed)
        work, _ = begun(greedy(start), stored(tmp_path, samples))
        inputs = features.input_features([features.stored_log_mel(samples, 80)], 200)
        limit = {"max_new_tokens": max_tokens(seconds)}
        (ids,) = start.model.generate(inputs, **limit)
        wanted = start.tokenizer.decode(ids, skip_special_tokens=True).strip()
        assert texts(work) == [wanted]


def test_finer_features_would_not_give_that_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: several texts would be others."""
    loaded = greedy(babbling())
    sound = stored(tmp_path, speech(60.0))
    before = texts(begun(loaded, sound)[0])
    monkeypatch.setattr(features, "stored_log_mel", features.log_mel)
    after = texts(begun(loaded, sound)[0])
    assert sum(one != other for one, other in zip(before, after, strict=True)) > 2


def test_segments_follow_each_other_over_the_whole_stretch(tmp_path: Path) -> None:
    made, told = stored(tmp_path, np.tile(speech(50.0), 3)), list[float]()
    work = recognizer.begin(greedy(babbling(max_target_positions=12)), made, 10.0, 149.5)
    recognizer.choose_prompts([work], None, None)
    found = list(work.segments(told.append))
    assert found[0].start == pytest.approx(10.0, abs=0.5)
    assert found[-1].end == pytest.approx(149.5, abs=0.5)
    for one, other in pairwise(found):
        assert one.start < one.end <= other.start + 0.4
        assert other.start - one.end < 1.5
    assert all(one.end - one.start <= 2.001 for one in found)
    assert told == sorted(told)
    assert told[0] == pytest.approx(10.0, abs=0.5)
    assert told[-1] == 149.5


def test_telling_may_stop_it(tmp_path: Path) -> None:
    def enough(moment: float) -> None:
        if moment > 1:
            raise InterruptedError

    work, _ = begun(greedy(babbling()), stored(tmp_path, speech(60.0)))
    with pytest.raises(InterruptedError):
        list(work.segments(enough))


def test_short_recordings_side_by_side_get_the_texts_that_they_get_alone(tmp_path: Path) -> None:
    loaded = greedy(babbling())
    lengths = [0.7, 2.0, 0.05, 1.4, 0.3, 1.9]  # of which one holds no speech
    sounds = [
        stored(tmp_path / str(number), speech(seconds, number))
        for number, seconds in enumerate(lengths)
    ]
    alone = []
    for sound in sounds:
        work, _ = begun(loaded, sound, "detect")
        alone.append((tokens_of(work), texts(work)))
    works = [recognizer.begin(loaded, sound, 0.0, sound.duration) for sound in sounds]
    recognizer.choose_prompts(works, "detect", None)
    begin_together(works)
    assert [(tokens_of(work), texts(work)) for work in works] == alone
    assert [bool(said) for _, said in alone] == [True, True, False, True, True, True]


def test_a_language_is_heard_in_the_pass_that_the_text_is_decoded_from(tmp_path: Path) -> None:
    saved = tmp_path / "model"
    start = babbling()
    loader.save(start.model, start.tokenizer, saved)
    loaded = recognizer.load(saved, Settings(OPENVINO, FP32, GREEDY))
    passes: list[int] = []
    inner = loaded.engine.engine.encode  # type: ignore[attr-defined]
    loaded.engine.engine.encode = lambda batch: passes.append(len(batch)) or inner(batch)  # type: ignore[attr-defined]
    works = [
        recognizer.begin(loaded, stored(tmp_path / str(seed), speech(0.7, seed)), 0.0, 0.7)
        for seed in range(3)
    ]
    recognizer.choose_prompts(works, "detect", None)
    begin_together(works)
    assert all(texts(work) for work in works)
    assert passes == [3]


def test_language_and_task_are_asked_for_or_the_models_own(tmp_path: Path) -> None:
    start, made = babbling(), stored(tmp_path, speech(1.0))
    known = vocabulary.of_model(start)
    for language, task, prompt, wanted in [
        (None, None, Prompt("sv", OWN), ("sv", "transcribe")),
        ("de", "translate", Prompt("de", SET, task="translate"), ("de", "translate")),
        ("fi", "transcribe", Prompt("fi", SET, task="transcribe"), ("fi", "transcribe")),
    ]:
        assert prompt_of(start, made, language, task) == (prompt, known.prompt(*wanted, False))
    prompt, tokens = prompt_of(start, made, "detect")
    assert prompt.source == DETECTED
    assert tokens == known.prompt(prompt.language, "transcribe", False)
    assert 0 < prompt.probability <= 1


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
    start, made = babbling(3), stored(tmp_path, speech(1.0))
    start.model.generation_config.language = own
    prompt, tokens = prompt_of(start, made, asked)
    assert prompt.source == source
    assert prompt.text.startswith(text)
    if source == DETECTED:
        assert (prompt, tokens) == prompt_of(start, made, "detect")
        assert prompt.text.endswith(f", {formatting.percent(prompt.probability, 0)}")
    assert tokens[1] == vocabulary.of_model(start).languages[str(prompt.language)]


@pytest.fixture(scope="module")
def whisper_base(tmp_path_factory: pytest.TempPathFactory) -> Recognizer:
    folder = SHARED / "models/whisper-base"
    if not folder.is_dir():
        pytest.skip("no whisper-base beside this repository")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", str(tmp_path_factory.mktemp("base")))
        return recognizer.load(folder, Settings(OPENVINO, FP32, GREEDY))


@pytest.mark.parametrize(
    ("clip", "text"),
    [
        (("common-voice-fa", "clips", "common_voice_fa_36537905.mp3"), "detected: Persian, "),
        (("clips", "jfk.flac"), "detected: English, "),
    ],
)
def test_a_real_whisper_detects_the_language_of_real_speech(
    whisper_base: Recognizer, tmp_path: Path, clip: tuple[str, ...], text: str
) -> None:
    sound = sample_file.decode(real(*clip), tmp_path / "samples.f32")
    _, prompt = begun(whisper_base, sound)
    assert prompt.text.startswith(text)


def test_a_model_of_one_language_is_asked_for_nothing(tmp_path: Path) -> None:
    start = loader.load(str(hub_folder(tmp_path / "english", multilingual=False)), None, None)
    made = stored(tmp_path, speech(1.0))
    assert prompt_of(start, made, None, "transcribe")[0] == Prompt(None, OWN)
    for language, task in [("sv", None), ("detect", None), (None, "translate")]:
        with pytest.raises(ParamsError, match="English only"):
            prompt_of(start, made, language, task)


def test_a_name_is_the_workspace_or_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="dvc repro"):
        models.resolve("workspace")
    folder = tmp_path / "models/finetuned"
    folder.mkdir(parents=True)
    assert models.resolve("workspace") == models.resolve("models/finetuned") == folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache with one model, `nobody/whisper`, whose commit is 40 times an a."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    top = tmp_path / "hub/models--nobody--whisper"
    files.write_text(top / "refs/main", "a" * 40)
    return hub_folder(top / "snapshots" / ("a" * 40))


def test_a_hub_id_is_the_copy_that_is_here(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "_fetch_from_hub", pytest.fail)
    assert models.resolve("nobody/whisper") == hub
    assert models.weights_text("nobody/whisper", hub) == f"revision {'a' * 8}"


def without_weights(hub: Path) -> None:
    (hub / "model.safetensors").unlink()


def without_a_part(hub: Path) -> None:
    files.write_json(
        hub / "model.safetensors.index.json",
        {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}},
    )


def without_a_name(hub: Path) -> None:
    (hub.parents[1] / "refs/main").unlink()


@pytest.mark.parametrize("broken", [without_weights, without_a_part, without_a_name])
def test_a_model_of_the_hub_that_is_not_whole_is_fetched(
    hub: Path, monkeypatch: pytest.MonkeyPatch, broken: Callable[[Path], None]
) -> None:
    monkeypatch.setattr(models, "_fetch_from_hub", lambda name: Path("fetched", name))
    broken(hub)
    assert models.resolve("nobody/whisper") == Path("fetched/nobody/whisper")


def saved(start: Start, folder: Path) -> Path:
    loader.save(start.model, start.tokenizer, folder)
    return folder


def test_a_model_is_converted_once_and_again_when_its_files_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    converted: list[Path] = []
    convert = loading._load
    monkeypatch.setattr(loading, "_load", lambda path: converted.append(path) or convert(path))
    model = saved(babbling(1), tmp_path / "model")
    same = saved(babbling(1), tmp_path / "elsewhere")
    fp32, bold = Settings(OPENVINO, FP32, GREEDY), Settings(OPENVINO, FP32, "robust")
    for folder, settings in [(model, fp32), (model, bold), (model, fp32), (same, fp32)]:
        recognizer.load(folder, settings)
    assert converted == [model]
    saved(babbling(2), model)
    recognizer.load(model, fp32)
    assert converted == [model, model]
    shutil.rmtree(tmp_path / ".cache")
    recognizer.load(model, fp32)
    assert converted == [model] * 3


def test_the_weights_that_a_name_stands_for_are_told(tmp_path: Path) -> None:
    one = saved(babbling(1), tmp_path / "models/finetuned")
    same = saved(babbling(1), tmp_path / "models/kept/same")
    other = saved(babbling(2), tmp_path / "models/kept/other")
    (text,) = {models.weights_text("workspace", one), models.weights_text("models/kept/x", same)}
    assert text != models.weights_text("models/kept/other", other)
    lock_model(tmp_path, "7d93b370aaaa")
    assert models.weights_text("workspace", one) == "training 7d93b370"
    assert models.weights_text("models/kept/x", one) == text


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
    folder = saved(babbling(), tmp_path / "models/finetuned")
    lock_model(tmp_path, "7d93b370aaaa")
    assert models.training() == "7d93b370aaaa"
    with (tmp_path / changed).open("ab") as file:
        file.write(b" x")
    assert models.training() is None
    assert models.weights_text("workspace", folder).startswith("weights ")


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
    saved(babbling(), root / "models/finetuned")
    say_evaluated(root)
    odd = os.fsdecode(b"\xff odd \n name.wav")
    good = {
        "in/a.wav": encoded(speech(1.0)),
        "in/deep/b.flac": encoded(speech(5.0, seed=1), format="FLAC"),
        f"in/{odd}": encoded(speech(0.5)),
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
    return SimpleNamespace(root=root, good=good, done=done, odd=odd)


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
        assert wanted["text"] == " ".join(transcript(command.root / "models/finetuned", sound))
        assert written["txt"].split() == one_line(wanted["text"]).split()
        with Path(f"{stem}.csv").open(newline="", encoding="utf-8") as table:
            rows = list(csv.DictReader(table))
        assert [row["text"] for row in rows] == [one["text"] for one in wanted["segments"]]


def test_the_command_leaves_out_what_is_no_sound_and_says_so(command: SimpleNamespace) -> None:
    done = command.done
    assert done.returncode == 3
    language = ": set: Swedish, by the model; greedy, OpenVINO in fp32"
    assert done.stderr.count(language) == len(command.good)
    odd = command.odd.encode("ascii", "backslashreplace").decode()
    said = done.stderr.replace(odd, "odd").strip().splitlines()
    times = ": times: cut at pauses, for this model does not know times"
    assert sum(line.endswith(times) for line in said) == len(command.good)
    told = (language, times, "which is set")
    said = [line for line in said if not line.endswith(told)]
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
        (["in/a.wav", "--out", "in/a.wav/under"], 7, "--out: in/a.wav/under cannot be written"),
        (["in/a.wav", "--out", "/proc/here"], 7, "--out: /proc/here cannot be written into"),
        (["in/broken.mp3", "in/a.wav", "--out", "later"], 3, "1 of 2"),
        ([], 2, "FILE"),
        (["in/a.wav", "--max-line-width", "0"], 2, "got 0, want a number from 1, or None"),
        (["in/a.wav", "--max_line_count", "two"], 2, "got two, want a number from 1, or None"),
        (["in/a.wav", "--max_lines", "2"], 2, "--max-lines"),
        (["in/a.wav", "--engine", "abacus"], 2, "abacus"),
        (["in/a.wav", "--precision", "fp16"], 2, "OpenVINO does not compute in fp16"),
        (["in/a.wav", "--decoding", "boldly"], 2, "boldly"),
        (["in/a.wav", "--beam_size", "0"], 2, "got 0, want a number from 1"),
        (["in/a.wav", "--temperature", "2"], 2, "got 2, want a number from 0 to 1"),
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


OPTIONS = """
    --model --language --task --format --out --engine --precision --decoding --word-timestamps
    --initial-prompt --condition-on-previous-text --beam-size --temperature --max-line-width
""".split()


def test_help_tells_every_option(called: Callable[..., int], capsys: pytest.CaptureFixture) -> None:
    assert called("--help") == 0
    said = capsys.readouterr().out
    assert not [one for one in (*OPTIONS, "earshot transcribe") if one not in said]


LONG = "one two three four five, six seven eight nine ten."
ASKED = {
    "": ["one two three four five,\nsix seven eight nine ten."],
    "--max_line_width 80": [LONG],
    "--max-line-width 24 --max-line-count 1": [
        "one two three four five,",
        "six seven",
        "eight nine ten.",
    ],
    "--max_words_per_line=5": ["one two three four five,", "six seven eight nine ten."],
    "--max-words-per-line 3 --max-line-count 2": [
        "one two\nthree four five,",
        "six seven\neight nine ten.",
    ],
    "--max_line_width None": [LONG],
}


@pytest.mark.parametrize("asked", ASKED)
def test_subtitles_are_cut_as_the_command_line_asks(
    called: Callable[..., int], monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    said = [Segment(0.0, 6.0, LONG)]
    monkeypatch.setattr(Transcription, "segments", lambda *_: iter(said))
    assert called("in/a.wav", "--format", "all", "--out", "cut", *asked.split()) == 0
    blocks = Path("cut/a.srt").read_text(encoding="utf-8").strip().split("\n\n")
    assert [block.split("\n", 2)[2] for block in blocks] == ASKED[asked]
    assert Path("cut/a.txt").read_text(encoding="utf-8") == f"{LONG}\n"


def test_the_command_asks_for_a_language_a_task_and_more(
    called: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Transcription] = []

    def hear(work: Transcription, *_: Any) -> Iterator[Segment]:
        seen.append(work)
        yield from ()

    monkeypatch.setattr(Transcription, "segments", hear)
    more = "--initial_prompt x --beam-size 3 --temperature 0.2 --condition_on_previous_text True"
    for asked in ("--language de --task translate", "--language detect", more):
        assert called("in/a.wav", "--out", "asked", *asked.split()) == 0
    assert [(work.language, work.task) for work in (seen[0], seen[2])] == [
        ("de", "translate"),
        ("sv", None),
    ]
    assert seen[1].language in WHISPER_LANGUAGES
    assert seen[2].options == Options(3, 0.2, "x", True, False)


def test_the_command_says_that_nothing_was_spoken(
    called: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("quiet.wav").write_bytes(encoded(np.zeros(SAMPLE_RATE, np.float32)))
    for asked in ([], ["--language", "detect"]):
        assert called("quiet.wav", "in/a.wav", "--out", "quiet", *asked) == 0
        said = capsys.readouterr().err
        assert "quiet.wav: no words were heard" in said
        assert "in/a.wav: no words were heard" not in said
        assert ("quiet.wav: no speech found; " in said) == bool(asked), "a language was guessed"
        assert "in/a.wav: no speech found" not in said


def test_a_language_that_was_detected_is_not_doubted_after_a_silent_recording(
    called: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(recognizer, "_doubted", lambda _, prompts: asked.append(1) or prompts)
    Path("still.wav").write_bytes(encoded(np.zeros(SAMPLE_RATE, np.float32)))
    assert called("still.wav", "in/a.wav", "--out", "still", "--language", "detect") == 0
    assert not asked
    assert called("in/a.wav", "--out", "still", "--language", "sv") == 0
    assert asked, "the control"


def test_the_command_when_stopped_says_what_is_written(
    called: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write = __main__.write

    def interrupted(segments: list[Segment], out: Path, *_: Any) -> None:
        if out.name == "b":
            raise KeyboardInterrupt
        write(segments, out, FORMATS)

    monkeypatch.setattr(__main__, "write", interrupted)
    copies = [Path(f"{name}.wav") for name in "abc"]
    for path in copies:
        shutil.copy("in/a.wav", path)
    assert called(*map(str, copies), "--out", "stopped") == 128 + signal.SIGINT
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.endswith("stopped; the transcripts of 1 of 3 recordings are in stopped")
    assert {path.stem for path in Path("stopped").iterdir()} == {"a"}


@pytest.fixture
def called(command: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command in this process, which has torch already; gives its exit code."""
    monkeypatch.setenv("DVC_ROOT", str(command.root))
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
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


def heavy_of(command: SimpleNamespace, engine: str) -> list[str]:
    """The heavy libraries in a process that transcribes what the command of before did."""
    out = command.root / engine
    code = f"""
import os, sys
os.environ["DVC_ROOT"] = {str(command.root)!r}
sys.argv = ["transcribe", {str(command.root / "in/a.wav")!r}, "--out", {str(out)!r}]
sys.argv += ["--engine", {engine!r}]
from asr.transcribe import __main__
__main__.main()
"""
    found = imported(code, "torch", "transformers", "mlflow", "dvc", "datasets", "openvino")
    assert (out / "a.txt").read_bytes() == (command.root / "out/a.txt").read_bytes()
    return found


def test_a_converted_model_transcribes_without_torch(command: SimpleNamespace) -> None:
    assert heavy_of(command, OPENVINO) == [OPENVINO]


def test_torch_gives_the_same_text_and_is_noticed(command: SimpleNamespace) -> None:
    """The control."""
    assert heavy_of(command, "torch")[:2] == ["torch", "transformers"]


@pytest.mark.parametrize("small", [True, False])
def test_the_first_recording_is_unpacked_alone_and_small_ones_together(
    tmp_path: Path, small: bool
) -> None:
    size = 1000 if small else __main__.GROUP_BYTES // 2
    inputs = []
    for number in range(20):
        path = tmp_path / f"{number}.wav"
        with path.open("wb") as file:
            file.truncate(size)
        inputs.append((path, Path(str(number))))
    found = list(__main__.groups(inputs))
    assert [one for group in found for one in group] == inputs
    assert [len(group) for group in found] == ([1, 16, 3] if small else [1, *[2] * 9, 1])


def test_short_recordings_in_a_row_are_decoded_side_by_side(tmp_path: Path) -> None:
    loaded = greedy(babbling())
    lengths = [1.0, 1.5, 9.0, *[1.0] * 10, 9.0, 9.0]

    def work(number: int, seconds: float) -> __main__.Work:
        sound = stored(tmp_path / str(number), np.zeros(round(seconds * 16_000)))
        job = recognizer.begin(loaded, sound, 0.0, seconds)
        return __main__.Work(sound.path, Path(str(number)), job)

    works = [work(number, seconds) for number, seconds in enumerate(lengths)]
    found = list(__main__.batches(works))
    assert [one for batch in found for one in batch] == works
    assert [len(batch) for batch in found] == [2, 1, 8, 2, 1, 1]
