"""True copies that are found, and other sentences that are called copies, before and after the
second look.

    make harness NAME=copies COUNT=60     # clips, each worn down in 21 ways; 2 minutes

A second look cannot know more than sound and texts tell, so each copy is looked at with three pairs
of texts: the same, nothing in common, and one a part of the other, as in a trimmed recording. With
the same text nothing that fingerprints find may be lost. With texts that contradict the sound it
asks for more: in noise of 10 dB another short word could be hidden, and a short part whose text is
a part, too, is also what speech joined from stored syllables has. Of such speech, of jingles and of
one voice no pair may be called a copy; a corpus would be refused for it.

The control wants copies to have the same samples, and calls all candidates of other sentences
copies.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

from asr.audio import codec
from asr.cleaning import same_sound
from asr.cleaning.same_sound import is_copy
from asr.params import reader
from asr.sources import synthetic
from support import copies
from support.altered_audio import ALTERED
from support.copies import FAMILY, WORN, Clip
from support.data import real
from support.repository import REPOSITORY

LANGUAGES = ("en", "de", "ko", "it", "th")
RECORDED_SHARE = 3  # one clip in so many is recorded speech, as long as there is some
SHORTEST = 8000  # samples that can be cut by 0.3 s
TEXTS: dict[str, Callable[[str], str]] = {
    "the same text": lambda text: text,
    "unrelated texts": lambda _: "0123456789",
    "a text that is a part": lambda text: text[: len(text) // 2],
}
# Least share of the copies that fingerprints find.
LEAST = {"the same text": 1.0, "unrelated texts": 0.97, "a text that is a part": 0.8}


def clips(count: int, seed: int) -> Iterator[Clip]:
    """Texts and samples: recorded English, and the embedded corpus in some languages."""
    recorded = sorted(real("clips").glob("*.flac"))[: count // RECORDED_SHARE]
    for path in recorded:
        yield path.stem, codec.decode(path.read_bytes())
    for number in range(count - len(recorded)):
        language = LANGUAGES[number % len(LANGUAGES)]
        yield spoken(language, random.Random(f"{seed} {number}"))


def spoken(language: str, draw: random.Random) -> Clip:
    """One or two numbers by a voice that the params can choose."""
    chosen = reader.load(REPOSITORY / "params.yaml").download.synthetic
    numbers = [draw.randint(0, chosen.max_number) for _ in range(draw.randint(1, 2))]
    text = " ".join(synthetic._spell(number, language) for number in numbers)
    voice = f"{synthetic.ESPEAK_NAMES.get(language, language)}+{draw.choice(synthetic.VARIANTS)}"
    rate = draw.randint(chosen.min_words_per_minute, chosen.max_words_per_minute)
    pitch = draw.randint(chosen.min_pitch, chosen.max_pitch)
    return text, copies.heard(text, voice, rate, pitch)


def found(count: int, seed: int) -> Counter[str]:
    """How many copies there are, fingerprints find, and the second look confirms with each text."""
    counts: Counter[str] = Counter()
    for text, samples in clips(count, seed):
        if len(samples) < SHORTEST:
            continue
        for alter in (ALTERED | WORN).values():
            counts["copies"] += 1
            for one, copy in copies.found([(text, samples), (text, alter(samples))]):
                counts["found by their fingerprints"] += 1
                for name, other_text in TEXTS.items():
                    other = replace(copy, text=other_text(text))
                    counts[name] += is_copy(one, other)
    return counts


def others(broken: bool) -> tuple[int, int]:
    """How many pairs of other sentences agree in their fingerprints, and are called copies."""
    pairs = [pair for make in FAMILY.values() for pair in copies.found(make())]
    return len(pairs), sum(broken or is_copy(*pair) for pair in pairs)


def shake(count: int, seed: int, broken: bool) -> bool:
    """Whether no copy is lost that must not be, and no other sentence is called one."""
    if broken:
        same_sound.ALIKE = 0.9999
    counts = found(count, seed)
    candidates, called = others(broken)
    for name, number in counts.items():
        print(f"{name:30}{number:7,}")
    print(f"other sentences: {candidates} agree in their fingerprints, {called} called copies")
    there = counts["found by their fingerprints"]
    lost = [name for name, least in LEAST.items() if counts[name] < least * there]
    print(f"lost with {', '.join(lost)}" if lost else "no copy is lost that must not be")
    return not lost and not called
