"""The documentation tells the truth: its links, commands, params, paths and layouts are real."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from asr import paths
from asr.params import reader, schema
from asr.runs import results
from stages import chunk, download
from support import documentation
from support.documentation import NAMES, Page, page, prompts
from support.repository import REPOSITORY, SHIPPED

MAX_README_LINES = 130
SUBTITLES = {
    ".srt": "1\n00:00:00,000 --> 00:00:01,000\nett\n\n2\n00:00:01,000 --> 00:00:02,000\ntvå\n",
    ".vtt": "WEBVTT\n\n00:00.000 --> 00:01.000\nett\n\n00:01.000 --> 00:02.000\ntvå\n",
}
# What runs here for real, in a second or two, and changes nothing.
RUN_FOR_REAL = {
    "make help": ("README.md", "make dashboard"),
    "earshot --help": ("docs/operations.md", "transcribe"),
    "earshot transcribe --help": ("docs/operations.md", "--format"),
    "make results": ("docs/evaluation.md", "| base-en |"),
    "make doctor": ("docs/operations.md", "nothing is left behind"),
}


@pytest.mark.parametrize("name", NAMES)
def test_what_a_page_says_is_true(name: str) -> None:
    assert documentation.faults(page(name)) == []


def test_enough_is_looked_at() -> None:
    """A page that is taken apart wrongly has no faults either."""
    pages = list(map(page, NAMES))
    programs = [command.words[0] for one in pages for command in one.commands if command.words]
    assert programs.count("dvc") > 30
    assert programs.count("make") > 25
    assert programs.count("earshot") > 5
    assert sum(len(one.code) for one in pages) > 200
    assert sum(len(one.blocks("yaml")) for one in pages) >= 1
    assert all(any(one.column(header) for one in pages) for header in documentation.TABLES)


ON_TEXT = {
    "[a](docs/data.md)": [],
    "[a](docs/nowhere.md)": ["docs/nowhere.md leads nowhere"],
    "![a](reports/no.svg)": ["reports/no.svg leads nowhere"],
    "[a](docs/data.md#no-such)": ["docs/data.md#no-such leads nowhere"],
    "# One `b` Two\n[a](#one-b-two)": [],
    "[a](#no)": ["#no leads nowhere"],
    "`reports/evaluate/report.md` `models/kept/x` `data/raw/manifest.json` `data/`": [],
    "`asr/nothing.py`": ["asr/nothing.py is not there, and no stage makes it"],
    "`reports/train/curves.svg`": ["reports/train/curves.svg is not there, and no stage makes it"],
    "```console\n$ cat reports/no.md\n```": ["reports/no.md is not there, and no stage makes it"],
    "```text\nasr/no.py  a room\n```": ["asr/no.py is not there, and no stage makes it"],
    "`train.max_steps` `download.mix` `train.learning_rate: auto`": [],
    "`train.maximum_steps`": ["train.maximum_steps is no param"],
    "`model.lora.size`": ["model.lora.size is no param"],
    '<img src="reports/no.svg">': ["reports/no.svg leads nowhere"],
    "a <a href='docs/no.md'>b</a>": ["docs/no.md leads nowhere"],
    "```\nmake repro\n```": ["a block of nothing"],
    "a\n\n    make repro": ["an indented block"],
    "`earshot transcribe` `-S train.seed=2 -S model.dropout=0.1`": [],
    "`HF_TOKEN`": [],
    "`HF_PASSWORD`": ["HF_PASSWORD is read nowhere"],
}


@pytest.mark.parametrize("text", ON_TEXT)
def test_what_is_wrong_with_a_text_is_noticed(text: str) -> None:
    """The control of the first test, beside what must pass."""
    assert documentation.faults(Page(REPOSITORY / "one.md", text)) == ON_TEXT[text]


# Errors in the pages themselves: what stands there, and what takes its place.
PLANTED = [
    ("docs/operations.md", "`make sync` sends", "`make synch` sends"),
    ("docs/operations.md", "| 7 | the disk", "| 8 | the disk"),
    ("docs/operations.md", "| 4 | network or credentials |\n", ""),
    ("docs/dashboard.md", "| `--task` |", "| `--tasks` |"),
    ("docs/dashboard.md", "`.cache/sessions`", "`.cache/session`"),
    ("docs/dashboard.md", "`.streamlit/config.toml`", "`.streamlit/config.yaml`"),
    ("docs/dashboard.md", "`train.seed=2`", "`train.seed=two`"),
    ("docs/dashboard.md", "-c requirements.txt", "-c constraints.txt"),
    ("docs/data.md", "(exit 7)", "(exit 8)"),
    ("docs/data.md", "`dvc repro -s -f featurize`", "`dvc repro -s -f featurise`"),
    ("docs/evaluation.md", "| `id`, `model` |", "| `id`, `models` |"),
    ("docs/evaluation.md", "import pandas\n", "import pandass\n"),
    ("docs/evaluation.md", "table = table[", "table = table]"),
    ("docs/evaluation.md", "```python", "```py"),
    ("docs/training.md", "linear, cosine,", "linear, cosinus,"),
    ("docs/training.md", "`train.average_weights`: last or best", "`train.average_weights`: worst"),
    ("CONTRIBUTING.md", "| `model` `engines`", "| `models` `engines`"),
]


@pytest.mark.parametrize(("name", "true", "false"), PLANTED)
def test_an_error_in_a_page_is_noticed(name: str, true: str, false: str) -> None:
    one = page(name)
    assert true in one.text
    changed = Page(one.path, one.text.replace(true, false))
    assert documentation.faults(changed) != []


ON_COMMANDS = {
    "make reprow": "No rule to make target 'reprow'",
    "make keep NOM=x": "make has no use for NOM",
    "make harness NAME=earthquake": "there is no harness earthquake",
    "dvc exp rnu": "DVC does not take this",
    "dvc exp run --tmep": "DVC does not take this",
    "dvc repro chunck": "chunck is no stage",
    "dvc exp run -S train.max_step=20": "max_step",
    "dvc exp run \\\n -S train.max_steps=many": "train.max_steps: got 'many'",
    "dvc exp run -S 'download.where=[{field: a, any_of: [ä], weight: 1, otherwise: 0}]'": "-S",
    "dvc exp run -S train.seed=1,2": "train.seed",
    "dvc exp run --queue -S train.seed=1,-2": "train.seed: got -2",
    "dvc exp run -S train.warmup_steps=9 -S train.max_steps=9": "fewer than max_steps",
    "cat x && dvc exp rnu": "DVC does not take this",
    "earshot transcibe a.mp3": "did you mean transcribe?",
    "earshot transcribe a.mp3 --fromat srt": "--fromat",
    "python -m asr results --keep": "--keep",
    "EARSHOT_MIROR=/mnt dvc repro": "EARSHOT_MIROR is read nowhere",
    "export HF_PASSWORD=x": "HF_PASSWORD is read nowhere",
    "pip install -e '.[lroa]'": "there is no extra lroa",
    "pip install -c lock.txt torch": "there is no file lock.txt",
    "streamlit run pages": "streamlit run pages",
    "earshoot transcribe": "earshoot is no known program",
}


@pytest.mark.parametrize("line", ON_COMMANDS)
def test_a_wrong_command_is_noticed(line: str) -> None:
    one = Page(REPOSITORY / "one.md", f"```console\n$ {line}\nwhat is seen\n```")
    faults = documentation.command_faults(one)
    assert len(faults) == 1
    assert ON_COMMANDS[line] in faults[0]


def test_wrong_values_within_a_text_and_in_a_snippet_are_noticed() -> None:
    text = "`-S train.seed=2 -S train.lr_scheduler_type=cosinus`\n"
    text += "```yaml\ndownload:\n  sauce: folder\n```"
    inline, snippet = documentation.faults(Page(REPOSITORY / "one.md", text))
    assert "train.lr_scheduler_type: got 'cosinus'" in inline
    assert "download.sauce: unknown key; did you mean source?" in snippet


@pytest.mark.parametrize("line", RUN_FOR_REAL)
def test_a_command_shows_what_the_page_says(line: str, tmp_path: Path) -> None:
    name, expected = RUN_FOR_REAL[line]
    shown = dict(shown_by_command(page(name)))
    assert line in shown or line in page(name).text
    make_repository(tmp_path)
    output = run(line, tmp_path)
    assert expected in output
    assert all(text in output for text in shown.get(line, []))


def make_repository(root: Path) -> None:
    """A commit that holds dvc.yaml and nothing else: a clone that lacks nothing."""
    (root / "dvc.yaml").write_text("stages: {}\n")
    identity = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    for words in (("init", "-q"), ("add", "dvc.yaml"), (*identity, "commit", "-qm", "start")):
        subprocess.run(["git", *words], cwd=root, check=True)


def shown_by_command(one: Page) -> list[tuple[str, list[str]]]:
    """What a page shows below each command."""
    pairs = [pair for block in one.blocks("console") for pair in prompts(block)]
    return [(line.partition("#")[0].strip(), shown) for line, shown in pairs]


def run(line: str, root: Path) -> str:
    """What a command prints, with this environment, and nothing of its own at `root`."""
    program, *arguments = line.split()
    start = {
        "make": ["make", f"VENV={Path(sys.executable).parents[1]}"],
        "earshot": [sys.executable, "-m", "asr"],
    }[program]
    environment = {**os.environ, "DVC_ROOT": str(root)}
    return subprocess.run(
        [*start, *arguments],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_the_readme_is_short_and_its_kept_results_are_the_kept_ones() -> None:
    lines = page("README.md").text.splitlines()
    assert len(lines) <= MAX_README_LINES
    table = results.kept_table(REPOSITORY / "reports/kept").splitlines()
    start = lines.index(table[0])
    end = lines.index("", start)
    assert lines[start:end] == table


@pytest.fixture
def metrics() -> dict[str, Any]:
    """The scores that are committed, where they are those of the default run."""
    if documentation.committed("params.yaml") != SHIPPED.read_text():
        pytest.skip("another experiment than the default one is committed")
    return dict(json.loads(documentation.committed(paths.METRICS)))


def test_the_results_in_the_pages_are_those_that_are_committed(metrics: dict[str, Any]) -> None:
    pages = list(map(page, NAMES))
    assert sum(len(documentation.shown_results(one)) for one in pages) == 5
    assert [fault for one in pages for fault in documentation.result_faults(one, metrics)] == []


def test_a_result_of_another_run_is_noticed(metrics: dict[str, Any]) -> None:
    """The control of the test above."""
    other = {**metrics, "wer": 0.5, "more": 1}
    (after,) = documentation.result_faults(page("README.md"), other)
    assert after.startswith("WER after training")
    _, share, key = documentation.result_faults(page("docs/evaluation.md"), other)
    assert share.endswith(" %")
    assert key == "key: more"


# The layouts of a folder of recordings


def layouts() -> list[list[str]]:
    """The files of each layout that docs/data.md shows."""
    return [block.split() for block in page("docs/data.md").blocks("text")]


def test_three_layouts_are_shown() -> None:
    assert len(layouts()) == 3


@pytest.mark.parametrize(("number", "rows"), [(0, 1), (1, 1), (2, 2)])
def test_a_layout_as_shown_goes_through_the_data_stages(
    number: int, rows: int, tmp_path: Path
) -> None:
    lay_out(layouts()[number], tmp_path)
    params = reader.load(SHIPPED)
    source = {"source": "folder", "path": str(tmp_path / "mine"), "language": "sv"}
    take(tmp_path, params.download.model_copy(update=source), params.chunk)
    for split in ("train", "validation", "test"):
        assert split_rows(tmp_path / "data/chunks" / split) == rows


def lay_out(names: list[str], folder: Path) -> None:
    """Make these files: sound, and what belongs beside it."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".wav", ".mp3"):
            noise = np.random.default_rng(number).normal(0, 0.1, 32_000)
            soundfile.write(path, noise, 16_000)
        elif path.suffix == ".csv":
            path.write_text(page("docs/data.md").blocks("csv")[0], encoding="utf-8")
        else:
            path.write_text(SUBTITLES.get(path.suffix, f"mening {number}"), encoding="utf-8")


def take(root: Path, from_where: schema.Download, limits: schema.ChunkParams) -> None:
    """Download and chunk, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKERS", "1")
        download.run(root / "data/raw", from_where)
        chunk.run(
            root / "data/raw",
            root / "data/chunks",
            root / "reports",
            limits.rows_per_chunk,
            (limits.min_seconds, limits.max_seconds),
            [],
        )


def split_rows(folder: Path) -> int:
    return int(json.loads((folder / "manifest.json").read_text())["rows"])


def test_the_table_that_is_shown_names_the_files_that_are_shown() -> None:
    table = csv.DictReader(io.StringIO(page("docs/data.md").blocks("csv")[0]))
    assert [f"mine/{row['file_name']}" for row in table] == layouts()[0][1:]
