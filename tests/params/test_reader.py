"""params.yaml is read as DVC reads it, checked as a whole, and refused line by line."""

import cProfile
import inspect
import json
import pstats
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from asr.errors import ParamsError
from asr.params import reader, schema
from asr.whisper import WHISPER_LANGUAGES
from support.data import added, changed, load, place_of
from support.imports import imported
from support.repository import REPOSITORY, SHIPPED

SECTIONS = [
    model
    for _, model in inspect.getmembers(schema, inspect.isclass)
    if issubclass(model, schema.Section)
]
LEAVES = sorted(reader.flat(YAML(typ="safe", pure=True).load(SHIPPED.read_text())))


def refusal(tmp_path: Path, text: str) -> list[str]:
    """The lines of the error that this text of params.yaml gets, without the file's name."""
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(ParamsError) as caught:
        reader.load(path)
    assert caught.value.exit_code == 2
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{path}:") for line in lines)
    return [line.removeprefix(f"{path}:").strip() for line in lines]


def refused(tmp_path: Path, dotted: str, value: str) -> list[str]:
    return refusal(tmp_path, changed(SHIPPED.read_text(), dotted, value))


def at(dotted: str) -> str:
    return f"{place_of(SHIPPED.read_text(), dotted) + 1}: {dotted}"


@pytest.mark.parametrize("path", [SHIPPED, REPOSITORY / "params.yaml"])
def test_the_shipped_file_and_the_workspaces_own_load(path):
    """So both have all keys and no others."""
    assert reader.load(path).language in WHISPER_LANGUAGES


def test_the_file_is_looked_for_where_the_stage_runs(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ParamsError, match=r"params\.yaml: not there; run from the top of the repository"
    ):
        reader.load()


def test_values_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        reader.load(SHIPPED).train.max_steps = 1


@pytest.mark.parametrize("model", SECTIONS, ids=lambda model: model.__name__)
def test_no_model_has_a_default(model):
    """But items of lists, where nothing said is nothing asked (Rule), or as the section says
    (Mixed).
    """
    free = [name for name, field in model.model_fields.items() if not field.is_required()]
    assert not free or (
        model.__name__ in ("Rule", "MixedSource")
        and all(model.model_fields[name].default is None for name in free)
    )


@pytest.mark.parametrize("model", SECTIONS, ids=lambda model: model.__name__)
def test_every_model_is_frozen_and_strict_and_knows_its_keys(model):
    config = model.model_config
    assert (config["frozen"], config["strict"], config["extra"]) == (True, True, "forbid")


def test_flat_names_every_leaf_with_its_dotted_key():
    values = reader.flat(reader.load(SHIPPED).model_dump())
    assert sorted(values) == LEAVES
    assert (
        values["download.synthetic.rows.train"]
        == reader.load(SHIPPED).download.synthetic.rows.train
    )


@pytest.mark.parametrize(
    ("dotted", "value", "want"),
    [
        ("train.max_steps", "many", "got 'many', want: Input should be a valid integer"),
        ("train.max_steps", "true", "got True, want: Input should be a valid integer"),
        ("train.max_steps", "10.5", "got 10.5, want: Input should be a valid integer"),
        ("train.max_steps", "0", "got 0, want: Input should be greater than or equal to 1"),
        ("train.max_steps", "-5", "got -5, want: Input should be greater than or equal to 1"),
        ("train.max_steps", "null", "got nothing, want: Input should be a valid integer"),
        ("train.seed", "-1", "got -1, want: Input should be greater than or equal to 0"),
        ("train.weight_decay", "true", "got True, want: Input should be a valid number"),
        ("train.weight_decay", "'0.1'", "got '0.1', want: Input should be a valid number"),
        ("train.max_grad_norm", "0", "got 0, want: Input should be greater than 0"),
        ("train.max_grad_norm", ".nan", "got nan, want: Input should be a finite number"),
        ("train.learning_rate", "-1.0e-5", "got -1e-05, want: Input should be greater than 0"),
        ("train.learning_rate", ".inf", "got inf, want: Input should be a finite number"),
        ("train.precision", "fp8", "got 'fp8', want: Input should be 'fp32', 'bf16' or 'fp16'"),
        ("chunk.max_seconds", ".inf", "got inf, want: Input should be a finite number"),
        ("model.dropout", "1.0", "got 1.0, want: Input should be less than 1"),
        ("model.apply_spec_augment", "1", "got 1, want: Input should be a valid boolean"),
        ("model.window_seconds", "31", "got 31, want: Input should be less than or equal to 30"),
        ("featurize.num_mel_bins", "81", "got 81, want: Input should be 80 or 128"),
        ("stats.window_candidates_seconds", "[]", "got [], want: List should have at least 1 item"),
        (
            "download.source",
            "hub",
            (
                "got 'hub', want: Input should be 'synthetic', 'common_voice', 'folder', "
                "'huggingface', 'data_collective'"
            ),
        ),
        (
            "download.synthetic.max_pitch",
            "100",
            "got 100, want: Input should be less than or equal to 99",
        ),
        (
            "evaluate.bootstrap_resamples",
            "10",
            "got 10, want: Input should be greater than or equal to 100",
        ),
    ],
)
def test_a_bad_value_is_refused_with_line_and_key(tmp_path, dotted, value, want):
    assert refused(tmp_path, dotted, value)[0].startswith(f"{at(dotted)}: {want}")


@pytest.mark.parametrize(
    ("low", "value", "high", "limit", "want"),
    [
        (
            "train.warmup_steps",
            "50",
            "train.max_steps",
            "50",
            "got 50, want fewer than max_steps (50)",
        ),
        (
            "train.pack_to_window",
            "true",
            "train.timestamp_share",
            "0.0",
            (
                "got true, want train.timestamp_share above 0: rows are packed with their "
                "times, or not at all"
            ),
        ),
        (
            "evaluate.precision",
            "fp16",
            "evaluate.engine",
            "openvino",
            "got fp16, want fp32 or bf16 with OpenVINO, or evaluate.engine: torch",
        ),
        (
            "chunk.min_seconds",
            "9",
            "chunk.max_seconds",
            "8.5",
            "got 9, want at most max_seconds (8.5)",
        ),
        (
            "download.synthetic.min_numbers",
            "4",
            "download.synthetic.max_numbers",
            "3",
            "got 4, want at most max_numbers (3)",
        ),
        (
            "download.synthetic.min_words_per_minute",
            "150",
            "download.synthetic.max_words_per_minute",
            "149",
            "got 150, want at most max_words_per_minute (149)",
        ),
        (
            "download.synthetic.min_pitch",
            "71",
            "download.synthetic.max_pitch",
            "70",
            "got 71, want at most max_pitch (70)",
        ),
        (
            "model.scratch.d_model",
            "190",
            "model.scratch.encoder_attention_heads",
            "4",
            "got 190, want an even multiple of the attention heads (4)",
        ),
        (
            "model.scratch.d_model",
            "190",
            "model.scratch.decoder_attention_heads",
            "4",
            "got 190, want an even multiple of the attention heads (4)",
        ),
    ],
)
def test_values_that_contradict_each_other_are_refused(tmp_path, low, value, high, limit, want):
    text = changed(SHIPPED.read_text(), low, value)
    for heads in ("encoder", "decoder"):
        text = changed(text, f"model.scratch.{heads}_attention_heads", "2")
    assert refusal(tmp_path, changed(text, high, limit)) == [f"{at(low)}: {want}"]


def test_an_item_of_a_list_is_named_with_its_own_line(tmp_path):
    text = changed(SHIPPED.read_text(), "evaluate.baselines", "[]")
    text = added(
        changed(text, "stats.window_candidates_seconds", ""), "chunk", "    - 5\n    - five\n"
    )
    line = text.splitlines().index("    - five") + 1
    assert refusal(tmp_path, text) == [
        (
            f"{line}: stats.window_candidates_seconds.1: got 'five', want: Input should be a "
            "valid number"
        )
    ]


def test_an_unknown_key_is_answered_by_the_nearest_known_one(tmp_path):
    text = SHIPPED.read_text().replace("  save_steps:", "  save_stpes:")
    line = place_of(text, "train.save_stpes") + 1
    assert f"{line}: train.save_stpes: unknown key; did you mean save_steps?" in refusal(
        tmp_path, text
    )


def test_an_unknown_key_inside_a_nested_section_is_answered_too(tmp_path):
    before, section, after = SHIPPED.read_text().partition("  synthetic:")
    text = before + section + after.replace("      validation:", "      valdation:", 1)
    line = place_of(text, "download.synthetic.rows.valdation") + 1
    assert (
        f"{line}: download.synthetic.rows.valdation: unknown key; did you mean validation?"
        in refusal(tmp_path, text)
    )


@pytest.mark.parametrize("key", ["Max_Steps", "adam_beta1", "max-steps", "float", "str", "7"])
def test_an_unknown_key_of_any_spelling_is_named_with_its_line(tmp_path, key):
    text = added(SHIPPED.read_text(), "train.max_steps", f"{key}: 1")
    found = [
        line
        for line in refusal(tmp_path, text)
        if line.startswith(f"{place_of(text, f'train.{key}') + 1}: train.{key}: ")
    ]
    assert len(found) == 1
    assert "unknown key" in found[0] or "keys" in found[0].lower()


@pytest.mark.parametrize("key", ["Train", "training2"])
def test_an_unknown_section_of_any_spelling_is_a_refusal_not_a_crash(tmp_path, key):
    text = f"{SHIPPED.read_text()}\n{key}: 1\n"
    assert f"{len(text.splitlines())}: {key}: unknown key; did you mean train?" in refusal(
        tmp_path, text
    )


def test_a_missing_value_is_refused(tmp_path):
    text = "\n".join(
        line for line in SHIPPED.read_text().splitlines() if not line.startswith("  max_steps:")
    )
    assert refusal(tmp_path, text) == [
        f"{place_of(text, 'train') + 1}: train.max_steps: missing; every value stands in this file"
    ]


def test_a_key_that_stands_twice_is_refused(tmp_path):
    text = added(SHIPPED.read_text(), "train.max_steps", "max_steps: 1")
    (line,) = refusal(tmp_path, text)
    assert line.startswith(f"{place_of(text, 'train.max_steps') + 2}: found duplicate key")


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("", "want one section per stage, got NoneType"),
        ("- a\n", "want one section per stage, got list"),
        ("train: [1\n", "2: expected ',' or ']', but got '<stream end>'"),
        ("train:\n\t- 1\n", "2: found character '\\t' that cannot start any token"),
        (
            "train: !!python/object:os.system x\n",
            "1: could not determine a constructor for the tag",
        ),
    ],
)
def test_what_is_no_yaml_of_ours_is_refused(tmp_path, text, want):
    (line,) = refusal(tmp_path, text)
    assert line.startswith(want)


def test_what_is_not_utf_8_is_refused(tmp_path):
    (tmp_path / "params.yaml").write_bytes(b"train: \xff")
    with pytest.raises(ParamsError, match=r"params\.yaml: not UTF-8 at byte 7"):
        reader.load(tmp_path / "params.yaml")


def test_every_leaf_that_is_wrong_is_named_in_one_go(tmp_path):
    text = SHIPPED.read_text()
    for dotted in LEAVES:
        text = changed(text, dotted, "{a: 1}")
    found = refusal(tmp_path, text)
    for dotted in LEAVES:
        assert any(line.startswith(f"{place_of(text, dotted) + 1}: {dotted}") for line in found), (
            dotted
        )


def test_a_contradiction_and_a_wrong_value_of_one_section_are_named_together(tmp_path):
    text = changed(
        changed(SHIPPED.read_text(), "train.warmup_steps", "99999"), "train.precision", "fp8"
    )
    assert {line.split(": ")[1] for line in refusal(tmp_path, text)} == {
        "train.warmup_steps",
        "train.precision",
    }


def test_an_unknown_language_and_a_wrong_value_elsewhere_are_named_together(tmp_path):
    text = changed(
        changed(SHIPPED.read_text(), "download.language", "xx"), "train.precision", "fp8"
    )
    assert {line.split(": ")[1] for line in refusal(tmp_path, text)} == {
        "download.language",
        "train.precision",
    }


def test_two_contradictions_of_one_section_are_named_together(tmp_path):
    text = changed(
        changed(SHIPPED.read_text(), "download.synthetic.min_numbers", "99"),
        "download.synthetic.min_pitch",
        "99",
    )
    found = {line.split(": ")[1] for line in refusal(tmp_path, text)}
    assert found == {"download.synthetic.min_numbers", "download.synthetic.min_pitch"}


def test_refusing_everything_costs_little_more_than_refusing_one(tmp_path):
    """Counted in calls of functions: the file is not read again for each error."""

    def num_calls(wrong: list[str]) -> int:
        text = SHIPPED.read_text()
        for dotted in wrong:
            text = changed(text, dotted, "{a: 1}")
        profile = cProfile.Profile()
        told = profile.runcall(refusal, tmp_path, text)
        assert len(told) >= len(wrong)
        return pstats.Stats(profile).total_calls

    assert len(LEAVES) > 100
    assert num_calls(LEAVES) < 3 * num_calls(LEAVES[:1])


def test_no_is_norwegian_and_not_false(tmp_path):
    assert load(tmp_path, download__language="no").language == "no"


@pytest.mark.parametrize(
    ("written", "read"), [("1e-5", 1e-5), ("1E-5", 1e-5), ("1", 1.0), ("012", 12.0)]
)
def test_numbers_are_read_as_yaml_1_2(tmp_path, written, read):
    given = load(tmp_path, train__weight_decay=written).train.weight_decay
    assert given == read
    assert isinstance(given, float)


def test_an_integer_is_not_octal(tmp_path):
    assert load(tmp_path, train__eval_rows="012").train.eval_rows == 12


@pytest.mark.parametrize(
    "name",
    [
        "models/finetuned",
        "./models/finetuned/",
        "models/kept/../finetuned",
        "data/features",
        "reports/train/best",
    ],
)
def test_a_start_model_inside_a_stage_out_is_refused_with_the_way_out(tmp_path, name):
    want = (
        f"got {name}, which DVC deletes before training; want a copy: make keep NAME=mine, "
        "then models/kept/mine"
    )
    assert refused(tmp_path, "model.name", name) == [f"{at('model.name')}: {want}"]


@pytest.mark.parametrize(
    "name", ["openai/whisper-small", "models/kept/mine", "models/finetuned2", "someone/reports"]
)
def test_a_start_model_elsewhere_is_taken(tmp_path, name):
    assert load(tmp_path, model__name=name).model.name == name


def test_a_corpus_that_needs_a_path_is_refused_without_one(tmp_path):
    want = "got nothing, want where the folder corpus lies"
    assert refused(tmp_path, "download.source", "folder") == [f"{at('download.path')}: {want}"]


@pytest.mark.parametrize("dotted", ["download.language", "model.language"])
def test_a_language_that_whisper_has_no_token_for_is_refused(tmp_path, dotted):
    (line,) = refused(tmp_path, dotted, "sv-SE")
    assert line.startswith(
        f"{at(dotted)}: got sv-SE, which Whisper has no token for; want model.language "
        "set to the nearest"
    )


def test_the_prompt_language_may_stand_in_for_the_corpus_language(tmp_path):
    assert load(tmp_path, download__language="sv-SE", model__language="sv").language == "sv"


def test_importing_params_takes_neither_numpy_nor_torch():
    heavy = ("numpy", "torch", "pyarrow", "transformers", "mlflow")
    assert imported("import asr.params.schema", *heavy) == []
    assert imported("import numpy", *heavy) == ["numpy"], "the control"


MIXED = {"source": "folder", "path": "other", "share": 1.0, "role": "train"}


@pytest.mark.parametrize(
    ("change", "want"),
    [
        ({"path": None}, "path: got nothing, want where this corpus lies"),
        (
            {"language": "de"},
            "language: got de, want download.language (sv): all that is trained on has one prompt",
        ),
        (
            {"language": "rm", "role": "holdout"},
            (
                "language: got rm, which Whisper has no token for; want one of its languages "
                "(asr/whisper.py)"
            ),
        ),
        ({"role": "test"}, "role: got 'test', want: Input should be 'train' or 'holdout'"),
        ({"share": 0.0}, "share: got 0.0, want: Input should be greater than 0"),
        ({"shar": 1.0}, "shar: unknown key; did you mean share?"),
    ],
)
def test_a_source_that_is_mixed_in_wrongly_is_refused(tmp_path, change, want):
    text = changed(SHIPPED.read_text(), "download.mix", json.dumps([{**MIXED, **change}]))
    assert [line.partition("download.mix.0.")[2] for line in refusal(tmp_path, text)] == [want]


@pytest.mark.parametrize(
    ("test", "want"),
    [
        ({}, "got neither any_of nor limits, want values in any_of, or else min, max or both"),
        (
            {"any_of": []},
            "got neither any_of nor limits, want values in any_of, or else min, max or both",
        ),
        (
            {"any_of": ["teens"], "min": 3},
            "got any_of and min, want values in any_of, or else min, max or both",
        ),
        ({"min": 3, "max": 1}, "got 3, want at most max (1)"),
    ],
)
def test_a_rule_that_says_nothing_or_two_things_is_refused(tmp_path, test, want):
    text = changed(
        SHIPPED.read_text(),
        "download.where",
        json.dumps([{"field": "age", "weight": 1, "otherwise": 0, **test}]),
    )
    assert [
        line.partition(": download.where.0")[2].partition(": ")[2]
        for line in refusal(tmp_path, text)
    ] == [want]


def test_what_a_mixed_source_does_not_say_is_as_download_says(tmp_path):
    (tmp_path / "params.yaml").write_text(
        changed(SHIPPED.read_text(), "download.mix", json.dumps([{**MIXED, "seed": 7}]))
    )
    (mixed,) = reader.load(tmp_path / "params.yaml").download.mix
    assert mixed.own() == {"source": "folder", "path": "other", "seed": 7}


def test_what_is_held_out_may_have_another_language(tmp_path):
    entry = json.dumps([{**MIXED, "language": "de", "role": "holdout"}])
    (tmp_path / "params.yaml").write_text(changed(SHIPPED.read_text(), "download.mix", entry))
    assert reader.load(tmp_path / "params.yaml").download.mix[0].language == "de"


@pytest.mark.parametrize("value", ["5", "'x'", "{source: folder}", "[5]", "[[1]]", "[null]"])
def test_a_mix_that_is_no_list_of_sources_is_refused_without_a_traceback(tmp_path, value):
    assert refusal(tmp_path, changed(SHIPPED.read_text(), "download.mix", value))
