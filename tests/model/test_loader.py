"""Models from scratch and from folders, their window, what is refused, and that plain transformers
load what we save.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

from asr.errors import ModelError
from asr.model import greedy, loader, tokenization
from asr.storage import files
from asr.training import optimization
from support.children import Nursery
from support.model import clip, hub_folder, hush_timestamps, noise, scratch

PLAIN = """
import json, sys
import numpy as np
from transformers import WhisperForConditionalGeneration, WhisperProcessor
folder, sounds = sys.argv[1:]
processor = WhisperProcessor.from_pretrained(folder)
whisper = WhisperForConditionalGeneration.from_pretrained(folder)
texts = []
for samples in np.load(sounds):
    features = processor(samples, sampling_rate=16000, return_tensors="pt").input_features
    texts += processor.batch_decode(whisper.generate(features), skip_special_tokens=True)
prefix = processor.tokenizer.prefix_tokens
print(json.dumps({"texts": texts, "shape": list(features.shape), "prefix": prefix}))
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hub_folder(tmp_path_factory.mktemp("hub") / "whisper-tiny")


@pytest.fixture
def broken(tiny: Path, tmp_path: Path) -> Path:
    """A copy that the test may damage."""
    return Path(shutil.copytree(tiny, tmp_path / "broken-tiny"))


def edit(path: Path, **values: object) -> None:
    files.write_json(path, {**files.read_json(path), **values})


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        loader.load(str(folder), None, None)
    assert caught.value.exit_code == 5
    assert "\n" not in str(caught.value)
    return str(caught.value)


def positions(start: loader.Start) -> torch.Tensor:
    return start.model.model.encoder.embed_positions.weight


def test_folder_in_the_hubs_layout_loads_with_its_own_weights(tiny: Path) -> None:
    start = loader.load(str(tiny), None, None)
    stored, loaded = load_file(tiny / "model.safetensors"), start.model.state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in stored.items())
    assert (start.name, start.revision) == ("whisper-tiny", None)
    assert loader.window_seconds(start.model) == 30
    assert start.model.dtype == torch.float32


def test_old_generation_settings_are_brought_to_todays_form(tiny: Path) -> None:
    start = loader.load(str(tiny), None, None)
    generation = start.model.generation_config
    assert generation.forced_decoder_ids is None
    assert getattr(start.model.config, "forced_decoder_ids", None) is None
    assert generation.is_multilingual is True
    old = files.read_json(tiny / "generation_config.json")
    for name in (
        "suppress_tokens",
        "begin_suppress_tokens",
        "alignment_heads",
        "prev_sot_token_id",
        "max_initial_timestamp_index",
    ):
        assert getattr(generation, name) == old[name]


@pytest.mark.parametrize("told", [True, False], ids=["with generation config", "without"])
def test_prompt_of_a_model_from_the_hub_survives_saving(
    broken: Path, tmp_path: Path, told: bool
) -> None:
    if not told:
        (broken / "generation_config.json").unlink()
    start = loader.load(str(broken), None, 2)
    loader.set_prompt(start.model, "sv", "transcribe")
    loader.save(start.model, start.tokenizer, tmp_path / "saved")
    again = loader.load_saved(tmp_path / "saved")
    assert tokenization.prompt(again.model.generation_config) == tokenization.prompt(
        start.model.generation_config
    )
    assert greedy.generation_prompt(again.model) == greedy.generation_prompt(start.model)


def test_checkpoint_without_language_tables_gets_them_from_its_tokenizer(broken: Path) -> None:
    values = files.read_json(broken / "generation_config.json")
    files.write_json(
        broken / "generation_config.json",
        {
            key: value
            for key, value in values.items()
            if key not in ("lang_to_id", "task_to_id", "is_multilingual", "no_timestamps_token_id")
        },
    )
    generation = loader.load(str(broken), None, None).model.generation_config
    assert generation.lang_to_id == values["lang_to_id"]
    assert generation.task_to_id == values["task_to_id"]
    assert (generation.is_multilingual, generation.no_timestamps_token_id) == (
        True,
        values["no_timestamps_token_id"],
    )


def test_window_of_ten_seconds_is_a_bit_equal_cut(tiny: Path) -> None:
    whole, cut = loader.load(str(tiny), None, None), loader.load(str(tiny), None, 10)
    assert positions(cut).shape[0] == 500
    assert loader.window_seconds(cut.model) == 10
    assert torch.equal(positions(cut), positions(whole)[:500])
    assert not positions(cut).requires_grad
    assert not positions(whole).requires_grad


def test_cut_window_stretches_back_exactly(tiny: Path, tmp_path: Path) -> None:
    cut = loader.load(str(tiny), None, 10)
    loader.set_prompt(cut.model, "sv", "transcribe")
    loader.save(cut.model, cut.tokenizer, tmp_path / "cut")
    assert torch.equal(
        positions(loader.load(str(tmp_path / "cut"), None, 30)),
        positions(loader.load(str(tiny), None, None)),
    )


def test_weights_hash_does_not_depend_on_the_window(tiny: Path) -> None:
    assert loader.weights_hash(loader.load(str(tiny), None, 10).model) == loader.weights_hash(
        loader.load(str(tiny), None, None).model
    )


def test_weights_hash_sees_a_change_in_any_other_tensor() -> None:
    whisper = scratch().model
    seen = {loader.weights_hash(whisper)}
    for name, value in whisper.state_dict().items():
        if name not in (loader.POSITIONS, "proj_out.weight"):
            value.flatten()[0] += 1.0
            seen.add(loader.weights_hash(whisper))
    assert len(seen) == len(whisper.state_dict()) - 1


def test_scratch_is_a_pure_function_of_shape_and_seed() -> None:
    drawn = torch.random.get_rng_state()
    assert (
        loader.weights_hash(scratch(3).model)
        == loader.weights_hash(scratch(3).model)
        != loader.weights_hash(scratch(4).model)
    )
    assert torch.equal(drawn, torch.random.get_rng_state())


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[loader.Start, Path]:
    start = hush_timestamps(scratch(2))
    folder = tmp_path_factory.mktemp("saved") / "finetuned"
    loader.save(start.model, start.tokenizer, folder)
    return start, folder


def test_saved_model_comes_back_with_the_same_weights_tokens_and_prompt(
    saved: tuple[loader.Start, Path],
) -> None:
    start, folder = saved
    again = loader.load_saved(folder)
    assert loader.weights_hash(again.model) == loader.weights_hash(start.model)
    assert again.tokenizer.get_vocab() == start.tokenizer.get_vocab()
    assert tokenization.prompt(again.model.generation_config) == tokenization.prompt(
        start.model.generation_config
    )
    assert again.name == "finetuned"


def test_feature_extractor_is_saved_with_the_models_window(
    saved: tuple[loader.Start, Path],
) -> None:
    told = files.read_json(saved[1] / "preprocessor_config.json")
    assert (
        told["chunk_length"],
        told["feature_size"],
        told["n_samples"],
        told["nb_max_frames"],
    ) == (2, 80, 32000, 200)
    assert WhisperFeatureExtractor.from_pretrained(saved[1]).chunk_length == 2


def test_saved_model_holds_safetensors_and_no_pickle(saved: tuple[loader.Start, Path]) -> None:
    assert (saved[1] / "model.safetensors").is_file()
    assert not [
        path.name for path in saved[1].iterdir() if path.suffix in (".bin", ".pt", ".pth", ".pkl")
    ]


def test_plain_transformers_in_a_fresh_process_give_the_text_that_we_give(
    saved: tuple[loader.Start, Path], tmp_path: Path
) -> None:
    start, folder = saved
    np.save(tmp_path / "sounds.npy", np.stack([noise(1.5, seed) for seed in range(3)]))
    told = subprocess.run(
        [sys.executable, "-c", PLAIN, str(folder), str(tmp_path / "sounds.npy")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert told.returncode == 0, told.stderr
    plain = json.loads(told.stdout.splitlines()[-1])
    ours = greedy.transcribe(
        start.model, start.tokenizer, [1.5] * 3, lambda index: clip(1.5, index), 2, 444
    )
    assert len(set(ours)) > 1
    assert [text.strip() for text in plain["texts"]] == ours
    assert plain["shape"] == [1, 80, 200]
    assert plain["prefix"] == tokenization.prompt(start.model.generation_config)


@settings(max_examples=12)
@given(share=st.floats(0, 0.999))
def test_truncated_weights_are_refused_wherever_they_end(
    tiny: Path, tmp_path_factory: pytest.TempPathFactory, share: float
) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path_factory.mktemp("cut") / "cut-tiny"))
    content = (tiny / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: int(share * len(content))])
    assert "model.name: cut-tiny cannot be loaded: " in refusal(folder)


def test_header_that_claims_more_than_the_file_is_refused(broken: Path) -> None:
    (broken / "model.safetensors").write_bytes((2**60).to_bytes(8, "little") + b"{}")
    assert "header too large" in refusal(broken)


def test_pickled_weights_are_refused_and_not_opened(broken: Path, tmp_path: Path) -> None:
    (broken / "model.safetensors").unlink()
    (broken / "pytorch_model.bin").write_bytes(
        f"cbuiltins\nopen\n(V{tmp_path}/opened\nVw\ntR.".encode()
    )
    assert "no file named model.safetensors" in refusal(broken)
    assert not (tmp_path / "opened").exists()


def test_another_architecture_is_refused_by_its_name(broken: Path) -> None:
    edit(broken / "config.json", model_type="bert", architectures=["BertModel"])
    assert refusal(broken).endswith("is a bert, want a whisper")


def test_tensor_of_a_wrong_shape_is_named(broken: Path) -> None:
    rewrite(
        broken, lambda tensors: tensors.update({"model.decoder.layer_norm.weight": torch.zeros(7)})
    )
    assert refusal(broken).endswith("1 tensors do not fit, such as model.decoder.layer_norm.weight")


def test_missing_tensor_is_named(broken: Path) -> None:
    rewrite(broken, lambda tensors: tensors.pop("model.decoder.layer_norm.weight"))
    assert refusal(broken).endswith(
        "1 tensors are missing, such as model.decoder.layer_norm.weight"
    )


def test_unknown_tensor_is_named(broken: Path) -> None:
    rewrite(broken, lambda tensors: tensors.update({"adapter.weight": torch.zeros(7)}))
    assert refusal(broken).endswith("1 tensors are unknown, such as adapter.weight")


def test_config_that_is_no_json_is_refused(broken: Path) -> None:
    (broken / "config.json").write_text("{", encoding="utf-8")
    assert "not a valid JSON file" in refusal(broken)


def test_folder_without_config_says_so(broken: Path) -> None:
    (broken / "config.json").unlink()
    assert "config.json" in refusal(broken)


@pytest.mark.parametrize(
    "absent",
    [
        ("vocab.json", "merges.txt"),
        ("added_tokens.json", "special_tokens_map.json", "tokenizer_config.json"),
        (
            "vocab.json",
            "merges.txt",
            "added_tokens.json",
            "special_tokens_map.json",
            "tokenizer_config.json",
        ),
    ],
    ids=["no words", "no special tokens", "nothing"],
)
def test_folder_without_a_whole_tokenizer_is_refused(broken: Path, absent: tuple[str, ...]) -> None:
    for name in absent:
        (broken / name).unlink()
    assert "tokenizer" in refusal(broken)


def test_tokenizer_with_more_tokens_than_the_model_is_refused(tiny: Path, tmp_path: Path) -> None:
    size = files.read_json(tiny / "config.json")["vocab_size"]
    assert "vocab" in refusal(hub_folder(tmp_path / "small-vocab", vocab_size=size - 1)).lower()


def test_folder_that_is_not_there_is_told_from_a_hub_id() -> None:
    with pytest.raises(
        ModelError,
        match=(
            r"model.name: models/kept/nothing is not there; want scratch, a hub id, or a "
            r"folder with a saved model"
        ),
    ):
        loader.resolve_model("models/kept/nothing")
    assert loader.resolve_model("openai/whisper-tiny") == "openai/whisper-tiny"


OFFLINE = """
from huggingface_hub import constants
constants.HF_HUB_OFFLINE, constants.HF_HUB_CACHE = True, "nothing is here"
from asr.errors import exit_with
from asr.model import loader
exit_with(lambda: loader.load("openai/whisper-tiny", None, None))
"""


def test_hub_id_without_network_is_a_network_fault(tmp_path: Path, nursery: Nursery) -> None:
    told = nursery.run(OFFLINE, root=tmp_path)
    assert told.returncode == 4, told.stderr
    last = told.stderr.splitlines()[-1]
    assert last.startswith("error 4: model.name: openai/whisper-tiny cannot be fetched: ")
    assert last.endswith(
        "want a network, for gated models HF_TOKEN in the environment, or a folder"
    )
    assert "Traceback" not in told.stderr


def test_features_with_other_mel_bins_are_refused_with_the_param_that_mends_it() -> None:
    with pytest.raises(ModelError) as caught:
        loader.check_mel_bins(scratch().model.config.num_mel_bins, 128)
    assert (
        str(caught.value)
        == "the features have 128 mel bins, the model wants 80: -S featurize.num_mel_bins=80"
    )
    assert caught.value.exit_code == 5
    loader.check_mel_bins(scratch().model.config.num_mel_bins, 80)


@pytest.mark.parametrize(
    ("d_model", "layers", "rate"), [(384, 4, 3.8e-5), (768, 12, 1.5e-5), (1280, 32, 5.9e-6)]
)
def test_auto_learning_rate_falls_with_the_size_of_the_start_model(
    d_model: int, layers: int, rate: float
) -> None:
    sizes = {
        f"{side}_{what}": value
        for side in ("encoder", "decoder")
        for what, value in (("layers", layers), ("ffn_dim", 4 * d_model))
    }
    heads = {"encoder_attention_heads": d_model // 64, "decoder_attention_heads": d_model // 64}
    with torch.device("meta"):
        whisper = WhisperForConditionalGeneration(WhisperConfig(d_model=d_model, **sizes, **heads))
    start = loader.Start(whisper, scratch().tokenizer, "openai/whisper-x", None)
    assert optimization.learning_rate("auto", start) == pytest.approx(rate, rel=0.03)


def test_learning_rate_of_scratch_and_a_given_one() -> None:
    assert optimization.learning_rate("auto", scratch()) == 1e-3
    assert optimization.learning_rate(2e-4, scratch()) == 2e-4
