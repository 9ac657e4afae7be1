"""A start in the exact layout, shapes and vocabulary of openai/whisper-tiny: spelled, prompted,
fine-tuned and saved as Whisper's.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from asr.model import greedy, loader, tokenization
from asr.model.loader import Start
from asr.params import reader
from asr.storage import files
from asr.whisper import WHISPER_LANGUAGES
from stages import train
from support.model import clip, noise, write_features
from support.repository import TINY, write_params
from support.vocabulary import ranks, spell, suppressed, whisper_tiny, whisper_vocabulary, written

TEXTS = {
    "Swedish": "Ett hundra tjugo räksmörgåsar, sa å-ö; och sedan?",
    "English": "Hello, world! It's 1,000 o'clock and they'll've gone.",
    "German": "Straßenbahnhaltestelle im Gebäude Nr. 42",
    "Greek": "Η γλώσσα είναι όμορφη",
    "Russian": "Съешь ещё этих мягких французских булок",
    "Arabic": "مَرْحَبًا بِالعَالَم",
    "Hindi": "नमस्ते दुनिया, क्षत्रिय",
    "Thai": "น้ำแข็ง กี่บาท",
    "Chinese": "今天天气很好。",
    "Korean": "안녕하세요 세계",
    "Amharic": "ሰላም ለዓለም",
    "emoji": "I ❤️ 👩‍👩‍👧‍👦 🇸🇪",
    "spaces": "  two  spaces\tand\nlines  ",
    "special": "it says <|sv|> and <|endoftext|>",
}


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """0.8 GB of weights and checkpoints, which nobody wants to find afterwards."""
    room = tmp_path_factory.mktemp("hub")
    yield room
    shutil.rmtree(room)


@pytest.fixture(scope="module")
def tiny(room: Path) -> Path:
    return whisper_tiny(room / "whisper-tiny")


@pytest.fixture(scope="module")
def start(tiny: Path) -> Start:
    return loader.load(str(tiny), None, 2)


def test_the_vocabulary_is_whispers_own(start: Start) -> None:
    known = {
        "<|endoftext|>": 50257,
        "<|startoftranscript|>": 50258,
        "<|en|>": 50259,
        "<|sv|>": 50273,
        "<|su|>": 50357,
    }
    known |= {
        "<|translate|>": 50358,
        "<|transcribe|>": 50359,
        "<|startofprev|>": 50361,
        "<|nocaptions|>": 50362,
    }
    known |= {
        "<|notimestamps|>": 50363,
        "<|0.00|>": 50364,
        "<|30.00|>": 51864,
        "Hello": 15947,
        "Ġworld": 1002,
        "": 50256,
    }
    vocab = start.tokenizer.get_vocab()
    assert {token: vocab.get(token) for token in known} == known
    assert len(start.tokenizer) == len(vocab) == start.model.config.vocab_size == 51_865
    assert sorted(vocab.values()) == list(range(51_865))
    assert [
        start.tokenizer.convert_tokens_to_ids(f"<|{code}|>") - 50259
        for code in WHISPER_LANGUAGES[:99]
    ] == list(range(99))


def test_signs_that_are_no_speech_are_those_of_the_hubs_generation_config() -> None:
    assert len(suppressed()) == 88
    assert suppressed()[:10] == [1, 2, 7, 8, 9, 10, 14, 25, 26, 27]
    assert suppressed()[-8:] == [49870, 50254, 50258, 50358, 50359, 50360, 50361, 50362]


def test_texts_of_many_scripts_are_spelled_as_the_ranks_say_and_come_back(start: Start) -> None:
    spelled = dict(
        zip(TEXTS, tokenization.text_ids(start.tokenizer, [*TEXTS.values()]), strict=True)
    )
    assert spelled == {script: spell(text) for script, text in TEXTS.items()}
    assert {
        script: start.tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        for script, ids in spelled.items()
    } == TEXTS


def test_merges_in_another_order_spell_otherwise(start: Start, tmp_path: Path, tiny: Path) -> None:
    """The control of the spelling above: the order of the merges decides."""
    for name in (
        "vocab.json",
        "added_tokens.json",
        "special_tokens_map.json",
        "tokenizer_config.json",
    ):
        shutil.copy(tiny / name, tmp_path / name)
    head, *merges = (tiny / "merges.txt").read_text(encoding="utf-8").splitlines()
    (tmp_path / "merges.txt").write_text("\n".join([head, *merges[::-1]]) + "\n", encoding="utf-8")
    other = tokenization.load(str(tmp_path), None)
    assert tokenization.text_ids(other, [TEXTS["English"]]) != tokenization.text_ids(
        start.tokenizer, [TEXTS["English"]]
    )


def test_every_token_of_a_word_stands_in_the_table(tiny: Path) -> None:
    vocab, merges, _ = whisper_vocabulary()
    assert files.read_json(tiny / "vocab.json") == vocab
    assert (
        len(ranks()) == len(vocab) - 1 == 256 + len(merges) + 1
    )  # bytes, unions, and one empty token, which OpenAI's table has
    assert vocab[written("ö".encode())] == spell("ö")[0]


@pytest.mark.parametrize(("language", "token"), [("sv", 50273), ("fi", 50277), ("haw", 50352)])
def test_the_prompt_of_a_language_is_that_of_plain_generation(
    start: Start, language: str, token: int
) -> None:
    loader.set_prompt(start.model, language, "transcribe")
    assert tokenization.prompt(start.model.generation_config) == [50258, token, 50359, 50363]
    assert greedy.generation_prompt(start.model) == [50258, token, 50359, 50363]


def test_shapes_and_settings_are_those_of_the_hub(tiny: Path) -> None:
    config, generation = (
        files.read_json(tiny / "config.json"),
        files.read_json(tiny / "generation_config.json"),
    )
    assert (config["d_model"], config["max_source_positions"], config["max_target_positions"]) == (
        384,
        1500,
        448,
    )
    assert config["forced_decoder_ids"] == [[1, 50259], [2, 50359], [3, 50363]]
    assert generation["forced_decoder_ids"] == [[1, None], [2, 50359]]
    assert generation["begin_suppress_tokens"] == [220, 50257]
    assert generation["suppress_tokens"] == suppressed()


@pytest.fixture(scope="module")
def splits(room: Path) -> Path:
    texts = [TEXTS["Swedish"], TEXTS["Greek"], TEXTS["Hindi"], TEXTS["English"]]
    rows = [
        {"id": f"{number}", "text": text, "seconds": 1.0 + 0.1 * number}
        for number, text in enumerate(texts)
    ]
    write_features(room / "features/train", rows)
    write_features(
        room / "features/validation",
        [{"id": f"v{number}", "text": "ett två", "seconds": 0.7} for number in range(2)],
    )
    return room / "features"


@pytest.mark.usefixtures("in_process")
def test_it_is_fine_tuned_and_saved_as_plain_transformers_read_it(
    room: Path, tiny: Path, splits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(room))
    changes = {
        "model.name": str(tiny),
        "model.window_seconds": 2,
        "train.max_steps": 3,
        "train.eval_rows": 2,
        "train.warmup_steps": 1,
    }
    given = reader.load(
        write_params(
            room / "params.yaml", {**TINY, **changes, "train.save_steps": 9, "train.eval_steps": 9}
        )
    )
    train.run(splits / "train", splits / "validation", room / "finetuned", room / "reports", given)
    checks = files.read_json(room / "reports/checks.json")
    failed = {
        name: one["detail"] for name, one in checks.items() if not one["passed"] and name != "start"
    }  # random weights know nothing
    assert failed == {}

    processor, plain = (
        WhisperProcessor.from_pretrained(room / "finetuned"),
        WhisperForConditionalGeneration.from_pretrained(room / "finetuned"),
    )
    assert len(processor.tokenizer) == 51_865
    assert processor.tokenizer.decode([50258, 50273, 50359, 50363], skip_special_tokens=True) == ""
    assert plain.generation_config.suppress_tokens == suppressed()
    sounds = [noise(1.5, seed) for seed in range(2)]
    inputs = processor(sounds, sampling_rate=16000, return_tensors="pt").input_features
    with torch.inference_mode():
        told = plain.generate(inputs, max_new_tokens=30)
    ours = loader.load_saved(room / "finetuned")
    heard = greedy.transcribe(
        ours.model, ours.tokenizer, [1.5] * 2, lambda index: clip(1.5, index), 2, 30
    )
    assert [
        text.strip() for text in processor.batch_decode(told, skip_special_tokens=True)
    ] == heard
    assert all(heard)
