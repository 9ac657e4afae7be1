"""dvc.yaml tells the truth: what a stage imports, which params it reads, and that every param does something."""

from __future__ import annotations

import ast
import importlib
import re
import shutil
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY, SHIPPED, write_params
from dvc.utils.hydra import apply_overrides

from asr.params import reader, schema

PIPELINE = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]
# They change no output byte: refusals and messages, speed, command lines, what is told to MLflow, and copies of checkpoints.
EXEMPT = {
    "asr",
    "asr.params.schema",
    "asr.tracking.journal",
    "asr.tracking.client",
    "asr.tracking.mirror",
    "asr.tracking.mirror_copy",
    "asr.tracking.mirror_store",
    "asr.errors",
    "asr.runtime.workers",
    "asr.runtime.command",
    "asr.preflight.forecast",
    "asr.preflight.refusals",
    "asr.preflight.trial",
}
ROOMS = {"asr": {"asr"}, "stages": {"asr", "stages"}, "dashboard": {"asr", "dashboard"}}


def path_of(module: str) -> Path | None:
    """The file of one of our modules."""
    place = REPOSITORY / module.replace(".", "/")
    found = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    return found if found.is_file() and not is_prose(found) else None


def is_prose(path: Path) -> bool:
    """Whether a file holds a docstring and nothing else, as the door of a room does: it can change no output."""
    return path.name == "__init__.py" and len(ast.parse(path.read_text()).body) < 2


def imports(path: Path) -> set[str]:
    """Our modules that a file imports, at its top or inside a function."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] in ("asr", "stages", "dashboard") and path_of(name)}


def reached(path: Path) -> set[Path]:
    """Files whose code can change what a stage writes."""
    found, waiting = set(), [path]
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += [path_of(name) for name in imports(one) - EXEMPT]
    return found


def python_deps(stage: str) -> set[str]:
    return {dep for dep in PIPELINE[stage]["deps"] if dep.endswith(".py")}


def needed(stage: str) -> set[str]:
    files = {str(path.relative_to(REPOSITORY)) for path in reached(REPOSITORY / "stages" / f"{stage}.py")}
    return files | ({"asr/evaluation/error_rates.py"} if stage == "evaluate" else set())


@pytest.mark.parametrize("stage", PIPELINE)
def test_a_stage_lists_exactly_the_modules_it_imports(stage: str) -> None:
    assert python_deps(stage) == needed(stage) - ({"asr/evaluation/error_rates.py"} if stage == "train" else set())


def test_a_forgotten_module_is_noticed() -> None:
    """The control: the comparison above fails for a list that lacks one."""
    assert python_deps("chunk") - {"asr/audio/codec.py"} != needed("chunk")


@pytest.mark.parametrize("stage", ["featurize", "train", "evaluate"])
def test_what_a_stage_keeps_is_named_by_all_the_code_that_made_it(stage: str) -> None:
    code = importlib.import_module(f"stages.{stage}").CODE
    listed = {f"{name.replace('.', '/')}.py" for name in code}
    assert listed == python_deps(stage)


def test_imports_between_rooms_are_allowed() -> None:
    for room, allowed in ROOMS.items():
        for path in (REPOSITORY / room).rglob("*.py"):
            for name in imports(path):
                assert name.split(".")[0] in allowed, f"{path}: {name}"
                if room == "stages" and name.startswith("stages."):
                    pytest.fail(f"{path} imports another stage, {name}")


def test_there_are_no_circles() -> None:
    graph = {path: {path_of(name) for name in imports(path) if name != "asr"} - {path} for path in (REPOSITORY / "asr").rglob("*.py")}
    sorted_ones: set[Path] = set()
    while len(sorted_ones) < len(graph):
        free = {path for path, needs in graph.items() if path not in sorted_ones and needs <= sorted_ones}
        assert free, f"a circle among {[path.name for path in graph if path not in sorted_ones]}"
        sorted_ones |= free


def test_every_param_is_read_by_a_stage_and_every_listed_param_exists() -> None:
    known = set(reader.flat(reader.load(SHIPPED).model_dump()))
    listed = {name for stage in PIPELINE.values() for name in stage.get("params", [])}
    for name in listed:
        assert any(key == name or key.startswith(f"{name}.") for key in known), name
    for key in known:
        assert any(key == name or key.startswith(f"{name}.") for name in listed), key


@pytest.mark.parametrize("stage", PIPELINE)
def test_a_stage_reads_no_param_that_it_does_not_list(stage: str) -> None:
    """Sections are read as `given.section` or handed over whole; both must stand in dvc.yaml."""
    text = (REPOSITORY / "stages" / f"{stage}.py").read_text()
    listed = {name.split(".")[0] for name in PIPELINE[stage]["params"]}
    read = set(re.findall(r"(?:given|load\(\))\.(download|stats|chunk|featurize|model|train|evaluate)\b", text))
    fields = {field for section in listed for field in schema.Params.model_fields[section].annotation.model_fields}
    assert read - fields <= listed | {"model"}


def test_params_are_block_style_and_every_value_has_its_reason() -> None:
    text = SHIPPED.read_text()
    assert not re.search(r"[{]|\[\s*\S", text.replace("[]", ""))
    bare = [line for line in text.splitlines() if re.match(r"\s+\w+: \S", line) and "#" not in line]
    repeated = ("validation", "test", "max_pitch", "mask_", "d_model", "encoder_", "decoder_", "per_device", "weight_decay", "seed")
    unexplained = [line for line in bare if not line.strip().startswith(repeated)]
    assert not unexplained, unexplained


def test_the_first_experiment_of_the_readme_fits_the_shipped_params(tmp_path: Path) -> None:
    assert "dvc exp run -S train.max_steps=200 -S train.learning_rate=3e-4" in (REPOSITORY / "README.md").read_text()
    tried = write_params(tmp_path / "params.yaml", {"train.max_steps": 200, "train.learning_rate": 3e-4})
    assert reader.load(tried).train.max_steps == 200


def test_the_lock_pins_plain_versions_and_names_no_host() -> None:
    lines = (REPOSITORY / "requirements.txt").read_text().split()
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line) for line in lines), lines
    names = {line.partition("==")[0].lower().replace("_", "-") for line in lines}
    wanted = {"dvc", "transformers", "torch", "datasets", "evaluate", "jiwer", "mlflow", "pyyaml", "pyarrow", "streamlit", "accelerate"}
    assert wanted <= names


def test_every_change_of_params_in_the_readme_is_one_that_dvc_takes(tmp_path):
    """Its grammar wants quotes around a letter beyond ASCII, and says only where it stumbled."""
    text = (REPOSITORY / "README.md").read_text().replace("...", "x").replace("<id>", "x")
    changes = re.findall(r"-S (?:'([^'\n]+)'|([^\s'`]+))", text)
    assert len(changes) > 20
    shutil.copy(SHIPPED, tmp_path / "params.yaml")
    for change in (quoted or plain for quoted, plain in changes):
        if not re.search(r"=[^\[{]*,", change):  # a sweep, which `dvc exp run --queue` takes apart
            apply_overrides(tmp_path / "params.yaml", [change])
