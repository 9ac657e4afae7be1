"""The embedded corpus in every language that it is promised for: each number has a sound of its
own, and no clip is taken for another's copy.

    make harness NAME=languages COUNT=4000    # training utterances of each; 25 minutes

Numbers are spoken alone, in one voice, and the corpus is drawn with the params as they come. Its
fingerprints are compared as chunk does it. The control reads Japanese as num2words writes it, which
espeak-ng cannot read, and does without the second look.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from asr.audio import codec
from asr.cleaning.audio_fingerprint import fingerprint
from asr.cleaning.near_duplicates import NearDuplicate, NearDuplicateIndex
from asr.cleaning.same_sound import is_copy
from asr.errors import ParamsError
from asr.params import reader
from asr.sources import synthetic
from asr.sources.utterances import Utterance
from asr.storage.corpus import Recording
from asr.whisper import WHISPER_LANGUAGES
from support.repository import REPOSITORY

VOICE, WORDS_PER_MINUTE, PITCH = "m3", 170, 50
ALL = 4000  # utterances, as params say


def promised() -> list[str]:
    """Whisper's languages that num2words spells and espeak-ng speaks."""
    return [language for language in WHISPER_LANGUAGES if _is_spoken(language)]


def _is_spoken(language: str) -> bool:
    try:
        spoken(0, language)
    except ParamsError:
        return False
    return True


def spoken(number: int, language: str) -> bytes:
    """A number alone, as an encoded recording."""
    text = synthetic._spell(number, language)
    voice = f"{synthetic.ESPEAK_NAMES.get(language, language)}+{VOICE}"
    return synthetic.speak(text, voice, WORDS_PER_MINUTE, PITCH)


def numbers_of_one_sound(language: str, numbers: range) -> list[list[int]]:
    """The numbers that cannot be told apart by their sound."""
    by_sound: dict[bytes, list[int]] = defaultdict(list)
    for number in numbers:
        by_sound[spoken(number, language)].append(number)
    return [same for same in by_sound.values() if len(same) > 1]


def utterances(language: str, count: int, seed: int) -> Iterator[Utterance]:
    """The embedded corpus with the params as they come, but for the number of its rows."""
    params = reader.load(REPOSITORY / "params.yaml").download.synthetic
    rows = {split: -(-rows * count // ALL) for split, rows in params.rows.model_dump().items()}
    corpus = synthetic.read(
        language,
        seed,
        rows,
        params.voices.model_dump(),
        params.max_number,
        (params.min_numbers, params.max_numbers),
        (params.min_words_per_minute, params.max_words_per_minute),
        (params.min_pitch, params.max_pitch),
    )
    return iter(corpus.utterances)


def alike(language: str, count: int, seed: int) -> list[tuple[Recording, Recording]]:
    """The pairs in two splits whose fingerprints agree."""
    clips: dict[str, Utterance] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(NearDuplicateIndex(Path(folder) / "index")) as index,
    ):
        for one in utterances(language, count, seed):
            clips[one.id] = one
            index.add(str(one.split), one.id, fingerprint(codec.decode(one.audio())))
        return [_recordings(clips, pair) for pair in index.found()]


def _recordings(clips: dict[str, Utterance], pair: NearDuplicate) -> tuple[Recording, Recording]:
    one, other = (_recording(clips[id]) for id in (pair.id, pair.other_id))
    return one, other


def _recording(one: Utterance) -> Recording:
    sound = one.audio()
    return Recording(one.id, sound, len(sound), one.text, one.speaker, None)


def harm_in(language: str, count: int, seed: int, broken: bool) -> list[str]:
    """What is wrong with a language, in words."""
    numbers = range(min(1000, count))
    harm = [f"{same} sound the same" for same in numbers_of_one_sound(language, numbers)]
    harm += [
        f"{one.id} ({one.text}) is called a copy of {other.id} ({other.text})"
        for one, other in alike(language, count, seed)
        if broken or is_copy(one, other)
    ]
    return harm


def shake(count: int, seed: int, broken: bool) -> bool:
    """Whether no language is harmed."""
    if broken:
        synthetic.SPELLINGS.clear()
    harmed = 0
    languages = promised()
    for language in languages:
        harm = harm_in(language, count, seed, broken)
        harmed += bool(harm)
        print(f"{language:5}{'; '.join(harm[:3]) or 'well'}", flush=True)
    print(f"{len(languages)} languages, {count:,} training utterances of each, {harmed} harmed")
    return not harmed
