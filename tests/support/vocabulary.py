"""Whisper's own vocabulary, as the hub's checkpoints have it: vocab.json and merges.txt made from
OpenAI's table of ranks.

`make setup` brings the table out of the package `openai-whisper`, whose dependencies nobody needs
here. A token's rank is its id; BPE joins the pair of neighbours whose union has the lowest rank, so
that a token's own merge is the pair that all lower ranks leave of it.
"""

from __future__ import annotations

import base64
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import regex

from asr.model import tokenization
from asr.storage import hashing
from support.model import HUB_LANGUAGES, Tables, hub_folder

TABLE = Path(sys.prefix) / "share/whisper/multilingual.tiktoken"
SHA256 = (
    "b34b360dbb493e781e479794586d661700670d65564001f23024971d1f2fa126"  # of the release 20250625
)
WORDS = regex.compile(
    r"'(?:[stmd]|re|ve|ll)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
)  # GPT-2's, which BPE does not cross
TINY_SIZES = {  # whisper-tiny's
    "d_model": 384,
    "encoder_layers": 4,
    "encoder_attention_heads": 6,
    "encoder_ffn_dim": 1536,
    "decoder_layers": 4,
    "decoder_attention_heads": 6,
    "decoder_ffn_dim": 1536,
    "max_target_positions": 448,
    "init_std": 0.02,
}
ALONE = '"#()*+/:;<=>@[\\]^_`{|}~「」『』'  # what is written and not said
TOGETHER = "<< >> <<< >>> -- --- -( -[ (' (\" (( )) ((( ))) [[ ]] {{ }} ♪♪ ♪♪♪"
MUSIC = "♩♪♫♬♭♮♯"  # of more than one token each: the first tells enough


@cache
def ranks() -> dict[bytes, int]:
    """The id of each token of text; skips the test where the table is not there."""
    if not TABLE.is_file():
        pytest.skip(
            f"{TABLE.name} is not in this environment's share/whisper; make setup "
            "fetches it, with a network"
        )
    lines = (line.split() for line in TABLE.read_bytes().splitlines())
    assert hashing.sha256(TABLE) == SHA256
    return {base64.b64decode(token): int(rank) for token, rank in lines}


def joined(piece: bytes, below: int) -> list[bytes]:
    """BPE by ranks: neighbours are joined, the lowest union first, as long as its rank is below."""
    parts = [bytes([one]) for one in piece]
    while True:
        unions = [ranks().get(a + b, below) for a, b in pairwise(parts)]
        lowest = min(unions, default=below)
        if lowest >= below:
            return parts
        place = unions.index(lowest)
        parts[place : place + 2] = [parts[place] + parts[place + 1]]


def spell(text: str) -> list[int]:
    """Tokens of a text, found without any library of tokenizers."""
    pieces = (word.encode() for word in WORDS.findall(text))
    return [ranks()[part] for piece in pieces for part in joined(piece, len(ranks()))]


@cache
def letters() -> dict[int, str]:
    """GPT-2's way to write a byte as one visible letter."""
    visible = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = [byte for byte in range(256) if byte not in visible]
    return {byte: chr(byte) for byte in visible} | {
        byte: chr(256 + place) for place, byte in enumerate(others)
    }


def written(token: bytes) -> str:
    return "".join(letters()[byte] for byte in token)


@cache
def whisper_vocabulary() -> Tables:
    """The tables of the multilingual checkpoints: 50,258 text tokens with the end, 1,607 added."""
    vocab = {written(token): rank for token, rank in ranks().items()}
    pairs = [joined(token, rank) for token, rank in ranks().items() if len(token) > 1]
    assert {len(pair) for pair in pairs} == {2}
    names = [
        name.replace("nospeech", "nocaptions")
        for name in tokenization.special_tokens()
        if name != "<|yue|>"
    ]
    added = {name: len(vocab) + 1 + place for place, name in enumerate(names)}
    return (
        {**vocab, tokenization.END: len(vocab)},
        [" ".join(map(written, pair)) for pair in pairs],
        added,
    )


def english_vocabulary() -> Tables:
    """Tables of the sizes of the English checkpoints: one text token less, all others one lower."""
    vocab, merges, added = whisper_vocabulary()
    *texts, (end, last) = vocab.items()
    tables = {**dict(texts[:-1]), end: last - 1}
    return tables, merges[:-1], {name: token - 1 for name, token in added.items()}


def suppressed() -> list[int]:
    """OpenAI's list of tokens that are never said: signs that are no speech, and special tokens
    that a text cannot hold.
    """
    _, _, added = whisper_vocabulary()
    spelled = [
        (sign, spell(space + sign))
        for sign in (*ALONE, *TOGETHER.split(), *MUSIC)
        for space in ("", " ")
    ]
    signs = {ids[0] for sign, ids in spelled if len(ids) == 1 or sign in MUSIC}
    special = (
        "startoftranscript",
        "translate",
        "transcribe",
        "startoflm",
        "startofprev",
        "nocaptions",
    )
    return sorted(
        {spell(" -")[0], spell(" '")[0], *signs, *(added[f"<|{name}|>"] for name in special)}
    )


def whisper_tiny(folder: Path) -> Path:
    """The files and shapes of openai/whisper-tiny as on the hub; only the weights are random."""
    assert len(HUB_LANGUAGES) == 99
    return hub_folder(folder, tables=whisper_vocabulary(), suppressed=suppressed(), **TINY_SIZES)
