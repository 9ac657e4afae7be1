"""dvc.yaml tells the truth: what a stage imports, which params it reads, and that every param does
something.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from asr.params import reader
from asr.rooms import KEPT
from support import module_graph
from support.repository import REPOSITORY, SHIPPED

PIPELINE = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]
METRIC = "asr/evaluation/error_rates.py"  # loaded by its path
MAKERS = {
    "measurements": "asr/cleaning/measurements.py",
    "chunks": "stages/chunk.py",
    "features": "stages/featurize.py",
    "augmented features": "stages/featurize.py",
    "training": "stages/train.py",
    "hypotheses": "asr/evaluation/hypotheses.py",
    "evaluation": "stages/evaluate.py",
}


def code_deps(stage: str) -> set[str]:
    return {dep for dep in PIPELINE[stage]["deps"] if dep.startswith(("asr/", "stages/"))}


def needed(path: str) -> set[str]:
    """Files whose code can change what a file writes."""
    files = {
        str(found.relative_to(REPOSITORY)) for found in module_graph.reached(REPOSITORY / path)
    }
    return files | ({METRIC} if "asr/evaluation/metric.py" in files else set())


def faults_of(listed: set[str], files: set[str]) -> list[str]:
    """What is wrong with a list of rooms and files that should hold just these files."""
    missing = [
        file
        for file in sorted(files)
        if not any(file == place or file.startswith(f"{place}/") for place in listed)
    ]
    idle = [
        place
        for place in sorted(listed)
        if not any(file == place or file.startswith(f"{place}/") for file in files)
    ]
    return [
        *(f"{file} is missing" for file in missing),
        *(f"{place} is not needed" for place in idle),
    ]


@pytest.mark.parametrize("stage", PIPELINE)
def test_a_stage_lists_exactly_the_rooms_and_files_it_imports(stage: str) -> None:
    assert faults_of(code_deps(stage), needed(f"stages/{stage}.py")) == []


def test_what_a_list_lacks_or_has_too_much_is_noticed() -> None:
    """The control of the comparison above."""
    files = needed("stages/chunk.py")
    assert faults_of(code_deps("chunk") - {"asr/audio/codec.py"}, files) == [
        "asr/audio/codec.py is missing"
    ]
    assert faults_of(code_deps("chunk") | {"asr/model"}, files) == ["asr/model is not needed"]


def test_rooms_and_files_that_are_listed_are_there() -> None:
    for place in {place for places in KEPT.values() for place in places} | {
        dep for stage in PIPELINE for dep in code_deps(stage)
    }:
        assert (REPOSITORY / place).exists(), place


@pytest.mark.parametrize("kept", MAKERS)
def test_what_is_kept_is_named_by_the_code_that_decides_it(kept: str) -> None:
    """All that the maker reaches, but for what cannot change the content: checks, reports, and the
    reading and keeping of rows.
    """
    others = {
        "measurements": {"asr/storage", "asr/cleaning/sandbox.py"},
        "chunks": {
            "asr/audio",
            "asr/cleaning",
            "asr/storage/cache.py",
            "asr/storage/corpus.py",
            "asr/storage/scratch.py",
            "asr/whisper.py",
        },
        "features": {"asr/augmentation.py", "asr/audio/sample_file.py"},
        "training": {"asr/checks"},
        "hypotheses": {"asr/storage/cache.py"},
        "evaluation": {
            "asr/evaluation/cautions.py",
            "asr/evaluation/decoded.py",
            "asr/evaluation/report.py",
            "asr/markdown.py",
            "asr/storage/cache.py",
        },
    }.get(kept, set())
    given = {"hypotheses": {"asr/decoding/loading.py"}}.get(kept, set())  # it makes the recognizer
    files = given | {
        file
        for file in needed(MAKERS[kept])
        if not any(file == place or file.startswith(f"{place}/") for place in others)
    }
    assert faults_of(set(KEPT[kept]), files) == []


def test_every_param_is_read_by_a_stage_and_every_listed_param_exists() -> None:
    known = set(reader.flat(reader.load(SHIPPED).model_dump()))
    listed = {name for stage in PIPELINE.values() for name in stage.get("params", [])}
    for name in listed:
        assert any(key == name or key.startswith(f"{name}.") for key in known), name
    for key in known:
        assert any(key == name or key.startswith(f"{name}.") for name in listed), key


def unlisted(stage: str, read: set[str]) -> list[str]:
    """Params of these that dvc.yaml does not name for a stage."""
    listed = PIPELINE[stage]["params"]
    return sorted(
        key for key in read if not any(key == name or key.startswith(f"{name}.") for name in listed)
    )


@pytest.mark.parametrize("stage", PIPELINE)
def test_a_stage_reads_no_param_that_it_does_not_list(stage: str) -> None:
    files = module_graph.reached(REPOSITORY / "stages" / f"{stage}.py")
    read = module_graph.params_read(files)
    assert read, "a stage that reads no param is not understood"
    assert unlisted(stage, read) == []


# Functions, and the param that each reads; of sections that `chunk` does not list.
READING = {
    "def f(anything: schema.Params):\n    return anything.train.seed\n": "train.seed",
    "def f(one: schema.Params):\n    part = one.train\n    return part.max_steps\n": (
        "train.max_steps"
    ),
    "def f():\n    return reader.load().model.name\n": "model.name",
    "def f(one: schema.Evaluate | None):\n    return one.model_dump()\n": "evaluate",
    "def f(one: schema.Params):\n    return one.language\n": "model.language",
    """class A:
    def __init__(self, one: schema.Train):
        self.kept = one
    def f(self):
        return self.kept.save_steps
""": "train.save_steps",
    "class A:\n    part: schema.Train\n\ndef f(a: A):\n    return a.part.eval_steps\n": (
        "train.eval_steps"
    ),
    "def f(one: 'schema.Train'):\n    return one.eval_rows\n": "train.eval_rows",
    "def f(one: schema.Params):\n    a, b = one.train, 1\n    return a.precision\n": (
        "train.precision"
    ),
    "def f(one: schema.Params):\n    if a := one.train:\n        return a.average_count\n": (
        "train.average_count"
    ),
    "async def f(one: schema.Params):\n    return one.train.seed\n": "train.seed",
    "def f(one: schema.Params):\n    return getattr(one.train, 'seed')\n": "train",
    "def f(one: schema.Params):\n    return vars(one)\n": module_graph.ALL_PARAMS,
    "def f(one: schema.Params):\n    return one.model_dump()['train']\n": module_graph.ALL_PARAMS,
    "def f():\n    return open('params.yaml')\n": module_graph.ALL_PARAMS,
    "A = (paths.root() / 'params.yaml').read_text()\n": module_graph.ALL_PARAMS,
    "def f(root):\n    return open(f'{root}/params.yaml')\n": module_graph.ALL_PARAMS,
}
READING_NOTHING = (
    "def f(one: schema.Params):\n    return g(one.train)\n",
    "def f():\n    return g(reader.load(paths.root() / 'params.yaml'))\n",
)


@pytest.mark.parametrize("source", READING)
def test_a_param_is_seen_however_it_is_read(source: str, tmp_path: Path) -> None:
    """The control of the test above."""
    (tmp_path / "one.py").write_text(source)
    read = module_graph.params_read([tmp_path / "one.py"])
    assert READING[source] in read
    assert READING[source] in unlisted("chunk", read)


@pytest.mark.parametrize("source", READING_NOTHING)
def test_params_that_are_handed_on_are_not_read(source: str, tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(source)
    assert module_graph.params_read([tmp_path / "one.py"]) == set()


def test_params_are_block_style_and_every_value_has_its_reason() -> None:
    text = SHIPPED.read_text()
    assert not re.search(r"[{]|\[\s*\S", text.replace("[]", ""))
    bare = [line for line in text.splitlines() if re.match(r"\s+\w+: \S", line) and "#" not in line]
    repeated = (
        "validation",
        "test",
        "max_pitch",
        "mask_",
        "d_model",
        "encoder_",
        "decoder_",
        "per_device",
        "weight_decay",
        "seed",
    )
    unexplained = [line for line in bare if not line.strip().startswith(repeated)]
    assert not unexplained, unexplained


def test_the_lock_pins_plain_versions_and_names_no_host() -> None:
    lines = (REPOSITORY / "requirements.txt").read_text().split()
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line) for line in lines), lines
    names = {line.partition("==")[0].lower().replace("_", "-") for line in lines}
    wanted = {
        "dvc",
        "transformers",
        "torch",
        "datasets",
        "evaluate",
        "jiwer",
        "mlflow",
        "pyyaml",
        "pyarrow",
        "streamlit",
        "accelerate",
    }
    assert wanted <= names
