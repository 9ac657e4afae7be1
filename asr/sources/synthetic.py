"""The embedded corpus: sentences of spoken numbers, in any language that both libraries know.

num2words spells them and espeak-ng speaks them, offline. Texts are a pure function of the params;
no voice, and no sentence, is shared by two splits. espeak-ng carries state from one utterance to
the next, so the library is loaded anew for each: 5 ms an utterance, the same bytes in any order or
process. Licences: espeak-ng is GPL-3.0-or-later, num2words LGPL-2.1; neither covers what they speak
and spell.
"""

from __future__ import annotations

import _ctypes
import ctypes
import io
import random
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import Any

from asr.errors import DataError, ParamsError
from asr.sources.utterances import Corpus, Utterance, UtteranceIterable
from asr.storage.scratch import DiskSet
from asr.storage.shards import SPLITS

# The voice variants that sound like a person: without whispers, robots, klatt's, and those with a
# broken pace.
VARIANTS = tuple(
    """
    m1 m2 m3 m4 m5 m6 m7 m8 f1 f2 f3 f4 f5 Alex Alicia Andrea Andy Annie Denis Diogo Gene Henrique
    Hugo Jacky Mario Michael Mike Nguyen Storm Tweaky anika antonio aunty belinda boris croak ed
    fast grandma grandpa gustave ian iven3 iven4 john kaukovalta linda marcelo max michel miguel
    norbert pablo paul pedro quincy rob robert sandro shelby steph2 travis victor
    """.split()
)
# Variants that differ by a formant or the tone alone: of one speed and pitch, their waveforms
# correlate by 0.95 to 0.99.
TWINS = (
    ("Diogo", "michel"),
    ("Henrique", "Hugo"),
    ("Tweaky", "john"),
    ("fast", "max"),
    ("iven3", "iven4"),
)
ESPEAK_NAMES = {"no": "nb", "zh": "cmn"}  # by Whisper's code, where espeak-ng has another
SPELLINGS = {"ja": {"reading": True}}  # options of num2words; espeak-ng reads kana, but no kanji
MAX_TRIES = 1000  # to draw a sentence that is new
LICENSE = (
    "made here by espeak-ng (GPL-3.0-or-later) and num2words (LGPL-2.1); "
    "their output is free to use"
)

# Numbers of espeak-ng/speak_lib.h.
AUDIO_OUTPUT_SYNCHRONOUS = 2
PARAMETER_RATE = 1
PARAMETER_PITCH = 3
CHARS_UTF8 = 1


def read(
    language: str,
    seed: int,
    rows: dict[str, int],
    voices: dict[str, int],
    max_number: int,
    numbers: tuple[int, int],
    words_per_minute: tuple[int, int],
    pitch: tuple[int, int],
) -> Corpus:
    """Choose texts and voices; audio is made when an utterance's turn comes.

    Args:
        language: Whisper's code.
        seed: of sentences and voices.
        rows, voices: how many per split.
        max_number: numbers run from 0 to this.
        numbers: least and most per sentence.
        words_per_minute: least and most.
        pitch: least and most, in espeak's scale from 0 to 99.
    Raises:
        ParamsError: a language that num2words or espeak-ng does not know, or more voices or
            sentences than there are.
    """
    voices_of = _deal_voices(voices, seed)
    _spell(0, language)  # refuses an unknown language at once

    def utterances() -> Iterator[Utterance]:
        for split, index, text in _sentences(language, seed, rows, max_number, numbers):
            yield _utterance(
                split, index, text, language, voices_of[split], seed, words_per_minute, pitch
            )

    return Corpus(
        about={
            "name": f"spoken numbers in {language}",
            "licence": LICENSE,
        },
        utterances=UtteranceIterable(utterances),
    )


def _deal_voices(voices: dict[str, int], seed: int) -> dict[str, list[str]]:
    """Give each split its own voices, and twins to one split: else the deck is dealt again."""
    count = sum(voices.values())
    if count > len(VARIANTS):
        raise ParamsError(
            f"download.synthetic.voices: got {count} in all, want at most {len(VARIANTS)}"
        )
    draw = random.Random(f"{seed}:voices")
    while True:
        deck = draw.sample(VARIANTS, len(VARIANTS))
        dealt = {split: [deck.pop() for _ in range(voices[split])] for split in SPLITS}
        if not _are_parted(dealt):
            return dealt


def _are_parted(dealt: dict[str, list[str]]) -> bool:
    """Whether twins are in two splits."""
    split_of = {voice: split for split, voices in dealt.items() for voice in voices}
    pairs = [{split_of.get(one), split_of.get(other)} for one, other in TWINS]
    return any(len(splits - {None}) == 2 for splits in pairs)


def _sentences(
    language: str, seed: int, rows: dict[str, int], max_number: int, numbers: tuple[int, int]
) -> Iterator[tuple[str, int, str]]:
    """Yield split, index in the split, and text; no text comes twice, in whatever split."""
    with closing(DiskSet()) as taken:
        for split in SPLITS:
            draw = random.Random(f"{seed}:{split}:sentences")
            for index in range(rows[split]):
                yield split, index, _new_sentence(draw, language, max_number, numbers, taken)


def _new_sentence(
    draw: random.Random, language: str, max_number: int, numbers: tuple[int, int], taken: DiskSet
) -> str:
    for _ in range(MAX_TRIES):
        count = draw.randint(*numbers)
        words = [_spell(_number(draw, max_number), language) for _ in range(count)]
        text = " ".join(words)
        if taken.add("sentence", text.encode()):
            return text
    raise ParamsError(
        "download.synthetic: more rows than different sentences; raise max_number or max_numbers"
    )


def _number(draw: random.Random, max_number: int) -> int:
    """Draw a number.

    Each count of digits comes twice as often as the longest, so that short words are heard alone as
    well as inside long ones.
    """
    longest = len(str(max_number))
    digits = draw.choice([*range(1, longest + 1), *range(1, longest)])
    return draw.randint(0, min(10**digits - 1, max_number))


def _spell(number: int, language: str) -> str:
    from num2words import num2words  # takes 0.1 s, and only this source needs it

    try:
        return str(num2words(number, lang=language, **SPELLINGS.get(language, {}))).replace(
            "-", " "
        )
    except NotImplementedError:
        raise ParamsError(
            f"download.language: num2words cannot spell {language}; want another source or language"
        ) from None


def _utterance(
    split: str,
    index: int,
    text: str,
    language: str,
    variants: list[str],
    seed: int,
    words_per_minute: tuple[int, int],
    pitch: tuple[int, int],
) -> Utterance:
    draw = random.Random(f"{seed}:{split}:{index}:voice")
    variant = draw.choice(variants)
    rate = draw.randint(*words_per_minute)
    tone = draw.randint(*pitch)
    voice = f"{ESPEAK_NAMES.get(language, language)}+{variant}"
    return Utterance(
        id=f"{split}-{index:05d}",
        split=split,
        text=text,
        audio=partial(speak, text, voice, rate, tone),
        speaker=voice,
        attributes={"words_per_minute": rate, "pitch": tone},
    )


def speak(text: str, voice: str, words_per_minute: int, pitch: int) -> bytes:
    """Say a text.

    Returns:
        FLAC bytes: mono, 16 bit, 22,050 Hz.
    Raises:
        ParamsError: espeak-ng has no such voice.
        DataError: it made no sound of the text.
    """
    import espeakng_loader
    import numpy as np
    import soundfile

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    try:
        rate, pcm = _synthesize(
            library, espeakng_loader.get_data_path(), text, voice, words_per_minute, pitch
        )
    finally:
        _ctypes.dlclose(library._handle)
    if not pcm:
        raise DataError(f"espeak-ng said nothing for {text!r} in voice {voice}")
    file = io.BytesIO()
    soundfile.write(file, np.frombuffer(pcm, "<i2"), rate, format="FLAC")
    return file.getvalue()


def _synthesize(
    library: ctypes.CDLL, data: str, text: str, voice: str, words_per_minute: int, pitch: int
) -> tuple[int, bytes]:
    """Synthesize one utterance with a library that was just loaded.

    Returns:
        samples a second, and the samples as little-endian 16 bit.
    """
    pcm = bytearray()

    def collect(samples: Any, count: int, _: Any) -> int:
        if samples and count:
            pcm.extend(ctypes.string_at(samples, 2 * count))
        return 0  # go on

    callback = ctypes.CFUNCTYPE(
        ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
    )(collect)
    rate = library.espeak_Initialize(AUDIO_OUTPUT_SYNCHRONOUS, 0, data.encode(), 0)
    try:
        library.espeak_SetSynthCallback(callback)
        library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        ctypes.CDLL(None).srand(1)  # a few voices draw their breath from the C library's own rand
        if library.espeak_SetVoiceByName(voice.encode()):
            raise ParamsError(
                f"download.language: espeak-ng has no voice {voice}; "
                "want another source or language"
            )
        library.espeak_SetParameter(PARAMETER_RATE, words_per_minute, 0)
        library.espeak_SetParameter(PARAMETER_PITCH, pitch, 0)
        encoded = text.encode()
        size = ctypes.c_size_t(len(encoded) + 1)
        library.espeak_Synth(encoded, size, 0, 0, 0, CHARS_UTF8, None, None)
    finally:
        library.espeak_Terminate()
    return rate, bytes(pcm)
