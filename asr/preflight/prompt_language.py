"""Which of Whisper's languages carries a language that it has no token for.

    earshot prompt-language no da is [--model openai/whisper-small] [--rows 64]

The start model decodes validation rows once per candidate. The candidate with the lowest WER is the
one for `model.language`. Rows, start model and task are those of params.yaml, and the features must
be there (dvc repro featurize). Costs one pass of the encoder over the rows, and one of the decoder
per candidate.
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

RESAMPLES = 2000  # of the paired bootstrap


@dataclass(frozen=True)
class Score:
    """One candidate's WER and CER.

    Attributes:
        verdict: how its WER compares with the best one's on the same rows.
    """

    language: str
    wer: float
    cer: float
    verdict: str


def refuse_unknown(languages: Iterable[str]) -> None:
    """Refuse codes that Whisper has no token for.

    Raises:
        ParamsError: with the codes.
    """
    unknown = [code for code in languages if code not in WHISPER_LANGUAGES]
    if unknown:
        raise ParamsError(
            f"{', '.join(unknown)}: not among Whisper's languages; "
            "want codes such as sv, no, fi (asr/whisper.py)"
        )


def start_model(params: schema.Params, name: str | None) -> Start:
    """The trained model that candidates are tried with.

    Args:
        name: a hub id or a folder; None for the one that params name.
    Raises:
        ParamsError: params start from scratch, where no language is known yet.
        ModelError: the model knows one language only, or cannot be loaded.
    """
    from asr.model import loader

    name = name or params.model.name
    if name == loader.SCRATCH:
        raise ParamsError(
            "model.name: scratch knows no language yet; "
            "want a trained start: --model openai/whisper-small, or a folder"
        )
    revision = params.model.revision if name == params.model.name else None
    start = loader.load(name, revision, params.model.window_seconds)
    if not start.model.generation_config.is_multilingual:
        raise ModelError(f"{start.name} knows one language only; want a multilingual start")
    return start


def prompts(start: Start, languages: Iterable[str], task: str) -> dict[str, list[int]]:
    """The prompt of each candidate.

    Raises:
        ModelError: the model has no token for one of them.
    """
    from asr.model import loader, tokenization

    by_language = {}
    for code in languages:
        loader.set_prompt(start.model, code, task)
        by_language[code] = tokenization.prompt(start.model.generation_config)
    return by_language


def chosen_rows(rows: FeatureRows, count: int, seed: int, window_seconds: int) -> list[int]:
    """The rows that training would validate on, if they fit the window; longest first.

    Raises:
        DataError: none fits.
    """
    from asr.training import validation

    durations = rows.column("duration")
    subset = validation.subset(rows.column("id"), count, seed)
    fitting = [row for row in subset if durations[row] <= window_seconds]
    if not fitting:
        raise DataError(
            f"validation: no row is shorter than the window of {window_seconds} s; "
            "raise model.window_seconds"
        )
    if len(fitting) < len(subset):
        num_longer = len(subset) - len(fitting)
        print(
            f"left out: {num_longer} rows longer than the window of {window_seconds} s",
            flush=True,
        )
    return sorted(fitting, key=lambda row: -durations[row])


def hypotheses(
    start: Start,
    rows: FeatureRows,
    chosen: list[int],
    prompts: dict[str, list[int]],
    batch_size: int,
) -> dict[str, list[str]]:
    """The text of each row by each candidate's prompt; a row is encoded once."""
    from asr import stopping, windows
    from asr.features import input_features
    from asr.model import greedy, loader
    from asr.whisper import FRAMES_PER_SECOND

    whisper = start.model.to(loader.device()).eval()
    num_frames = loader.window_seconds(whisper) * FRAMES_PER_SECOND
    durations = rows.column("duration")
    texts: dict[str, list[str]] = {code: [] for code in prompts}
    groups = list(windows.in_groups(chosen, batch_size))
    for group in progress(groups, len(groups), "batches", f"decode for {len(prompts)} languages"):
        features = input_features([rows.log_mel(row) for row in group], num_frames)
        encoded = greedy.encode(whisper, features.to(whisper.device))
        limits = [stopping.max_tokens(durations[row]) for row in group]
        for code, prompt in prompts.items():
            tokens = greedy.decode_encoded(whisper, encoded, prompt, limits)
            texts[code] += start.tokenizer.batch_decode(tokens, skip_special_tokens=True)
    return texts


def scores(
    references: list[str],
    hypotheses: dict[str, list[str]],
    speakers: list[str | None],
    seed: int,
) -> list[Score]:
    """The candidates, best first; of two with the same WER, the one with the lower CER.

    Args:
        hypotheses: by language.
    """
    from asr import wer

    references = [wer.normalize(text) for text in references]
    words = [len(text.split()) for text in references]
    rates: dict[str, dict[str, float]] = {}
    errors: dict[str, list[int]] = {}
    for code, texts in hypotheses.items():
        normalized = [wer.normalize(text) for text in texts]
        pairs = zip(references, normalized, strict=True)
        rates[code] = wer.error_rates(references, normalized)
        errors[code] = [wer.count_words(*pair).errors for pair in pairs]
    ranked = sorted(rates, key=lambda code: (rates[code]["wer"], rates[code]["cer"]))
    best = ranked[0]

    def verdict(code: str) -> str:
        if code == best:
            return "best"
        return wer.paired(errors[code], errors[best], words, speakers, RESAMPLES, seed).verdict

    return [Score(code, rates[code]["wer"], rates[code]["cer"], verdict(code)) for code in ranked]


def measure(
    start: Start, rows: FeatureRows, languages: list[str], params: schema.Params, count: int
) -> list[Score]:
    """The candidates' scores on `count` validation rows, best first."""
    from asr.model import loader

    by_language = prompts(start, languages, params.model.task)
    loader.check_mel_bins(start.model.config.num_mel_bins, rows.num_mel_bins)
    seed = params.train.seed
    chosen = chosen_rows(rows, count, seed, loader.window_seconds(start.model))
    batch_size = params.train.per_device_eval_batch_size
    decoded = hypotheses(start, rows, chosen, by_language, batch_size)
    texts = rows.column("text")
    speakers = rows.column("speaker")
    references = [texts[row] for row in chosen]
    return scores(references, decoded, [speakers[row] for row in chosen], seed)


def table(ranked: list[Score]) -> str:
    """The scores as a table for a terminal, with the command to go on by."""
    lines = [f"{'language':<18}{'WER':>8}{'CER':>8}  against the best"]
    for score in ranked:
        name = f"{score.language:<4}{LANGUAGE_NAMES[score.language]:<14}"
        lines.append(f"{name}{score.wer:8.4f}{score.cer:8.4f}  {score.verdict}")
    best = ranked[0].language
    return "\n".join([*lines, f"train with it: dvc exp run -S model.language={best}"])


def arguments() -> argparse.Namespace:
    """The command line: languages, model, rows."""
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
    options = parser.parse_args()
    if options.rows < 1:
        parser.error(f"--rows: got {options.rows}, want 1 or more")
    return options


def main() -> None:
    options = arguments()
    languages = list(dict.fromkeys(options.languages))
    refuse_unknown(languages)
    params = reader.load()
    split = Path(paths.FEATURES, "validation")
    if not (paths.root() / split / "manifest.json").is_file():
        raise DataError(f"{split}: not there; run dvc repro featurize")
    start = start_model(params, options.model)

    # with its libraries, which help and a wrong argument need not wait for
    from asr.features import FeatureRows

    rows = FeatureRows(paths.root() / split)
    print(table(measure(start, rows, languages, params, options.rows)))


if __name__ == "__main__":
    exit_with(main)
