"""Which of Whisper's languages carries one it has no token for: the start model hears validation
rows once per candidate.

    earshot prompt-language no da is [--model openai/whisper-small] [--rows 64]

The candidate with the lowest WER is the one for `model.language`. Rows, start model and task are
those of params.yaml, and the features must be there (dvc repro featurize). Costs one pass of the
encoder over the rows, and one of the decoder per candidate.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from asr import paths
from asr.errors import DataError, ModelError, ParamsError, exit_with
from asr.params import reader, schema
from asr.runtime import command
from asr.runtime.workers import progress
from asr.whisper import LANGUAGE_NAMES, WHISPER_LANGUAGES

if TYPE_CHECKING:
    from asr.features import FeatureRows
    from asr.model.loader import Start

RESAMPLES = 2000


@dataclass(frozen=True)
class Score:
    """One candidate: its WER and CER, and how its WER compares with the best one's on the same
    rows.
    """

    language: str
    wer: float
    cer: float
    verdict: str


def refuse_unknown(languages: Iterable[str]) -> None:
    """Refuse codes that Whisper has no token for.

    Raises:
        BadParams: with the codes.
    """
    unknown = [code for code in languages if code not in WHISPER_LANGUAGES]
    if unknown:
        raise ParamsError(
            f"{', '.join(unknown)}: not among Whisper's languages; want codes such as sv, no, fi (asr/whisper.py)"
        )


def start_model(given: schema.Params, name: str | None) -> Start:
    """The trained model that candidates are tried with.

    Raises:
        BadParams: params start from scratch, where no language is known yet.
        BadModel: the model knows one language only, or cannot be loaded.
    """
    from asr.model import loader

    name = name or given.model.name
    if name == loader.SCRATCH:
        raise ParamsError(
            "model.name: scratch knows no language yet; want a trained start: --model openai/whisper-small, or a folder"
        )
    start = loader.load(
        name, given.model.revision if name == given.model.name else None, given.model.window_seconds
    )
    if not start.model.generation_config.is_multilingual:
        raise ModelError(f"{start.name} knows one language only; want a multilingual start")
    return start


def prompts(start: Start, languages: Iterable[str], task: str) -> dict[str, list[int]]:
    """The prompt of each candidate.

    Raises:
        BadModel: the model has no token for one of them.
    """
    from asr.model import loader, tokenization

    found = {}
    for code in languages:
        loader.set_prompt(start.model, code, task)
        found[code] = tokenization.prompt(start.model.generation_config)
    return found


def chosen_rows(rows: FeatureRows, count: int, seed: int, window_seconds: int) -> list[int]:
    """The validation rows that training is judged by, as far as they fit the window; longest first.

    Raises:
        BadData: none fits.
    """
    from asr.training import validation

    durations = rows.column("duration")
    subset = validation.subset(rows.column("id"), count, seed)
    fitting = [row for row in subset if durations[row] <= window_seconds]
    if not fitting:
        raise DataError(
            f"validation: no row is shorter than the window of {window_seconds} s; raise model.window_seconds"
        )
    if len(fitting) < len(subset):
        print(
            f"left out: {len(subset) - len(fitting)} rows longer than the window of {window_seconds} s",
            flush=True,
        )
    return sorted(fitting, key=lambda row: -durations[row])


def hypotheses(
    start: Start,
    rows: FeatureRows,
    chosen: list[int],
    prompted: dict[str, list[int]],
    batch_size: int,
) -> dict[str, list[str]]:
    """What each candidate's prompt makes of each row; the encoder hears a row once."""
    from asr.features import input_features
    from asr.model import greedy, loader
    from asr.whisper import FRAMES_PER_SECOND

    whisper = start.model.to(loader.device()).eval()
    frames, durations = loader.window_seconds(whisper) * FRAMES_PER_SECOND, rows.column("duration")
    heard: dict[str, list[str]] = {code: [] for code in prompted}
    groups = list(greedy.in_groups(chosen, batch_size))
    for group in progress(groups, len(groups), "batches", f"decode for {len(prompted)} languages"):
        encoded = greedy.encode(
            whisper, input_features([rows.log_mel(row) for row in group], frames).to(whisper.device)
        )
        limits = [greedy.max_tokens(durations[row]) for row in group]
        for code, prompt in prompted.items():
            tokens = greedy.decode_encoded(whisper, encoded, prompt, limits)
            heard[code] += start.tokenizer.batch_decode(tokens, skip_special_tokens=True)
    return heard


def scores(
    references: list[str], heard: dict[str, list[str]], speakers: list[str | None], seed: int
) -> list[Score]:
    """The candidates, best first; among equal ones, that of the lower CER."""
    from asr import wer

    spoken = [wer.normalize(text) for text in references]
    texts = {code: [wer.normalize(text) for text in said] for code, said in heard.items()}
    rates = {code: wer.error_rates(spoken, said) for code, said in texts.items()}
    errors = {
        code: [wer.count_words(*pair).errors for pair in zip(spoken, said, strict=True)]
        for code, said in texts.items()
    }
    words = [len(text.split()) for text in spoken]
    best, *_ = ranked = sorted(rates, key=lambda code: (rates[code]["wer"], rates[code]["cer"]))
    verdicts = {
        code: wer.paired(errors[code], errors[best], words, speakers, RESAMPLES, seed).verdict
        for code in ranked
    }
    return [
        Score(
            code, rates[code]["wer"], rates[code]["cer"], "best" if code == best else verdicts[code]
        )
        for code in ranked
    ]


def measure(
    start: Start, rows: FeatureRows, languages: list[str], given: schema.Params, count: int
) -> list[Score]:
    """The candidates' scores on `count` validation rows, best first."""
    from asr.model import loader

    prompted = prompts(start, languages, given.model.task)
    loader.check_mel_bins(start.model, rows.num_mel_bins)
    chosen = chosen_rows(rows, count, given.train.seed, loader.window_seconds(start.model))
    heard = hypotheses(start, rows, chosen, prompted, given.train.per_device_eval_batch_size)
    texts, speakers = rows.column("text"), rows.column("speaker")
    return scores(
        [texts[row] for row in chosen], heard, [speakers[row] for row in chosen], given.train.seed
    )


def table(found: list[Score]) -> str:
    """What a person reads, with the command to go on by."""
    lines = [f"{'language':<18}{'WER':>8}{'CER':>8}  against the best"]
    lines += [
        f"{one.language:<4}{LANGUAGE_NAMES[one.language]:<14}{one.wer:8.4f}{one.cer:8.4f}  {one.verdict}"
        for one in found
    ]
    return "\n".join([*lines, f"train with it: dvc exp run -S model.language={found[0].language}"])


def arguments() -> argparse.Namespace:
    parser = command.parser(__doc__)
    parser.add_argument(
        "languages",
        nargs="+",
        metavar="CODE",
        help="candidates by Whisper's codes, such as no da is",
    )
    parser.add_argument("--model", help="a hub id or a folder (default: model.name of params.yaml)")
    parser.add_argument(
        "--rows", type=int, default=64, help="validation rows, chosen by train.seed (default: 64)"
    )
    given = parser.parse_args()
    if given.rows < 1:
        parser.error(f"--rows: got {given.rows}, want 1 or more")
    return given


def main() -> None:
    asked = arguments()
    languages = list(dict.fromkeys(asked.languages))
    refuse_unknown(languages)
    given, split = reader.load(), Path(paths.FEATURES, "validation")
    if not (paths.root() / split / "manifest.json").is_file():
        raise DataError(f"{split}: not there; run dvc repro featurize")
    start = start_model(given, asked.model)
    from asr.features import (
        FeatureRows,
    )  # with its libraries, which help and a wrong argument need not wait for

    print(table(measure(start, FeatureRows(paths.root() / split), languages, given, asked.rows)))


if __name__ == "__main__":
    exit_with(main)
