"""Every param alone does something: an output byte, a field of the model, a curve, the size of a
batch, or an error.
"""

from __future__ import annotations

import copy
import io
import json
import tempfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from accelerate.state import AcceleratorState
from transformers.models.whisper.modeling_whisper import WhisperAttention

from asr.cleaning import split_overlap
from asr.errors import UserError
from asr.features import FeatureRows
from asr.model import greedy, lora
from asr.model.start import choose_trained, start_model
from asr.params import reader
from asr.params.schema import Params
from asr.sources import selection
from asr.storage import files, shards
from stages import chunk, download, evaluate, featurize, stats, train
from support.data import encoded, voice
from support.hub import served
from support.model import scratch
from support.repository import SHIPPED, TINY, write_params

DOWNLOAD = {
    "source": "folder",
    "path": "elsewhere",
    "language": "de",
    "max_rows_per_split": 4,
    "seed": 2,
    "synthetic.rows.train": 41,
    "synthetic.rows.validation": 9,
    "synthetic.rows.test": 9,
    "synthetic.voices.train": 9,
    "synthetic.voices.validation": 3,
    "synthetic.voices.test": 5,
    "synthetic.max_number": 99,
    "synthetic.min_numbers": 1,
    "synthetic.max_numbers": 4,
    "synthetic.min_words_per_minute": 100,
    "synthetic.max_words_per_minute": 300,
    "synthetic.min_pitch": 0,
    "synthetic.max_pitch": 99,
    "where": [
        {"field": "source", "any_of": ["spoken numbers in sv"], "weight": 0.5, "otherwise": 1.0}
    ],
    "mix": [{"source": "synthetic", "share": 0.5, "role": "train", "seed": 9}],
}
# Params of one source, which is set besides, and whose corpus the test makes.
OF_SOURCES = {
    "common_voice.splits": "validated",
    "digits.rows.train": 13,
    "digits.rows.validation": 4,
    "digits.rows.test": 4,
    "digits.speakers.validation": ["george"],
    "digits.speakers.test": ["george"],
    "digits.min_digits": 1,
    "digits.max_digits": 3,
    "huggingface.config": "other",
    "huggingface.revision": "old",
    "huggingface.splits": {"train": "train", "validation": "test", "test": "validation"},
    "huggingface.columns": {"text": "words"},
}
CHUNK = {"rows_per_chunk": 5, "min_seconds": 1.5, "max_seconds": 1.5, "allow_shared": ["speaker"]}
FEATURIZE = {"num_mel_bins": 128, "augment.copies": 1}
AUGMENT = {
    "speed.probability": 0.0,
    "speed.min": 0.8,
    "speed.max": 1.3,
    "reverberation.probability": 0.0,
    "reverberation.folder": "rooms",
    "reverberation.min_rt60_seconds": 0.7,
    "reverberation.max_rt60_seconds": 0.3,
    "noise.probability": 0.0,
    "noise.folder": "noises",
    "noise.babble_voices": 2,
    "noise.min_snr_db": 15,
    "noise.max_snr_db": 10,
    "gain.probability": 0.0,
    "gain.min_db": -3,
    "gain.max_db": 1,
    "seed": 7,
}
START = {
    "name": "no/such/model",
    "language": "de",
    "task": "translate",
    "window_seconds": 4,
    "dropout": 0.3,
    "attention_dropout": 0.3,
    "activation_dropout": 0.3,
    "encoder_layerdrop": 0.9,
    "decoder_layerdrop": 0.9,
    "apply_spec_augment": True,
    "mask_time_prob": 0.2,
    "mask_time_length": 3,
    "mask_time_min_masks": 5,
    "mask_feature_prob": 0.3,
    "mask_feature_length": 3,
    "mask_feature_min_masks": 5,
    "scratch.window_seconds": 4,
    "scratch.vocab_size": 280,
    "scratch.d_model": 64,
    "scratch.encoder_layers": 2,
    "scratch.encoder_attention_heads": 4,
    "scratch.encoder_ffn_dim": 32,
    "scratch.decoder_layers": 2,
    "scratch.decoder_attention_heads": 4,
    "scratch.decoder_ffn_dim": 32,
    "scratch.max_target_positions": 24,
    "scratch.init_std": 0.05,
}
FROZEN = {"freeze_encoder": "all"}
LORA = {"rank": 4, "alpha": 16, "dropout": 0.3, "target_modules": ["fc1"]}
NOISE = (
    "dropout",
    "attention_dropout",
    "activation_dropout",
    "encoder_layerdrop",
    "decoder_layerdrop",
    "apply_spec_augment",
)
TRAIN = {
    "learning_rate": 3e-4,
    "lr_scheduler_type": "linear",
    "warmup_steps": 3,
    "max_steps": 9,
    "per_device_train_batch_size": 5,
    "per_device_eval_batch_size": 3,
    "gradient_accumulation_steps": 2,
    "gradient_checkpointing": True,
    "weight_decay": 5.0,
    "max_grad_norm": 0.01,
    "label_smoothing_factor": 0.2,
    "eval_steps": 4,
    "eval_rows": 4,
    "early_stopping_patience": 1,
    "average_weights": "last",
    "average_count": 2,
    "save_steps": 4,
    "logging_steps": 3,
    "timestamp_share": 0.5,
    "pack_to_window": True,
    "no_speech_share": 0.2,
    "precision": "bf16",
    "seed": 7,
}
# What must be set besides, for a change to show.
BESIDES = {
    "early_stopping_patience": {"train.eval_steps": 2, "train.learning_rate": 1e-9},
    "pack_to_window": {
        "train.timestamp_share": 1.0,
        "model.window_seconds": 8,
        "model.scratch.max_target_positions": 96,
    },
    "average_count": {
        "train.eval_steps": 2,
        "train.average_weights": "last",
        "train.average_count": 4,
    },
}
EVALUATE = {
    "per_device_eval_batch_size": 3,
    "max_new_tokens": 3,
    "baselines": [],
    "bootstrap_resamples": 300,
    "seed": 7,
}
COVERED = {
    *(f"download.{key}" for key in (*DOWNLOAD, *OF_SOURCES)),
    "stats.window_candidates_seconds",
    "stats.min_share_kept",
    *(f"chunk.{key}" for key in CHUNK),
    *(f"featurize.{key}" for key in FEATURIZE),
    *(f"featurize.augment.{key}" for key in AUGMENT),
    *(f"model.{key}" for key in (*START, *FROZEN)),
    *(f"model.lora.{key}" for key in LORA),
    "model.revision",
    *(f"train.{key}" for key in TRAIN),
    *(f"evaluate.{key}" for key in EVALUATE),
}


def changed(tmp_path: Path, **changes: Any) -> Params:
    return reader.load(write_params(tmp_path / "changed.yaml", {**TINY, **changes}))


def differs(effect: Callable[[Params], Any], before: Params, after: Params) -> bool:
    """Whether a change shows; a clear error counts, a traceback does not."""
    shown = effect(before)
    try:
        return bool(effect(after) != shown)
    except UserError:
        return True


def test_every_param_is_tried_here() -> None:
    assert set(reader.flat(reader.load(SHIPPED).model_dump())) == COVERED


def listed(given: Params, working: Path) -> Any:
    """What `download` would fetch, and how often it counts."""
    place = Path(tempfile.mkdtemp(dir=working))
    opened = download.sources(given.download, place)
    chosen = [
        row
        for one in opened
        for row in selection.select(one.corpus.utterances, one.selection, one.counts)
    ]
    return [(one.id, one.split, one.text, one.speaker, one.attributes) for one in chosen]


@pytest.mark.parametrize("key", [key for key in DOWNLOAD if key != "path"])
def test_download(key: str, tmp_path: Path, tiny_params: Params) -> None:
    extra = {"download.path": "elsewhere"} if key == "source" else {}
    assert differs(
        lambda given: listed(given, tmp_path),
        tiny_params,
        changed(tmp_path, **{f"download.{key}": DOWNLOAD[key], **extra}),
    )


def test_the_path_is_where_a_corpus_is_looked_for(tmp_path: Path) -> None:
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
    before = changed(
        tmp_path,
        **{**besides, "download.digits.rows.train": 12, "download.digits.rows.validation": 3},
    )
    listed(before, tmp_path)  # what is compared with is no error
    assert differs(
        lambda given: listed(given, tmp_path),
        before,
        changed(tmp_path, **{**besides, f"download.{key}": OF_SOURCES[key]}),
    )


def test_stats(tmp_path: Path, tiny_params: Params, tiny_data: Path) -> None:
    def windows(given: Params) -> str:
        stats.run(tiny_data / "data/raw", tmp_path / "stats", given)
        return (tmp_path / "stats/windows.csv").read_text()

    assert differs(
        windows, tiny_params, changed(tmp_path, **{"stats.window_candidates_seconds": [7]})
    )
    assert differs(windows, tiny_params, changed(tmp_path, **{"stats.min_share_kept": 0.5}))


@pytest.mark.parametrize("key", [key for key in CHUNK if key != "allow_shared"])
def test_chunk(key: str, tmp_path: Path, tiny_params: Params, tiny_data: Path) -> None:
    def manifest(given: Params) -> str:
        limits = (given.chunk.min_seconds, given.chunk.max_seconds)
        chunk.run(
            tiny_data / "data/raw",
            tmp_path / "chunks",
            tmp_path / "reports",
            given.chunk.rows_per_chunk,
            limits,
            [],
        )
        return (tmp_path / "chunks/manifest.json").read_text()

    assert differs(manifest, tiny_params, changed(tmp_path, **{f"chunk.{key}": CHUNK[key]}))


def test_chunk_allow_shared() -> None:
    tally, rows = (
        chunk.DiskSet(),
        [(split, split, split.encode(), b"anna") for split in ("train", "test")],
    )
    for split, *_, speaker in rows:
        tally.add("speaker", speaker, split)
    with pytest.raises(UserError, match="1 speakers stand in two splits"):
        split_overlap.refuse(split_overlap.find_shared(tally, [], rows), [])
    split_overlap.refuse(split_overlap.find_shared(tally, [], rows), CHUNK["allow_shared"])


@pytest.mark.parametrize("key", FEATURIZE)
def test_featurize(
    key: str, tmp_path: Path, tiny_params: Params, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKERS", "1")

    def manifest(given: Params) -> str:
        featurize.run(
            tiny_data / "data/chunks",
            tmp_path / "features",
            given.featurize.num_mel_bins,
            given.featurize.augment,
        )
        return (tmp_path / "features/manifest.json").read_text()

    assert differs(manifest, tiny_params, changed(tmp_path, **{f"featurize.{key}": FEATURIZE[key]}))


@pytest.mark.parametrize("key", AUGMENT)
def test_augmentation(key: str, tmp_path: Path, tiny_data: Path) -> None:
    def copied(given: Params) -> Any:
        chunk, mixed = (
            next(iter(shards.paths(tiny_data / "data/chunks/train"))),
            featurize.mixing(given.featurize.augment),
        )
        return [samples.tobytes() for _, samples in islice(featurize.sounds(chunk, 1, mixed), 2)]

    always = {
        f"featurize.augment.{kind}.probability": 1.0
        for kind in ("speed", "reverberation", "noise", "gain")
    }
    before = {"featurize.augment.copies": 1, **always}
    after = changed(tmp_path, **{**before, f"featurize.augment.{key}": AUGMENT[key]})
    assert differs(copied, changed(tmp_path, **before), after)


def test_copies_are_trained_on(
    tmp_path: Path, tiny_data: Path, quick_training: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKERS", "1")
    given = changed(tmp_path, **{"featurize.augment.copies": 1, "train.max_steps": 6})
    featurize.run(
        tiny_data / "data/chunks", tmp_path / "data/features", 80, given.featurize.augment
    )
    trained(given, tmp_path, tmp_path / "run", quick_training, monkeypatch)
    summary = files.read_json(tmp_path / "run/reports/train/summary.json")
    assert summary["rows_trained"] + sum(summary["rows_left_out"].values()) == 80
    assert summary["rows_trained"] > 60
    checks = files.read_json(tmp_path / "run/reports/train/checks.json")
    assert [name for name, one in checks.items() if not one["passed"]] == []


@pytest.mark.parametrize("key", START)
def test_the_start_model(key: str, tmp_path: Path, tiny_params: Params, tiny_data: Path) -> None:
    rows = FeatureRows(tiny_data / "data/features/train")

    def configs(given: Params) -> Any:
        start = start_model(given, rows)
        return copy.deepcopy(
            (start.model.config.to_dict(), start.model.generation_config.to_dict())
        )

    assert differs(configs, tiny_params, changed(tmp_path, **{f"model.{key}": START[key]}))


@pytest.mark.parametrize("key", LORA)
def test_the_adapters(key: str) -> None:
    def layers(**changes: Any) -> Any:
        start = scratch()
        choose_trained(
            start, small.model_copy(update={"lora": small.lora.model_copy(update=changes)}), 1
        )
        found = lora.layers(start.model).items()
        return [
            (name, layer.r, layer.scaling, str(layer.lora_dropout)) for name, layer in found
        ], trainable(start.model)

    def trainable(whisper: Any) -> list[str]:
        return [name for name, value in whisper.named_parameters() if value.requires_grad]

    small = reader.load(SHIPPED).model
    assert layers() == ([], trainable(scratch().model))
    assert layers(rank=2) != layers(**{"rank": 2, key: LORA[key]})


def test_the_revision_is_asked_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(
        "asr.model.loader.WhisperConfig.from_pretrained",
        lambda *_, revision: asked.append(revision) or 1 / 0,
    )
    for revision in (None, "v2"):
        with pytest.raises(UserError, match="cannot be fetched"):
            start_model(
                changed(tmp_path, **{"model.name": "someone/whisper", "model.revision": revision}),
                None,
            )
    assert asked == [None, "v2"]


@pytest.fixture
def quick_training(in_process: None, monkeypatch: pytest.MonkeyPatch) -> list[int]:  # noqa: ARG001
    """Trainings in this process, whose evaluation batches are counted."""
    sizes: list[int] = []
    in_groups = greedy.in_groups

    def counted(indices: Any, size: int) -> Iterator[list[int]]:
        sizes.append(size)
        return in_groups(indices, size)

    monkeypatch.setattr(greedy, "in_groups", counted)
    return sizes


def trained(
    given: Params, data: Path, root: Path, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> Any:
    """What a training shows: its curve, its summary, its checkpoints, its batches."""
    root.mkdir()
    AcceleratorState._reset_state(reset_partial_state=True)  # the precision is the process's
    monkeypatch.setenv("DVC_ROOT", str(root))
    sizes.clear()
    passes: list[int] = []
    forward = WhisperAttention.forward
    with monkeypatch.context() as patch:
        patch.setattr(
            WhisperAttention, "forward", lambda *a, **k: passes.append(1) or forward(*a, **k)
        )
        return shown_by(given, data, root, sizes, passes)


def shown_by(given: Params, data: Path, root: Path, sizes: list[int], passes: list[int]) -> Any:
    features = data / "data/features"
    train.run(
        features / "train",
        features / "validation",
        root / "models/finetuned",
        root / "reports/train",
        given,
    )
    kept = sorted(path.name for path in (root / ".cache/checkpoints").glob("*/*-*"))
    summary = files.read_json(root / "reports/train/summary.json")
    return (
        (root / "reports/train/steps.csv").read_text(),
        json.dumps(summary),
        kept,
        sorted(set(sizes)),
        len(passes),
    )


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return {"root": tmp_path_factory.mktemp("usual")}


@pytest.mark.parametrize(
    "key", [*(f"train.{key}" for key in TRAIN), *(f"model.{key}" for key in (*NOISE, *FROZEN))]
)
def test_training(
    key: str,
    tmp_path: Path,
    tiny_params: Params,
    tiny_data: Path,
    usual: Any,
    quick_training: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    section, _, name = key.partition(".")
    value = {"train": TRAIN, "model": {**START, **FROZEN}}[section][name]
    besides = BESIDES.get(name, {})
    if besides or "shown" not in usual:
        root = tmp_path / "usual" if besides else usual["root"] / "run"
        before = trained(
            changed(tmp_path, **besides) if besides else tiny_params,
            tiny_data,
            root,
            quick_training,
            monkeypatch,
        )
        usual.setdefault("shown", before) if not besides else None
    else:
        before = usual["shown"]
    shown = trained(
        changed(tmp_path, **{**besides, key: value}),
        tiny_data,
        tmp_path / "run",
        quick_training,
        monkeypatch,
    )
    assert shown != before
    if section == "model":
        assert shown[0] != before[0], "the curve must move, not only the config"


@pytest.mark.parametrize("key", EVALUATE)
def test_evaluation(
    key: str,
    tmp_path: Path,
    tiny_params: Params,
    tiny_data: Path,
    usual: Any,
    quick_training: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = usual["root"] / "talker"
    if not root.is_dir():
        longer = {
            "train.max_steps": 150,
            "train.learning_rate": 3e-3,
            "train.eval_steps": 150,
            "model.scratch.d_model": 64,
        }
        trained(changed(tmp_path, **longer), tiny_data, root, quick_training, monkeypatch)

    def scores(given: Params) -> Any:
        quick_training.clear()
        evaluate.run(
            tiny_data / "data/features/test",
            root / "models/finetuned",
            root / "reports/train",
            tmp_path / "reports",
            given,
        )
        metrics = files.read_json(tmp_path / "reports/metrics.json")
        speeds = [model.pop("rtfx") for model in (metrics, *metrics["models"].values())]
        return metrics, len(speeds), sorted(set(quick_training))

    assert scores(tiny_params) == scores(tiny_params)
    assert differs(scores, tiny_params, changed(tmp_path, **{f"evaluate.{key}": EVALUATE[key]}))
