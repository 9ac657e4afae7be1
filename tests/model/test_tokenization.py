"""Texts to tokens and back, Whisper's special tokens in Whisper's order, and the one prompt."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.errors import ModelError
from asr.model import greedy, loader, tokenization
from asr.whisper import WHISPER_LANGUAGES
from support.model import TEXTS, hub_folder, scratch
from support.repository import REPOSITORY

START = scratch()
SCRIPTS = {
    "Hindi": "नमस्ते दुनिया, क्षत्रिय",
    "Bengali": "বাংলা ভাষা",
    "Thai": "น้ำแข็ง กี่บาท",
    "Arabic": "مَرْحَبًا بِالعَالَم",
    "Chinese": "今天天气很好。",
    "emoji": "I ❤️ 👩‍👩‍👧‍👦 🇸🇪",
    "spaces": " two  spaces\tand\nlines \r\n",
    "quotes": "don 't , said 's . ?",
    "control": "a\x00b\x7f",
}
PRINT_HASH = """
import hashlib, sys
from asr.model import tokenization
texts = sys.stdin.read().split("|")
made = tokenization.from_texts(texts, 300).backend_tokenizer.to_str()
print(hashlib.sha256(made.encode()).hexdigest())
"""


def as_bytes(made: tokenization.WhisperTokenizer) -> bytes:
    return made.backend_tokenizer.to_str().encode()


def there_and_back(text: str) -> str:
    return START.tokenizer.decode(
        tokenization.text_ids(START.tokenizer, [text])[0], skip_special_tokens=True
    )


@settings(max_examples=5)
@given(st.randoms(use_true_random=False))
def test_order_of_texts_does_not_matter(shuffler: random.Random) -> None:
    shuffled = [*TEXTS]
    shuffler.shuffle(shuffled)
    assert as_bytes(tokenization.from_texts(shuffled, 300)) == as_bytes(START.tokenizer)


def test_other_texts_give_another_tokenizer() -> None:
    assert as_bytes(tokenization.from_texts([*TEXTS, "tjugo tjugo tjugo tjugo"], 300)) != as_bytes(
        START.tokenizer
    )


def test_another_process_makes_the_same_tokenizer() -> None:
    environment = {
        **os.environ,
        "PYTHONHASHSEED": "7",
        "PYTHONPATH": str(REPOSITORY),
    }
    told = subprocess.run(
        [sys.executable, "-c", PRINT_HASH],
        input="|".join(reversed(TEXTS)),
        env=environment,
        capture_output=True,
        text=True,
    )
    assert told.stdout.strip() == hashlib.sha256(as_bytes(START.tokenizer)).hexdigest(), told.stderr


def test_vocabulary_is_as_large_as_asked_for_and_special_tokens_come_on_top() -> None:
    made = tokenization.from_texts([f"{number:03d}" for number in range(400)], 320)
    assert made.convert_tokens_to_ids(tokenization.END) == 319
    assert made.convert_tokens_to_ids(tokenization.START) == 320
    assert len(made) == 320 + len(tokenization.special_tokens())


def test_all_hundred_languages_follow_the_start_token_in_whispers_order() -> None:
    first = START.tokenizer.convert_tokens_to_ids(tokenization.START) + 1
    names = START.tokenizer.convert_ids_to_tokens(range(first, first + 100))
    assert names == [f"<|{code}|>" for code in WHISPER_LANGUAGES]
    assert names[:3] == ["<|en|>", "<|zh|>", "<|de|>"]
    assert names[-1] == "<|yue|>"


def test_order_of_special_tokens_is_that_of_large_v3() -> None:
    names = tokenization.special_tokens()
    assert len(names) == 51866 - 50258
    assert [
        names.index(name) + 50258
        for name in (
            "<|startoftranscript|>",
            "<|en|>",
            "<|yue|>",
            "<|translate|>",
            "<|transcribe|>",
        )
    ] == [
        50258,
        50259,
        50358,
        50359,
        50360,
    ]
    assert [
        names.index(name) + 50258
        for name in ("<|nospeech|>", "<|notimestamps|>", "<|0.00|>", "<|30.00|>")
    ] == [
        50363,
        50364,
        50365,
        51865,
    ]


def test_generation_config_leads_each_language_and_task_to_its_token() -> None:
    generation = START.model.generation_config
    ids = START.tokenizer.get_vocab()
    assert generation.lang_to_id == {
        f"<|{code}|>": ids[f"<|{code}|>"] for code in WHISPER_LANGUAGES
    }
    assert generation.task_to_id == {
        "translate": ids["<|translate|>"],
        "transcribe": ids["<|transcribe|>"],
    }
    assert generation.no_timestamps_token_id == ids["<|notimestamps|>"]


@pytest.mark.parametrize(
    "name", ["<|endoftext|>", "<|startoftranscript|>", "<|sv|>", "<|notimestamps|>"]
)
@pytest.mark.parametrize("source", ["scratch", "hub"])
def test_text_that_spells_a_special_token_stays_text(
    name: str, source: str, tmp_path: Path
) -> None:
    made = (
        START.tokenizer
        if source == "scratch"
        else tokenization.load(str(hub_folder(tmp_path / "whisper-tiny")), None)
    )
    text = f"ett {name} två"
    ids = tokenization.text_ids(made, [text])[0]
    assert made.convert_tokens_to_ids(name) not in ids
    assert made.decode(ids, skip_special_tokens=True) == text


@pytest.mark.parametrize("name", ["<|1.00|>", "<|30.00|>"])
def test_text_that_spells_a_timestamp_is_no_timestamp(name: str) -> None:
    assert (
        START.tokenizer.convert_tokens_to_ids(name)
        not in tokenization.text_ids(START.tokenizer, [f"ett {name} två"])[0]
    )


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_comes_back_as_it_went_in(script: str) -> None:
    assert there_and_back(SCRIPTS[script]) == SCRIPTS[script]


@settings(max_examples=60)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_text_comes_back_as_it_went_in(text: str) -> None:
    assert there_and_back(text) == text


def test_tokens_of_a_text_hold_no_prompt_and_no_end() -> None:
    assert tokenization.text_ids(START.tokenizer, ["", "ett"])[0] == []
    assert max(
        tokenization.text_ids(START.tokenizer, TEXTS)[0]
    ) < START.tokenizer.convert_tokens_to_ids(tokenization.END)


@pytest.mark.parametrize(
    ("language", "task"), [("sv", "transcribe"), ("yue", "transcribe"), ("hi", "translate")]
)
def test_prompt_is_what_plain_generate_gives_the_decoder(language: str, task: str) -> None:
    start = scratch(language=language, task=task)
    prompt = tokenization.prompt(start.model.generation_config)
    wanted = ["<|startoftranscript|>", f"<|{language}|>", f"<|{task}|>", "<|notimestamps|>"]
    assert start.tokenizer.convert_ids_to_tokens(prompt) == wanted
    assert prompt == greedy.generation_prompt(start.model)


def test_prompt_of_a_checkpoint_with_old_settings_is_what_generate_gives(tmp_path: Path) -> None:
    start = loader.load(str(hub_folder(tmp_path / "whisper-tiny")), None, 2)
    loader.set_prompt(start.model, "sv", "translate")
    prompt = tokenization.prompt(start.model.generation_config)
    assert start.tokenizer.convert_ids_to_tokens(prompt) == [
        "<|startoftranscript|>",
        "<|sv|>",
        "<|translate|>",
        "<|notimestamps|>",
    ]
    assert prompt == greedy.generation_prompt(start.model)


def test_english_only_model_is_prompted_without_language_and_task(tmp_path: Path) -> None:
    start = loader.load(str(hub_folder(tmp_path / "whisper-tiny.en", multilingual=False)), None, 2)
    loader.set_prompt(start.model, "en", "transcribe")
    prompt = tokenization.prompt(start.model.generation_config)
    assert start.tokenizer.convert_ids_to_tokens(prompt) == [
        "<|startoftranscript|>",
        "<|notimestamps|>",
    ]
    assert greedy.generation_prompt(start.model) == prompt


def test_unknown_language_is_a_bad_model() -> None:
    with pytest.raises(
        ModelError, match=r"no token for <\|gl2\|>; set model.language or model.task to one it has"
    ) as caught:
        tokenization.prompt(scratch(language="gl2").model.generation_config)
    assert caught.value.exit_code == 5


def test_language_that_came_after_the_checkpoint_is_a_bad_model(tmp_path: Path) -> None:
    start = loader.load(str(hub_folder(tmp_path / "whisper-tiny")), None, 2)
    loader.set_prompt(start.model, "yue", "transcribe")
    with pytest.raises(ModelError, match=r"no token for <\|yue\|>"):
        tokenization.prompt(start.model.generation_config)


def test_folder_without_tokenizer_is_a_bad_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no Whisper tokenizer in nothing-here") as caught:
        tokenization.load(str(tmp_path / "nothing-here"), None)
    assert caught.value.exit_code == 5
