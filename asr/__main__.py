"""The command `earshot NAME`, which starts everything that is not a stage or a page.

    earshot --help           # lists the commands
    earshot NAME --help      # says how one is used
    python -m asr NAME       # the same, without installing

Costs the import of the one command that is called.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from typing import NamedTuple

from asr.errors import ParamsError, exit_with


class Command(NamedTuple):
    """The module and function that a command calls, and one line of help."""

    module: str
    help: str
    function: str = "main"


COMMANDS = {
    "transcribe": Command(
        "asr.transcribe.__main__", "recordings to text and subtitles, by any model"
    ),
    "results": Command(
        "asr.runs.results", "scores of the present workspace, or with --kept of all kept models"
    ),
    "keep": Command(
        "asr.runs.keep", "copy the present model to models/kept, its scores to reports/kept"
    ),
    "share": Command(
        "asr.runs.share", "push experiments and their data, or say why the data would stay"
    ),
    "sync": Command(
        "asr.tracking.follower", "fill MLflow from the journals, after an outage", "sync_main"
    ),
    "doctor": Command("asr.doctor", "what was left behind or would be lost, and how to mend it"),
    "overfit": Command(
        "asr.preflight.overfit", "can the model of params.yaml learn eight rows by heart?"
    ),
    "prompt-language": Command(
        "asr.preflight.prompt_language", "which of Whisper's languages carries one it does not know"
    ),
    "augment": Command("asr.augmentation", "hear what featurize.augment makes of a recording"),
    "refresh": Command("asr.runs.refresh", "bring the dashboard's index of runs up to date"),
}


def usage() -> str:
    """The help text: one line per command."""
    width = max(map(len, COMMANDS))
    commands = [f"  {name:<{width}}  {command.help}" for name, command in COMMANDS.items()]
    return "\n".join(["usage: earshot NAME ...    (earshot NAME --help says more)", "", *commands])


def run() -> None:
    """Run the command that the first argument names, with the other arguments.

    Raises:
        ParamsError: there is no such command.
    """
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(usage())
        return
    if name not in COMMANDS:
        similar = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {similar[0]}?" if similar else "earshot --help lists them"
        raise ParamsError(f"earshot: there is no command {name!r}; {hint}")
    command = COMMANDS[name]
    sys.argv = [f"earshot {name}", *arguments]  # argparse reads the name for `usage:` from here
    module = importlib.import_module(command.module)
    getattr(module, command.function)()


def main() -> None:
    exit_with(run)


if __name__ == "__main__":
    main()
