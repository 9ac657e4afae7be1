"""Every param alone does what it is for: each has its row here, with another value and what that
changes in an output, in the model or in a training. What a row expects must not hold before the
change: that is the control of each.
"""

from __future__ import annotations

import copy
import io
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from accelerate.state import AcceleratorState
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperAttention

from asr import augmentation, paths, windows
from asr.audio import codec
from asr.cleaning import split_overlap
from asr.errors import UserError
from asr.evaluation import decoded, hypotheses
from asr.evaluation.table import FINETUNED
from asr.features import FeatureRows
from asr.model import loader, lora
from asr.model.start import choose_trained, start_model
from asr.params import reader
from asr.params.schema import Params
from asr.sources import selection
from asr.storage import files, shards
from asr.tracking import follower
from asr.training.loop import Training
from stages import chunk, download, evaluate, featurize, stats
from support.data import encoded, voice
from support.hub import served
from support.model import hush_timestamps, scratch
from support.repository import SHIPPED, TINY, write_params
from support.training import run

Row = tuple[str, str, str, str, dict[str, Any]]  # id, split, text, speaker, attributes
Rows = list[Row]


def counts(rows: Rows) -> list[int]:
    """Rows of each split."""
    return [sum(row[1] == split for row in rows) for split in SPLITS]


def voices(rows: Rows, split: str) -> set[str]:
    return {row[3] for row in rows if row[1] == split}


def lengths(rows: Rows) -> tuple[int, int]:
    """Words of the shortest text, and of the longest."""
    words = [len(row[2].split()) for row in rows]
    return min(words), max(words)


def least(rows: Rows, name: str) -> int:
    return min(row[4][name] for row in rows)


def most(rows: Rows, name: str) -> int:
    return max(row[4][name] for row in rows)


def texts(rows: Rows, split: str = "") -> list[str]:
    return [row[2] for row in rows if row[1] == split or not split]


SPLITS = ("train", "validation", "test")
STEPS = "step,train_loss,learning_rate,validation_loss,validation_wer\n4,1.0,0.001,1.0,1.0\n"
HALF = [{"field": "source", "any_of": ["spoken numbers in sv"], "weight": 0.5, "otherwise": 1.0}]
ADDED = [{"source": "synthetic", "share": 0.5, "role": "train", "seed": 9}]
# Another value of a param, and what is then true of the rows that would be fetched.
Effect = tuple[Any, Callable[[Rows], bool]]
DOWNLOAD: dict[str, Effect] = {
    "language": ("de", lambda rows: rows[0][2] == "achtundzwanzig neunundneunzig sechsundfünfzig"),
    "max_rows_per_split": (4, lambda rows: counts(rows) == [4, 4, 4]),
    "seed": (2, lambda rows: rows[0][2] == "sjutton nitton" and counts(rows) == [40, 8, 8]),
    "synthetic.rows.train": (41, lambda rows: counts(rows) == [41, 8, 8]),
    "synthetic.rows.validation": (9, lambda rows: counts(rows) == [40, 9, 8]),
    "synthetic.rows.test": (9, lambda rows: counts(rows) == [40, 8, 9]),
    "synthetic.voices.train": (9, lambda rows: len(voices(rows, "train")) == 9),
    "synthetic.voices.validation": (3, lambda rows: len(voices(rows, "validation")) == 3),
    "synthetic.voices.test": (5, lambda rows: len(voices(rows, "test")) == 5),
    "synthetic.max_number": (99, lambda rows: not any("hundra" in text for text in texts(rows))),
    "synthetic.min_numbers": (1, lambda rows: lengths(rows) == (1, 3)),
    "synthetic.max_numbers": (4, lambda rows: lengths(rows) == (2, 4)),
    "synthetic.min_words_per_minute": (100, lambda rows: least(rows, "words_per_minute") < 160),
    "synthetic.max_words_per_minute": (300, lambda rows: most(rows, "words_per_minute") > 205),
    "synthetic.min_pitch": (0, lambda rows: least(rows, "pitch") < 35),
    "synthetic.max_pitch": (99, lambda rows: most(rows, "pitch") > 65),
    "where": (HALF, lambda rows: counts(rows) == [20, 8, 8]),
    "mix": (ADDED, lambda rows: 50 < counts(rows)[0] < 70 and counts(rows)[1:] == [8, 8]),
}
# Params of one source, which is set besides, and whose corpus the test makes.
SWAPPED = {"train": "train", "validation": "test", "test": "validation"}
OF_SOURCES: dict[str, Effect] = {
    "common_voice.splits": ("validated", lambda rows: "text e" in texts(rows)),
    "digits.rows.train": (13, lambda rows: counts(rows)[0] == 13),
    "digits.rows.validation": (4, lambda rows: counts(rows)[1] == 4),
    "digits.rows.test": (4, lambda rows: counts(rows)[2] == 4),
    "digits.speakers.validation": (
        ["george"],
        lambda rows: voices(rows, "validation") == {"george"},
    ),
    "digits.speakers.test": (["george"], lambda rows: voices(rows, "test") == {"george"}),
    "digits.min_digits": (1, lambda rows: lengths(rows) == (1, 6)),
    "digits.max_digits": (3, lambda rows: lengths(rows) == (2, 3)),
    "huggingface.config": ("other", lambda rows: texts(rows, "train") == ["other train"]),
    "huggingface.revision": ("old", lambda rows: texts(rows, "train") == ["old train"]),
    "huggingface.splits": (SWAPPED, lambda rows: texts(rows, "test") == ["default validation"]),
    "huggingface.columns": (
        {"text": "words"},
        lambda rows: texts(rows, "train") == ["words of default train"],
    ),
}
CHUNK: dict[str, tuple[Any, Callable[[list[list[float]]], bool]]] = {
    "rows_per_chunk": (5, lambda files: max(map(len, files)) == 5),
    "min_seconds": (1.5, lambda files: min(map(min, files)) >= 1.5),
    "max_seconds": (1.5, lambda files: max(map(max, files)) <= 1.5),
}
# The draws of a copy that another value changes. Speed also changes the length, and with it the
# stretch of noise, but not its name or its loudness.
AUGMENT = {
    "speed.probability": (0.0, {"speed"}),
    "speed.min": (0.8, {"speed"}),
    "speed.max": (1.3, {"speed"}),
    "reverberation.probability": (0.0, {"room"}),
    "reverberation.min_rt60_seconds": (0.7, {"room"}),
    "reverberation.max_rt60_seconds": (0.3, {"room"}),
    "noise.probability": (0.0, {"noise", "snr_db"}),
    "noise.babble_voices": (2, {"noise"}),
    "noise.min_snr_db": (15, {"snr_db"}),
    "noise.max_snr_db": (10, {"snr_db"}),
    "gain.probability": (0.0, {"gain_db"}),
    "gain.min_db": (-3, {"gain_db"}),
    "gain.max_db": (1, {"gain_db"}),
    "seed": (7, {"speed", "room", "snr_db", "gain_db"}),  # and the voices of the babble
}
FOLDERS = {"reverberation.folder": "rooms", "noise.folder": "noises"}
# Another value, and the fields of the configs of the start model that then have which value.
START: dict[str, tuple[Any, dict[str, Any]]] = {
    "language": ("de", {"generation language": "de"}),
    "task": ("translate", {"generation task": "translate"}),
    "window_seconds": (4, {"max_source_positions": 200}),
    "dropout": (0.3, {"dropout": 0.3}),
    "attention_dropout": (0.3, {"attention_dropout": 0.3}),
    "activation_dropout": (0.3, {"activation_dropout": 0.3}),
    "encoder_layerdrop": (0.9, {"encoder_layerdrop": 0.9}),
    "decoder_layerdrop": (0.9, {"decoder_layerdrop": 0.9}),
    "apply_spec_augment": (True, {"apply_spec_augment": True}),
    "mask_time_prob": (0.2, {"mask_time_prob": 0.2}),
    "mask_time_length": (3, {"mask_time_length": 3}),
    "mask_time_min_masks": (5, {"mask_time_min_masks": 5}),
    "mask_feature_prob": (0.3, {"mask_feature_prob": 0.3}),
    "mask_feature_length": (3, {"mask_feature_length": 3}),
    "mask_feature_min_masks": (5, {"mask_feature_min_masks": 5}),
    "scratch.window_seconds": (4, {"max_source_positions": 200}),
    "scratch.d_model": (64, {"d_model": 64}),
    "scratch.encoder_layers": (2, {"encoder_layers": 2}),
    "scratch.encoder_attention_heads": (4, {"encoder_attention_heads": 4}),
    "scratch.encoder_ffn_dim": (32, {"encoder_ffn_dim": 32}),
    "scratch.decoder_layers": (2, {"decoder_layers": 2}),
    "scratch.decoder_attention_heads": (4, {"decoder_attention_heads": 4}),
    "scratch.decoder_ffn_dim": (32, {"decoder_ffn_dim": 32}),
    "scratch.max_target_positions": (
        24,
        {"max_target_positions": 24, "generation max_length": 24},
    ),
    "scratch.init_std": (0.05, {"init_std": 0.05}),
}
LORA: dict[str, tuple[Any, Callable[[str, Any], bool]]] = {
    "rank": (4, lambda _, layer: layer.r["default"] == 4),
    "alpha": (16, lambda _, layer: layer.scaling["default"] == 16 / 2),
    "dropout": (0.3, lambda _, layer: getattr(layer.lora_dropout["default"], "p", 0) == 0.3),
    "target_modules": (["fc1"], lambda name, _: name.endswith("fc1")),
}
# The training of every row below, but for what its row says: three evaluations, no noise.
SHORT = {
    "train.max_steps": 6,
    "train.warmup_steps": 2,
    "train.eval_steps": 3,
    "train.save_steps": 2,
    "train.logging_steps": 1,
}
# Another value, what is set besides, and what of the training then differs (see `Shown`); nothing
# else does.
LEARNT = {"losses", "validation_losses"}
TRAINING: dict[str, tuple[Any, dict[str, Any], set[str]]] = {
    "train.learning_rate": (3e-4, {}, {"rates", *LEARNT}),
    "train.lr_scheduler_type": ("linear", {}, {"rates", *LEARNT}),
    "train.warmup_steps": (3, {}, {"rates", *LEARNT}),
    "train.max_steps": (5, {}, {"rates", "steps", "evaluated", "saved", *LEARNT, "passes"}),
    "train.per_device_train_batch_size": (5, {}, {"batches", *LEARNT}),
    "train.per_device_eval_batch_size": (3, {}, {"evaluation_batches"}),
    "train.gradient_accumulation_steps": (2, {}, {"batches", "passes", *LEARNT}),
    "train.gradient_checkpointing": (True, {}, {"passes"}),
    "train.weight_decay": (5.0, {}, LEARNT),
    "train.max_grad_norm": (0.01, {}, LEARNT),
    "train.label_smoothing_factor": (0.2, {}, LEARNT),
    "train.eval_steps": (2, {}, {"evaluated", "validation_losses"}),
    "train.eval_rows": (4, {}, {"validation_losses"}),
    "train.early_stopping_patience": (
        1,
        {"train.eval_steps": 1, "train.learning_rate": 1e-9},
        {"rates", "steps", "evaluated", "saved", "passes", *LEARNT},
    ),
    "train.average_weights": ("last", {"train.average_count": 2}, {"averaged"}),
    "train.average_count": (
        2,
        {"train.eval_steps": 2, "train.average_weights": "last"},
        {"averaged"},
    ),
    "train.save_steps": (5, {}, {"saved"}),
    "train.logging_steps": (3, {}, {"steps", "losses", "rates"}),
    "train.timestamp_share": (0.5, {}, LEARNT),
    "train.pack_to_window": (
        True,
        {
            "train.timestamp_share": 1.0,
            "model.window_seconds": 8,
            "model.scratch.max_target_positions": 96,
        },
        {"examples", *LEARNT},
    ),
    "train.no_speech_share": (0.2, {}, {"examples", *LEARNT}),
    "train.precision": ("bf16", {}, LEARNT),
    "train.seed": (7, {}, LEARNT),
    "model.dropout": (0.3, {}, LEARNT),
    "model.attention_dropout": (0.3, {}, LEARNT),
    "model.activation_dropout": (0.3, {}, LEARNT),
    "model.encoder_layerdrop": (0.9, {}, {"passes", *LEARNT}),
    "model.decoder_layerdrop": (0.9, {}, {"passes", *LEARNT}),
    "model.apply_spec_augment": (True, {}, LEARNT),
    "model.freeze_encoder": ("all", {}, {"trained", *LEARNT}),
}
BRIEF = {"evaluate.bootstrap_resamples": 100}
# Another value, and what of the scores then differs; nothing else does.
TEXTS = {"texts", "scores", "interval"}
EVALUATE = {
    "decoding": ("greedy", {"how", "hard", *TEXTS}),
    "engine": ("torch", {"how"}),
    "per_device_eval_batch_size": (3, {"batches"}),
    "max_new_tokens": (3, {"hard", *TEXTS}),
    "baselines": ([], {"models"}),
    "bootstrap_resamples": (300, {"interval"}),
    "seed": (7, {"interval"}),
}
COVERED = {
    "download.source",
    "download.path",
    *(f"download.{key}" for key in (*DOWNLOAD, *OF_SOURCES)),
    "stats.window_candidates_seconds",
    "stats.min_share_kept",
    *(f"chunk.{key}" for key in (*CHUNK, "allow_shared")),
    "featurize.num_mel_bins",
    "featurize.augment.copies",
    *(f"featurize.augment.{key}" for key in (*AUGMENT, *FOLDERS)),
    "model.name",
    "model.scratch.vocab_size",
    *(f"model.{key}" for key in START),
    *(f"model.lora.{key}" for key in LORA),
    "model.revision",
    *TRAINING,
    *(f"evaluate.{key}" for key in (*EVALUATE, "precision")),
}


def changed(tmp_path: Path, **changes: Any) -> Params:
    return reader.load(write_params(tmp_path / "changed.yaml", {**TINY, **changes}))


def test_every_param_is_tried_here() -> None:
    assert set(reader.flat(reader.load(SHIPPED).model_dump())) == COVERED


def listed(given: Params, working: Path) -> Rows:
    """What `download` would fetch, and how often it counts."""
    place = Path(tempfile.mkdtemp(dir=working))
    opened = download.sources(given.download, place)
    chosen = [
        row
        for one in opened
        for row in selection.select(one.corpus.utterances, one.selection, one.counts)
    ]
    return [(one.id, one.split, one.text, one.speaker or "", one.attributes) for one in chosen]


@pytest.mark.parametrize("key", DOWNLOAD)
def test_download(key: str, tmp_path: Path, tiny_params: Params) -> None:
    value, holds = DOWNLOAD[key]
    assert holds(listed(changed(tmp_path, **{f"download.{key}": value}), tmp_path))
    assert not holds(listed(tiny_params, tmp_path))


def test_the_source_and_the_path_are_where_a_corpus_is_looked_for(tmp_path: Path) -> None:
    for name in ("here", "elsewhere"):
        with pytest.raises(UserError, match=f"{name} is not there"):
            listed(
                changed(tmp_path, **{"download.source": "folder", "download.path": name}), tmp_path
            )


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small corpus of each source that reads files; nothing of their sound matters here."""
    root = tmp_path_factory.mktemp("corpora")
    (root / "digits/recordings").mkdir(parents=True)
    for speaker in ("george", "jackson", "lucas", "theo"):
        for digit in range(10):
            (root / "digits/recordings" / f"{digit}_{speaker}_0.wav").write_bytes(
                encoded(voice(0.1, 8_000), 8_000)
            )
    (root / "common_voice/clips").mkdir(parents=True)
    for name, speakers in {"train": "ab", "dev": "c", "test": "d", "validated": "abcde"}.items():
        rows = [f"{speaker}\t{speaker}.mp3\ttext {speaker}" for speaker in speakers]
        (root / f"common_voice/{name}.tsv").write_text(
            "\n".join(["client_id\tpath\tsentence", *rows, ""])
        )
    return root


def parquet(name: str, text: str) -> bytes:
    file = io.BytesIO()
    sound = pa.array(
        [{"bytes": b"sound", "path": name}],
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    )
    pq.write_table(
        pa.table({"audio": sound, "sentence": [text], "words": [f"words of {text}"]}), file
    )
    return file.getvalue()


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    """A hub with one data set of two configs, and another revision of it."""
    splits, configs = ("train", "validation", "test"), ("default", "other")
    main = {
        f"{config}/{split}-00000-of-00001.parquet": parquet(split, f"{config} {split}")
        for config in configs
        for split in splits
    }
    old = {
        f"default/{split}-00000-of-00001.parquet": parquet(split, f"old {split}")
        for split in splits
    }
    with served({"someone/speech": {"main": main, "old": old}}) as one:
        yield one.uri


@pytest.mark.parametrize("key", OF_SOURCES)
def test_params_of_a_source(
    key: str, tmp_path: Path, corpora: Path, hub: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub)
    source = key.partition(".")[0]
    place = "someone/speech" if source == "huggingface" else str(corpora / source)
    besides = {
        "download.source": source,
        "download.path": place,
        "download.language": "en",
        "download.huggingface.config": "default",
    }
    besides |= {"download.digits.rows.train": 12, "download.digits.rows.validation": 3}
    value, holds = OF_SOURCES[key]
    assert holds(listed(changed(tmp_path, **{**besides, f"download.{key}": value}), tmp_path))
    assert not holds(listed(changed(tmp_path, **besides), tmp_path))


def test_stats(
    tmp_path: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tiny_data))  # where the recordings were measured before

    def told(**changes: Any) -> tuple[list[str], str]:
        """The windows of the table, and the reason of the one that is recommended."""
        stats.run(tiny_data / "data/raw", tmp_path / "stats", changed(tmp_path, **changes))
        rows = (tmp_path / "stats/windows.csv").read_text().splitlines()[1:]
        return [row.partition(",")[0] for row in rows], capsys.readouterr().out

    windows, said = told(**{"stats.window_candidates_seconds": [7], "stats.min_share_kept": 0.5})
    assert "7.0" in windows
    assert "at least 50 %" in said
    windows, said = told()
    assert "7.0" not in windows
    assert "at least 50 %" not in said


@pytest.mark.parametrize("key", CHUNK)
def test_chunk(key: str, tmp_path: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tiny_data))  # where the recordings were measured before
    value, holds = CHUNK[key]
    given = changed(tmp_path, **{f"chunk.{key}": value}).chunk
    limits = (given.min_seconds, given.max_seconds)
    out = tmp_path / "chunks"
    chunk.run(tiny_data / "data/raw", out, tmp_path / "reports", given.rows_per_chunk, limits, [])
    assert holds(durations(out))
    assert not holds(durations(tiny_data / "data/chunks"))


def durations(chunks: Path) -> list[list[float]]:
    """Seconds of each row of each training chunk."""
    return [
        [seconds for batch in shards.batches(path) for seconds in batch["duration"].to_pylist()]
        for path in shards.paths(chunks / "train")
    ]


def test_chunk_allow_shared() -> None:
    tally, rows = (
        chunk.DiskSet(),
        [(split, split, split.encode(), b"anna") for split in ("train", "test")],
    )
    for split, *_, speaker in rows:
        tally.add("speaker", speaker, split)
    with pytest.raises(UserError, match="1 speakers stand in two splits"):
        split_overlap.refuse(split_overlap.find_shared(tally, [], rows), [])
    split_overlap.refuse(split_overlap.find_shared(tally, [], rows), ["speaker"])


def test_featurize(tmp_path: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKERS", "1")

    def told(features: Path) -> tuple[int, int]:
        manifest = files.read_json(features / "manifest.json")
        return manifest["num_mel_bins"], manifest["splits"]["train"]["rows"]

    given = changed(tmp_path, **{"featurize.num_mel_bins": 128, "featurize.augment.copies": 1})
    out, settings = tmp_path / "features", given.featurize
    featurize.run(tiny_data / "data/chunks", out, settings.num_mel_bins, settings.augment)
    assert told(out) == (128, 80)
    assert told(tiny_data / "data/features") == (80, 40)


def drawn(given: Params, chunk: Path) -> tuple[list[Any], list[bytes]]:
    """What was drawn for copies of the first two recordings of a chunk, and their samples."""
    inputs = featurize.mixing(given.featurize.augment)
    assert inputs
    encoded_voices = augmentation.encoded_recordings(chunk)
    responses = augmentation.responses_of(inputs.params, inputs.responses)
    records, sounds = [], []
    for index in range(2):
        noises = augmentation.noises_of(inputs.params, inputs.noises, encoded_voices, index)
        recording = codec.decode(encoded_voices[index].as_py())
        samples, record = augmentation.augmented(
            recording, f"row {index}", 1, inputs.params, noises, responses
        )
        records.append(record)
        sounds.append(samples.tobytes())
    return records, sounds


ALWAYS: dict[str, Any] = {
    "featurize.augment.copies": 1,
    **{
        f"featurize.augment.{kind}.probability": 1.0
        for kind in ("speed", "reverberation", "noise", "gain")
    },
}


@pytest.mark.parametrize("key", AUGMENT)
def test_augmentation(key: str, tmp_path: Path, tiny_data: Path) -> None:
    value, fields = AUGMENT[key]
    chunk = next(iter(shards.paths(tiny_data / "data/chunks/train")))
    before, sounds_before = drawn(changed(tmp_path, **ALWAYS), chunk)
    after, sounds = drawn(changed(tmp_path, **{**ALWAYS, f"featurize.augment.{key}": value}), chunk)
    assert not {*sounds} & {*sounds_before}
    for one, other in zip(before, after, strict=True):
        values, others = vars(one), vars(other)
        assert {name for name in values if values[name] != others[name]} == fields


@pytest.mark.parametrize("key", FOLDERS)
def test_a_folder_of_rooms_or_noises_is_looked_for(key: str, tmp_path: Path) -> None:
    given = changed(tmp_path, **{**ALWAYS, f"featurize.augment.{key}": FOLDERS[key]})
    with pytest.raises(UserError, match=FOLDERS[key]):
        featurize.mixing(given.featurize.augment)


@pytest.mark.usefixtures("in_process")
def test_copies_are_trained_on(
    tmp_path: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKERS", "1")
    changes = {"featurize.augment.copies": 1, "train.max_steps": 6}
    augment = changed(tmp_path, **changes).featurize.augment
    featurize.run(tiny_data / "data/chunks", tmp_path / "data/features", 80, augment)
    run(tmp_path, tmp_path, **changes)
    summary = files.read_json(tmp_path / "reports/train/summary.json")
    assert summary["rows_trained"] + sum(summary["rows_left_out"].values()) == 80
    assert summary["rows_trained"] > 60
    checks = files.read_json(tmp_path / "reports/train/checks.json")
    assert [name for name, one in checks.items() if not one["passed"]] == []


@pytest.fixture(scope="module")
def rows(tiny_data: Path) -> FeatureRows:
    return FeatureRows(tiny_data / "data/features/train")


def configs(given: Params, rows: FeatureRows) -> dict[str, Any]:
    """All fields of the two configs of the start model."""
    start = start_model(given, rows)
    generation = start.model.generation_config.to_dict()
    fields = {
        **start.model.config.to_dict(),
        **{f"generation {k}": generation[k] for k in generation},
    }
    return copy.deepcopy(fields)


@pytest.fixture(scope="module")
def usual_configs(tiny_params: Params, rows: FeatureRows) -> dict[str, Any]:
    return configs(tiny_params, rows)


@pytest.mark.parametrize("key", START)
def test_the_start_model(
    key: str, tmp_path: Path, usual_configs: dict[str, Any], rows: FeatureRows
) -> None:
    value, fields = START[key]
    found = configs(changed(tmp_path, **{f"model.{key}": value}), rows)
    assert {name: found[name] for name in found if found[name] != usual_configs[name]} == fields


def test_a_smaller_vocabulary_has_so_many_tokens_fewer(
    tmp_path: Path, usual_configs: dict[str, Any], rows: FeatureRows
) -> None:
    found = configs(changed(tmp_path, **{"model.scratch.vocab_size": 280}), rows)
    assert usual_configs["vocab_size"] - found["vocab_size"] == 300 - 280


def test_a_start_model_that_is_not_there_is_named(tmp_path: Path, rows: FeatureRows) -> None:
    with pytest.raises(UserError, match=r"^model\.name: no/such/model is not there"):
        start_model(changed(tmp_path, **{"model.name": "no/such/model"}), rows)


@pytest.mark.parametrize("key", LORA)
def test_the_adapters(key: str) -> None:
    value, holds = LORA[key]
    shipped = reader.load(SHIPPED).model

    def layers(**changes: Any) -> dict[str, Any]:
        start = scratch()
        settings = shipped.lora.model_copy(update=changes)
        choose_trained(start, shipped.model_copy(update={"lora": settings}), 1)
        return dict(lora.layers(start.model).items())

    assert layers() == {}
    found = layers(**{"rank": 2, key: value})
    assert found
    assert all(holds(name, layer) for name, layer in found.items())
    assert not any(holds(name, layer) for name, layer in layers(rank=2).items())


def test_the_revision_is_asked_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(
        WhisperConfig, "from_pretrained", lambda *_, revision: asked.append(revision) or 1 / 0
    )
    for revision in (None, "v2"):
        with pytest.raises(UserError, match="cannot be fetched"):
            start_model(
                changed(tmp_path, **{"model.name": "someone/whisper", "model.revision": revision}),
                None,
            )
    assert asked == [None, "v2"]


@dataclass(frozen=True)
class Shown:
    """What a training shows.

    Attributes:
        steps, rates, losses: at which steps a loss was recorded, the learning rate there, the loss.
        evaluated, validation_losses: at which steps it was evaluated, and the loss there.
        saved: names of the checkpoints with the optimizer's state.
        averaged: the steps whose weights the model has in the end, if they are several.
        batches: number of examples in each micro-batch.
        evaluation_batches: rows that are decoded at once.
        passes: calls of an attention layer in training mode.
        examples: number of examples in an epoch.
        trained: names of the weights that are trained.
    """

    steps: list[int]
    rates: list[float]
    losses: list[float]
    evaluated: list[int]
    validation_losses: list[float]
    saved: list[str]
    averaged: list[int]
    batches: list[int]
    evaluation_batches: set[int]
    passes: int
    examples: int
    trained: list[str]


def train(given: Params, data: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Shown:
    """A training without what the stage does before and after it."""
    AcceleratorState._reset_state(reset_partial_state=True)  # the precision is the process's
    forward, in_groups = WhisperAttention.forward, windows.in_groups
    passes: list[int] = []
    sizes: set[int] = set()

    def counted_forward(layer: WhisperAttention, *args: Any, **kwargs: Any) -> Any:
        passes.extend([1] * layer.training)
        return forward(layer, *args, **kwargs)

    def counted_groups(indices: Any, size: int) -> Iterator[list[int]]:
        sizes.add(size)
        return in_groups(indices, size)

    rows, judged = (FeatureRows(data / "data/features" / name) for name in SPLITS[:2])
    start = start_model(given, rows)
    choose_trained(start, given.model, given.train.seed)
    training = Training(start, rows, judged, given.train, folder, lambda *_, **__: None)
    with monkeypatch.context() as patch:
        patch.setattr(WhisperAttention, "forward", counted_forward)
        patch.setattr(windows, "in_groups", counted_groups)
        training.run()
    state = training.state
    logged = [row for row in state.rows if "train_loss" in row]
    evaluated = [row for row in state.rows if "validation_loss" in row]
    return Shown(
        steps=[row["step"] for row in logged],
        rates=[row["learning_rate"] for row in logged],
        losses=[row["train_loss"] for row in logged],
        evaluated=[row["step"] for row in evaluated],
        validation_losses=[row["validation_loss"] for row in evaluated],
        saved=sorted(path.name for path in folder.glob("step-*") if path.is_dir()),
        averaged=state.averaged(given.train.average_weights, given.train.average_count),
        batches=[len(examples) for examples in training.step_examples(0)],
        evaluation_batches=sizes,
        passes=len(passes),
        examples=len(training.examples),
        trained=sorted(
            name for name, value in training.unwrapped.named_parameters() if value.requires_grad
        ),
    )


@pytest.fixture(scope="module")
def shown_before() -> dict[str, Shown]:
    """Trainings without the change, by what is set besides; made when they are asked for."""
    return {}


@pytest.mark.parametrize("key", TRAINING)
def test_training(
    key: str,
    tmp_path: Path,
    tiny_data: Path,
    shown_before: dict[str, Shown],
    in_process: None,  # noqa: ARG001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    value, besides, fields = TRAINING[key]
    settings = {**SHORT, **besides}
    if repr(besides) not in shown_before:
        before = train(changed(tmp_path, **settings), tiny_data, tmp_path / "before", monkeypatch)
        shown_before[repr(besides)] = before
    before = vars(shown_before[repr(besides)])
    after = vars(
        train(
            changed(tmp_path, **{**settings, key: value}), tiny_data, tmp_path / "run", monkeypatch
        )
    )
    assert {name for name in after if not same(after[name], before[name])} == fields


def same(one: Any, other: Any) -> bool:
    """Equal; losses but for their last digits, for batches may be summed in another order."""
    if isinstance(one, list) and one and isinstance(one[0], float):
        return len(one) == len(other) and one == pytest.approx(other, rel=1e-5)
    return bool(one == other)


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> Callable[..., Any]:
    """`evaluate` of a model that learnt nothing and says a lot; gives what its scores show."""
    root = tmp_path_factory.mktemp("scored")
    start = hush_timestamps(scratch(init_std=0.5, window_seconds=6))
    generation = start.model.generation_config
    spoken = [*start.tokenizer.convert_tokens_to_ids([*"abcdeĠ"]), generation.eos_token_id]
    size = start.model.config.vocab_size  # of so few letters, some rows loop
    generation.suppress_tokens = [token for token in range(size) if token not in spoken]
    loader.save(start.model, start.tokenizer, root / "models/finetuned")
    run = {"fingerprint": "f", "best_step": 4, "seed": 1, "start": start.provenance(), "params": {}}
    files.write_json(root / "reports/train/run.json", run)
    files.write_text(root / "reports/train/steps.csv", STEPS)
    np.save(root / "reports/train/taught.npy", np.zeros((0, 12), np.uint8))

    def score(given: Params, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        sizes, in_groups = set(), windows.in_groups
        shutil.rmtree(paths.cache(hypotheses.STORE), ignore_errors=True)  # decoded each time

        def counted(indices: Any, size: int) -> Iterator[list[int]]:
            sizes.add(size)
            return in_groups(indices, size)

        with monkeypatch.context() as patch:
            patch.setattr(windows, "in_groups", counted)
            patch.setattr(follower, "sync_apart", lambda _: None)
            evaluate.run(
                tiny_data / "data/features/test",
                root / "models/finetuned",
                root / "reports/train",
                root / "reports/evaluate",
                given,
            )
        metrics = files.read_json(root / "reports/evaluate/metrics.json")
        table = pq.read_table(root / "reports/evaluate/utterances.parquet").to_pylist()
        names = ("wer_low", "wer_high")
        return {
            "texts": [row["hypothesis"] for row in table if row["model"] == FINETUNED],
            "scores": [metrics["wer"], metrics["cer"]],
            "interval": [metrics[name] for name in names],
            "models": sorted(metrics["models"]),
            "how": [metrics[name] for name in decoded.SETTINGS],
            "hard": [metrics[name] for name in decoded.COUNTS],
            "batches": sizes,
        }

    return score


@pytest.fixture(scope="module")
def usual_scores(
    scored: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """They come out the same twice, or nothing could be said of a change."""
    given = changed(tmp_path_factory.mktemp("usual"), **BRIEF)
    with pytest.MonkeyPatch.context() as patch:
        once = scored(given, patch)
        assert scored(given, patch) == once
    return once


@pytest.mark.parametrize("key", EVALUATE)
def test_evaluation(
    key: str,
    tmp_path: Path,
    scored: Callable[..., Any],
    usual_scores: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    value, fields = EVALUATE[key]
    found = scored(changed(tmp_path, **{**BRIEF, f"evaluate.{key}": value}), monkeypatch)
    assert {name for name in found if found[name] != usual_scores[name]} == fields


def test_the_precision(
    tmp_path: Path, scored: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In torch, which computes in bf16 on any processor; each gives other last digits."""
    brief = {**BRIEF, "evaluate.engine": "torch", "evaluate.decoding": "greedy"}
    full, half = (
        scored(changed(tmp_path, **brief, **{"evaluate.precision": one}), monkeypatch)
        for one in ("fp32", "bf16")
    )
    assert [full["how"], half["how"]] == [["greedy", "torch", one] for one in ("fp32", "bf16")]
    assert full["texts"] != half["texts"]
