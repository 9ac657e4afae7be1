"""Every planted defect is found and named, and no row that is only odd is left out; what is hard
stays in the test.
"""

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import num2words
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asr.cleaning import measurements, reasons
from asr.cleaning.measurements import Measurement, cpu_limit_seconds, crashed, measure_audio
from asr.cleaning.reasons import reason
from asr.cleaning.sandbox import guarded
from asr.runtime.limits import allow
from asr.storage import shards
from stages import chunk
from support import broken_audio
from support.data import encoded, real, voice

SEED = 5
GOOD = Measurement(1.0, b"digest", loud=0.8, fullness=0.7)
LIMITS = (0.3, 30.0)
TRAINING_ONLY = {
    code for kind in broken_audio.KINDS.values() if not kind.everywhere for code in kind.codes
}


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The planted corpus after the stage, some of its rows twice: what must become of each, what
    was left out, and what was kept.
    """
    root = tmp_path_factory.mktemp("planted")
    splits, wanted = broken_audio.corpus(SEED)
    doubled = broken_audio.twice(splits)
    raw = broken_audio.write_rows(root / "raw", "part", splits)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", str(root))
        allowed = ["clip", "speaker"]
        chunk.run(raw, root / "chunks", root / "reports", 500, broken_audio.LIMITS, allowed)
    left_out = pq.read_table(root / "reports" / "rejects.parquet").to_pylist()
    kept = [row["id"] for split in splits for row in shards.rows(root / "chunks" / split, ["id"])]
    num_rows = sum(map(len, splits.values()))
    return SimpleNamespace(
        wanted=wanted, doubled=doubled, left_out=left_out, kept=kept, num_rows=num_rows
    )


@pytest.fixture
def found(staged: SimpleNamespace) -> tuple[dict[str, str], dict[str, set[str]]]:
    """The code that each planted row got, '' where it was kept; and those it must get."""
    codes = {row["id"]: row["code"] for row in staged.left_out}
    return {id: codes.get(id, "") for id in staged.wanted}, staged.wanted


def wrong(codes: dict[str, str], wanted: dict[str, set[str]]) -> list[str]:
    """Rows that got no code though they should, or another, or one though they should not."""
    return [
        f"{id}: {codes[id] or 'kept'}, want {wanted[id] or 'kept'}"
        for id in wanted
        if codes[id] not in (wanted[id] or {""})
    ]


def table(codes: dict[str, str], wanted: dict[str, set[str]]) -> str:
    """Per kind how many rows are right, and what they got."""
    kinds: dict[str, Counter[str]] = {}
    for id in sorted(wanted):
        kinds.setdefault(id[:-3], Counter())[codes[id] or "kept"] += 1
    right = Counter(id[:-3] for id in wanted if codes[id] in (wanted[id] or {""}))
    return "\n".join(
        f"{name:40} {right[name]:3} of {sum(got.values())} right: {dict(got)}"
        for name, got in kinds.items()
    )


def test_there_are_as_many_kinds_as_promised():
    assert len(broken_audio.KINDS) >= 60
    assert len(broken_audio.CLEAN) >= 25
    assert broken_audio.ROWS >= 20


def test_every_planted_defect_is_named_and_every_odd_row_is_kept(found):
    codes, wanted = found
    print(table(*found))
    assert len(wanted) == (len(broken_audio.KINDS) + len(broken_audio.CLEAN)) * broken_audio.ROWS
    assert wrong(codes, wanted) == []


def test_no_two_rows_of_the_planted_corpus_are_one():
    splits, _ = broken_audio.corpus(SEED, 4)
    rows = [
        (row["audio"], row["text"]) for given in splits.values() for row in given if row["audio"]
    ]
    assert len(set(rows)) == len(rows)


@pytest.mark.parametrize("missed", ["silence", "text: only tags", "cut aiff"])
def test_the_comparison_sees_a_missed_defect_and_a_lost_row(found, missed):
    codes, wanted = found
    assert len(wrong({**codes, f"{missed} 00": ""}, wanted)) == 1
    assert len(wrong({**codes, "whisper 00": "audio_silent"}, wanted)) == 1


def test_the_stage_leaves_out_what_is_planted_and_nothing_else(staged):
    codes = {row["id"]: row["code"] for row in staged.left_out}
    wanted = staged.wanted | staged.doubled
    assert wrong({id: codes.get(id, "") for id in wanted}, wanted) == []
    good = [id for id in staged.wanted if not staged.wanted[id]]
    assert sorted(staged.kept) == sorted([*good, *staged.doubled])
    assert len(staged.kept) + len(staged.left_out) == staged.num_rows


@settings(max_examples=200)
@given(
    st.text(max_size=60),
    st.sampled_from(["validation", "test", "holdout"]),
    st.floats(0.001, 3000),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_what_can_be_heard_and_read_is_never_left_out_of_the_test(
    text, split, duration, loud, fullness
):
    why = reason(text, Measurement(duration, b"", loud=loud, fullness=fullness), split, LIMITS)
    assert why is None or why[0] in ("text_not_utf8", "text_empty")
    assert (
        not why
        or not any(map(str.isalnum, text.replace("\u3164", "").replace("\uffa0", "")))
        or "\ufffd" in text
        or "\u115f" in text
    )


@settings(max_examples=200)
@example("a\0b", 1.0)
@given(st.text(max_size=100), st.floats(0.3, 30))
def test_a_reason_is_a_code_and_a_detail_that_can_be_printed(text, duration):
    why = reason(text, Measurement(duration, loud=duration), "train", LIMITS)
    assert why is None or why[0] in TRAINING_ONLY | {"text_not_utf8", "text_empty"}
    assert why is None or all(one.isprintable() for one in why[1])


@pytest.mark.parametrize("split", shards.ALL_SPLITS)
@pytest.mark.parametrize("code", ["audio_missing", "audio_undecodable", "audio_truncated"])
def test_what_cannot_be_heard_is_left_out_of_every_split(split, code):
    assert reason("text", Measurement(code=code, detail="why"), split, LIMITS) == (code, "why")


@pytest.mark.parametrize(
    ("sound", "code", "detail"),
    [
        (Measurement(0.2), "too_short", "0.20 s, want at least 0.3 s"),
        (Measurement(31.0), "too_long", "31.00 s, want at most 30.0 s"),
        (Measurement(2.0, loud=0.06), "audio_silent", "0.06 s of 2.00 s are louder than -80 dB"),
        (
            Measurement(2.0, loud=2.0, fullness=0.98),
            "audio_clipped",
            "its mean is 0.98 of its RMS, as in a square wave",
        ),
    ],
)
def test_details_say_what_was_measured(sound, code, detail):
    assert reason("text", sound, "train", LIMITS) == (code, detail)


@pytest.mark.parametrize(
    ("text", "seconds", "detail"),
    [
        ("en", 0.2996, "0.2996 s, want at least 0.3 s"),
        ("en", 0.3 - 1 / 16_000, "0.2999 s, want at least 0.3 s"),
        ("en", 30.0 + 1 / 16_000, "30.0001 s, want at most 30.0 s"),
        ("en", 0.29, "0.29 s, want at least 0.3 s"),
        ("a" * 453, 10.0, f"45.3 letters a second, want at most 45: {'a' * 80}"),
    ],
)
def test_a_number_that_misses_a_limit_is_told_with_digits_that_differ_from_it(
    text, seconds, detail
):
    found = reason(text, Measurement(seconds, loud=seconds), "train", LIMITS)
    assert found is not None
    assert found[1] == detail


@pytest.mark.parametrize(
    ("text", "seconds", "kept"),
    [
        ("a" * 45, 1.0, True),
        ("a" * 60, 1.0, False),
        ("天" * 8, 1.0, True),
        ("天" * 18, 1.0, True),
        ("天" * 25, 1.0, False),
        ("한" * 12, 1.0, True),
        ("สวัสดีครับผม" * 2, 1.0, True),
        ("Donaudampfschiff", 0.4, True),
    ],
)
def test_nobody_speaks_faster_than_that(text, seconds, kept):
    why = reason(text, Measurement(seconds, loud=seconds), "train", LIMITS)
    assert (why is None) == kept, why


@pytest.mark.parametrize("language", sorted(num2words.CONVERTER_CLASSES))
def test_numbers_spelled_in_any_language_are_text(language):
    said = [num2words.num2words(number, lang=language) for number in (0, 7, 19, 42, 365)]
    for text in (
        said[0],
        " ".join(said),
        " ".join(said).upper(),
        f"\u00ab{said[1]}\u00bb",
        f"\u201e{said[2]}\u201c\u00a0\u2026",
    ):
        assert reason(text, Measurement(20.0, loud=20.0), "train", LIMITS) is None, text


def test_text_of_a_terminal_is_shown_harmless():
    assert reason("\x1b[31mred", GOOD, "train", LIMITS) == ("text_control", r"\x1b[31mred")


def test_a_recording_tells_its_length_its_level_and_its_digest():
    sound = measure_audio(encoded(voice(2.0)), 2.0)
    assert (sound.duration, sound.loud, sound.code) == (2.0, 2.0, "")
    assert 0.5 < sound.fullness < 0.9
    assert len(sound.digest) == 12
    assert measure_audio(encoded(voice(2.0, seed=1)), None).digest != sound.digest


def test_level_does_not_matter_but_shape_does():
    quiet, loud = (
        measure_audio(encoded(voice(1.0) * gain, subtype="FLOAT"), None) for gain in (0.01, 2.0)
    )
    assert quiet.fullness == pytest.approx(loud.fullness, abs=1e-3)
    assert measure_audio(encoded(np.sign(voice(1.0)) * 0.1), None).fullness > reasons.FULLEST


def test_real_recordings_are_kept():
    clips = [
        *sorted(real("clips").glob("*.flac")),
        *sorted(real("digits-en", "clips").glob("*.mp3"))[:40],
    ]
    sounds = [measure_audio(path.read_bytes(), None) for path in clips]
    assert [
        reason("some words", sound, "train", LIMITS) for sound in sounds if sound.duration > 0.5
    ] == [None] * len(clips)


def long_ones(content: bytes, start: int) -> Iterator[Measurement]:
    if start == 0:
        allow(cpu_limit_seconds(content))
        yield measure_audio(content, None)


def test_a_recording_of_two_hours_is_heard_within_the_limits(monkeypatch):
    monkeypatch.setenv("WORKERS", "1")
    content = encoded(np.tile(voice(60.0, 8_000), 120), 8_000, subtype="ULAW")
    (sound,) = guarded(long_ones, [(1, (content,))], 1, crashed)
    assert sound.code == ""
    assert sound.duration == 7_200


@pytest.mark.parametrize(("size", "seconds"), [(0, 5.0), (50_000, 5.0), (14_000_000, 70.0)])
def test_patience_grows_with_the_file_and_never_for_a_small_one(size, seconds):
    assert cpu_limit_seconds(bytes(size)) == pytest.approx(seconds)
    assert cpu_limit_seconds(None) == 5.0


def test_who_kills_its_process_cannot_be_decoded():
    assert crashed("it wants more than 448 MB") == Measurement(
        code="audio_undecodable",
        detail="decoding stopped: it wants more than 448 MB",
        loud=math.inf,
    )


@pytest.mark.parametrize("seconds", [0.01, 0.03, 29.99, 30.01, 65.0])
def test_measuring_in_pieces_counts_every_sample(seconds):
    samples = voice(seconds)
    found = measurements.measure_audio(encoded(samples), None)
    assert found.duration == pytest.approx(seconds, abs=1e-6)
    assert found.loud <= found.duration


def test_the_planted_corpus_is_written_as_download_leaves_it(tmp_path):
    wanted = broken_audio.write(tmp_path / "raw", 3, 6)
    rows = {
        split: list(shards.rows(Path(tmp_path / "raw" / split)))
        for split in shards.splits(tmp_path / "raw")
    }
    assert {row["id"] for given in rows.values() for row in given} == set(wanted)
