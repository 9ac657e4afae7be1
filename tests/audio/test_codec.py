"""Any encoded bytes become one channel at 16 kHz, or `Undecodable`, and nothing else."""

import io
import struct
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asr import features
from asr.audio import codec
from asr.audio.codec import Undecodable, decode, header_seconds
from asr.whisper import SAMPLE_RATE
from support.broken_audio import fast_start
from support.data import encoded, encoded_by_av, real, voice
from support.repository import REPOSITORY

KINDS = ["WAV", "FLAC", "OGG", "MP3", "mp4", "webm"]
CODECS = {"mp4": "aac", "webm": "libopus"}


def made(kind: str, samples: np.ndarray, rate: int) -> bytes:
    return (
        encoded_by_av(samples, rate, kind, CODECS[kind])
        if kind in CODECS
        else encoded(samples, rate, kind)
    )


WAV_RATE = range(24, 28)  # what a forged rate costs has a test of its own
HEARD = voice(1.0)
FILES = {kind: made(kind, voice(1.0, 48_000), 48_000) for kind in KINDS}


def alike(one: np.ndarray, other: np.ndarray) -> float:
    """Correlation at the best small shift: codecs delay, but do not change what is heard."""
    length = min(len(one), len(other))
    middle = one[2000 : length - 2000]
    shifts = (other[2000 + shift : length - 2000 + shift] for shift in range(-1500, 1501))
    return max(
        float(np.corrcoef(middle, part)[0, 1]) for part in shifts if len(part) == len(middle)
    )


def decoded_or_refused(content: bytes) -> None:
    try:
        samples = decode(content)
    except Undecodable:
        return
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert len(samples) > 0
    assert np.isfinite(samples).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_recording_of_any_kind_is_heard(kind):
    want, heard = voice(1.0, 48_000), decode(FILES[kind])
    assert len(heard) == pytest.approx(SAMPLE_RATE, abs=1600)
    assert heard.dtype == np.float32
    assert alike(decode(encoded(want, 48_000)), heard) > 0.95


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000, 192_000])
def test_any_sample_rate_becomes_sixteen_kilohertz(rate):
    time = np.arange(rate) / rate
    heard = decode(encoded((0.5 * np.sin(2 * np.pi * 440 * time)).astype(np.float32), rate))
    assert len(heard) == SAMPLE_RATE
    want = 0.5 * np.sin(2 * np.pi * 440 * np.arange(SAMPLE_RATE) / SAMPLE_RATE)
    assert np.abs(heard - want)[500:-500].max() < 5e-3


@pytest.mark.parametrize("channels", [2, 6])
def test_channels_are_averaged(channels):
    samples = np.stack([voice(0.5, seed=seed) for seed in range(channels)], axis=1)
    heard = decode(encoded(samples, subtype="FLOAT"))
    assert np.allclose(heard, samples.mean(axis=1), atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "subtype", "error"),
    [
        ("WAV", "PCM_24", 1e-6),
        ("FLAC", "PCM_24", 1e-6),
        ("WAV", "PCM_U8", 1e-2),
        ("WAV", "ULAW", 2e-2),
    ],
)
def test_every_sample_width_is_read_on_one_scale(kind, subtype, error):
    assert np.abs(decode(encoded(HEARD, format=kind, subtype=subtype)) - HEARD).max() < error


@settings(max_examples=25)
@given(st.lists(st.integers(-(2**15), 2**15 - 1), min_size=1, max_size=500))
def test_lossless_files_at_sixteen_kilohertz_come_back_exactly(values):
    samples = np.array(values, np.int16)
    for kind in ("WAV", "FLAC"):
        assert np.array_equal(
            decode(encoded(samples, format=kind)), samples.astype(np.float32) / 2**15
        )


@settings(max_examples=25)
@example(1, 44_100)
@example(5, 192_000)
@given(st.integers(1, 20), st.sampled_from([8_000, 22_050, 44_100, 48_000, 96_000, 192_000]))
def test_a_recording_of_a_few_samples_is_heard_or_refused_but_never_empty(length, rate):
    decoded_or_refused(encoded(np.full(length, 0.5, np.float32), rate))


def test_one_sample_is_a_recording():
    assert np.array_equal(decode(encoded(np.array([0.5]))), [0.5])


def test_silence_is_a_recording():
    assert np.array_equal(decode(encoded(np.zeros(1600))), np.zeros(1600))


def test_real_recordings_are_heard():
    for path in sorted(real("clips").glob("*.flac")):
        content = path.read_bytes()
        assert len(decode(content)) == pytest.approx(header_seconds(content) * SAMPLE_RATE, abs=1)


def test_no_bytes_are_refused():
    with pytest.raises(Undecodable, match=r"^no bytes$") as caught:
        decode(b"")
    assert caught.value.exit_code == 3


def test_a_file_without_samples_is_refused():
    with pytest.raises(Undecodable, match=r"^no samples$"):
        decode(encoded(np.zeros(0)))


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_numbers_are_refused(wrong):
    samples = HEARD.copy()
    samples[777] = wrong
    with pytest.raises(Undecodable, match="samples that are not numbers"):
        decode(encoded(samples, subtype="FLOAT"))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_float_file_far_off_the_scale_never_becomes_features_that_are_not_numbers():
    content = encoded(np.full(16_000, 1e30, np.float32), subtype="FLOAT")
    try:
        samples = decode(content)
    except Undecodable:
        return
    assert np.isfinite(features.log_mel(samples, 80).mel).all()


@pytest.mark.parametrize(
    "content",
    [
        b"hello, this is text renamed to .wav\n" * 50,
        b"<!DOCTYPE html><html>404</html>",
        bytes(5000),
        b"RIFF",
        b"fLaC",
        b"OggS",
        b"ID3",
        b"\xff\xfb\x90",
    ],
    ids=["text", "html", "zeros", "riff", "flac", "ogg", "id3", "mp3"],
)
def test_what_is_no_recording_is_refused(content):
    with pytest.raises(
        Undecodable, match=r"^(not a recording we can read \(\w+\)|no sound track|no samples)$"
    ):
        decode(content)


def test_a_picture_has_no_sound():
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(Undecodable, match="no sound track"):
        decode(file.getvalue())


@pytest.mark.parametrize("kind", ["WAV", "FLAC"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_truncated_lossless_file_is_refused(kind, share):
    content = encoded(voice(3.0), format=kind)
    with pytest.raises(Undecodable, match=r"truncated|not a recording we can read"):
        decode(content[: int(len(content) * share)])


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF])
def test_a_wav_written_to_a_pipe_whose_header_knows_no_length_is_heard_whole(size):
    content = bytearray(encoded(HEARD))
    content[40:44] = struct.pack("<I", size)
    assert len(decode(bytes(content))) == len(HEARD)


def test_a_flac_written_to_a_pipe_whose_header_knows_no_length_is_heard_whole():
    content = bytearray(encoded(HEARD, format="FLAC"))
    content[21] &= 0xF0  # the samples of STREAMINFO: 36 bits
    content[22:26] = bytes(4)
    assert header_seconds(bytes(content)) is None
    assert np.array_equal(decode(bytes(content)), decode(encoded(HEARD, format="FLAC")))


@pytest.mark.parametrize("loud_first", [True, False])
def test_an_mp3_of_varying_rate_that_tells_no_length_is_heard_whole(loud_first):
    """Its first frame, with the length, is cut off, as by programs that cut MP3s or write them to a
    pipe.
    """
    loud, file = (
        (0.3 * np.random.default_rng(0).standard_normal(16_000 * 5)).astype(np.float32),
        io.BytesIO(),
    )
    parts = [loud, np.zeros(16_000 * 5, np.float32)]
    with soundfile.SoundFile(
        file, "w", 16_000, 1, format="MP3", bitrate_mode="VARIABLE", compression_level=0.5
    ) as out:
        out.write(np.concatenate(parts if loud_first else parts[::-1]))
    content = file.getvalue()
    assert b"Xing" in content[:100]
    bare = content[content.index(content[:2], 2) :]
    assert header_seconds(bare) is None
    assert len(decode(bare)) == pytest.approx(len(decode(content)), abs=2400)


@pytest.mark.parametrize("seconds", [3.0, 40.0, 70.0])
def test_a_truncated_mp3_gives_what_is_there_and_nothing_made_up(seconds):
    content = encoded(np.clip(voice(seconds), -0.3, 0.3), format="MP3")
    whole = decode(content)
    junk = [np.full(16_000 * 30, 7.0, np.float32) for _ in range(8)]
    del junk
    heard = decode(content[: len(content) // 2])
    assert len(heard) < 0.7 * len(whole)
    assert np.array_equal(heard[: len(heard) - 2400], whole[: len(heard) - 2400])


def test_a_recording_longer_than_the_limit_is_refused(monkeypatch):
    monkeypatch.setattr(codec, "MAX_SECONDS", 36.0)
    long = np.zeros(16_000 * 40, np.float32)
    for content in (encoded(long), encoded_by_av(long, 16_000, "mp4", "aac")):
        with pytest.raises(Undecodable, match="longer than 0 hours"):
            decode(content)
    assert len(decode(encoded(long[: 16_000 * 36]))) == 16_000 * 36


@pytest.mark.skipif(
    not Path("/proc/self/status").is_file(), reason="peak memory is read from /proc"
)
def test_a_small_file_cannot_claim_much_memory():
    content = bytearray(encoded(voice(1.0)))
    content[24:28] = struct.pack("<I", 2)
    code = """
import sys
from pathlib import Path
from asr.audio import codec
def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
before = peak()
try:
    codec.decode(sys.stdin.buffer.read())
except codec.Undecodable:
    pass
print((peak() - before) >> 10)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=bytes(content),
        cwd=REPOSITORY,
        capture_output=True,
        check=True,
    )
    assert int(done.stdout) < 400


@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile secret.wav\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.wav\n#EXT-X-ENDLIST\n",
    ],
    ids=["concat", "playlist"],
)
def test_a_playlist_never_makes_another_file_heard(monkeypatch, tmp_path, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.wav").write_bytes(encoded(HEARD))
    with pytest.raises(Undecodable):
        decode(text.encode())


@settings(max_examples=60)
@given(
    st.binary(max_size=300),
    st.sampled_from(
        [
            b"",
            b"RIFF\x24\x00\x00\x00WAVEfmt ",
            b"fLaC",
            b"OggS\x00",
            b"ID3\x03",
            b"\x1aE\xdf\xa3",
            b"\x00\x00\x00\x18ftypM4A ",
        ]
    ),
)
def test_random_bytes_are_heard_or_refused(content, start):
    decoded_or_refused(start + content)


@settings(max_examples=120)
@given(
    st.sampled_from(KINDS),
    st.lists(st.tuples(st.integers(0, 199), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_a_recording_with_a_broken_header_is_heard_or_refused(kind, changes):
    content = bytearray(FILES[kind])
    for place, value in changes:
        if kind != "WAV" or place not in WAV_RATE:
            content[place] = value
    decoded_or_refused(bytes(content))


@settings(max_examples=60)
@example("MP3", 0.5)
@given(st.sampled_from(KINDS), st.floats(0, 1))
def test_a_recording_cut_anywhere_is_heard_or_refused(kind, share):
    decoded_or_refused(FILES[kind][: int(len(FILES[kind]) * share)])


@settings(max_examples=40)
@given(
    st.sampled_from(KINDS),
    st.lists(st.tuples(st.integers(0, 199), st.integers(0, 255)), max_size=4),
)
def test_a_header_tells_seconds_or_nothing(kind, changes):
    content = bytearray(FILES[kind])
    for place, value in changes:
        content[place] = value
    seconds = header_seconds(bytes(content))
    assert seconds is None or 0 <= seconds < float("inf")


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
def test_the_header_tells_the_seconds(kind):
    assert header_seconds(FILES[kind]) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(
    "content", [b"", b"text", FILES["mp4"], FILES["webm"]], ids=["nothing", "text", "m4a", "webm"]
)
def test_a_header_that_libsndfile_cannot_read_tells_nothing(content):
    assert header_seconds(content) is None


def test_the_headers_of_real_mp3_tell_their_seconds():
    for path in sorted(real("digits-en", "clips").glob("*.mp3"))[:5]:
        content = path.read_bytes()
        assert header_seconds(content) == pytest.approx(
            len(decode(content)) / SAMPLE_RATE, abs=0.05
        )
        assert soundfile.info(str(path)).samplerate > 0


SHORT = [(kind, rate, 0.31) for kind in KINDS for rate in (8_000, 11_025, 16_000, 44_100, 48_000)]
LONG = [
    (kind, rate, 61.7)
    for kind in KINDS
    for rate in (16_000, 44_100)
    if (kind, rate) != ("OGG", 44_100)
]  # libsndfile cannot write that
PIECES = [
    one for one in SHORT + LONG if one[0] != "webm" or one[1] in (8_000, 16_000, 48_000)
]  # Opus knows few rates


@pytest.mark.parametrize(("kind", "rate", "seconds"), PIECES)
def test_pieces_joined_are_what_decoding_at_once_gives(kind, rate, seconds):
    content = made(kind, voice(seconds, rate), rate)
    pieces = list(codec.blocks(io.BytesIO(content)))
    assert all(0 < len(piece) <= codec.BLOCK_SECONDS * SAMPLE_RATE + 1000 for piece in pieces)
    assert {piece.dtype for piece in pieces} == {np.dtype(np.float32)}
    assert np.array_equal(np.concatenate(pieces), decode(content))


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_pieces_are_what_one_resampling_of_the_whole_gives(rate):
    samples = voice(65.0, rate)
    wanted = samples if rate == SAMPLE_RATE else soxr.resample(samples, rate, SAMPLE_RATE)
    joined = np.concatenate(list(codec.blocks(io.BytesIO(encoded(samples, rate, subtype="FLOAT")))))
    assert np.array_equal(joined, wanted)


def test_channels_are_mixed_over_pieces_too():
    both = np.stack([voice(40.0, seed=1), voice(40.0, seed=2)], axis=1)
    joined = np.concatenate(list(codec.blocks(io.BytesIO(encoded(both, subtype="FLOAT")))))
    assert np.array_equal(joined, both.mean(axis=1))


@pytest.mark.parametrize("kind", ["WAV", "FLAC"])
def test_a_recording_that_breaks_late_gives_its_first_pieces_and_then_the_fault(kind):
    heard = []
    with pytest.raises(Undecodable, match="truncated"):
        heard.extend(codec.blocks(io.BytesIO(made(kind, voice(70.0), SAMPLE_RATE)[:-50_000])))
    assert len(heard) >= 2


@pytest.mark.skipif(
    not Path("/proc/self/status").is_file(), reason="peak memory is read from /proc"
)
@pytest.mark.parametrize("rate", [8_000, 16_000])
def test_pieces_take_the_memory_of_one(tmp_path, rate):
    (tmp_path / "long.wav").write_bytes(encoded(np.tile(voice(60.0, rate), 20), rate))
    code = """
import sys
from pathlib import Path
from asr.audio import codec
def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
with open(sys.argv[1], "rb") as file:
    blocks = codec.blocks(file)
    kept = [next(blocks)]
    before = peak()
    kept += blocks if sys.argv[2] == "keep" else []
    for _ in blocks: pass
print((peak() - before) >> 10)
"""
    grown = {}
    for how in ("keep", "let go"):
        done = subprocess.run(
            [sys.executable, "-c", code, tmp_path / "long.wav", how],
            cwd=REPOSITORY,
            capture_output=True,
            check=True,
        )
        grown[how] = int(done.stdout)
    assert grown["let go"] < 15
    assert grown["keep"] > 60  # 20 minutes are 77 MB


def listed(content: bytes, text: bytes) -> bytes:
    """A wav with a chunk of text before its samples."""
    made = (
        content[:36]
        + b"LIST"
        + struct.pack("<I", len(text))
        + text
        + bytes(len(text) % 2)
        + content[36:]
    )
    return made[:4] + struct.pack("<I", len(made) - 8) + made[8:]


@pytest.mark.parametrize(
    "text", [b"INFOICMT\x12\0\0\0data\xff\xff\xff\x00 in a name", b"odd", b"x" * 5000]
)
def test_a_chunk_before_the_samples_is_not_taken_for_them(text):
    content = encoded(HEARD)
    assert np.array_equal(decode(listed(content, text)), decode(content))
    if len(text) < codec.HEADER_BYTES:
        with pytest.raises(Undecodable, match="truncated"):
            decode(listed(content, text)[:-2000])


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_a_truncated_aiff_is_refused(subtype):
    content = encoded(HEARD, format="AIFF", subtype=subtype)
    assert len(decode(content)) == len(HEARD)
    with pytest.raises(Undecodable, match=r"^truncated: \d+ of 16000 samples$"):
        decode(content[: len(content) // 2])


@pytest.mark.parametrize("subtype", ["IMA_ADPCM", "MS_ADPCM", "GSM610", "ULAW", "PCM_24", "FLOAT"])
def test_a_wav_whose_header_counts_blocks_is_no_contradiction(subtype):
    assert len(decode(encoded(voice(1.0, 8_000), 8_000, subtype=subtype))) == pytest.approx(
        SAMPLE_RATE, abs=1000
    )


def test_a_wav_whose_widths_contradict_each_other_is_refused():
    content = bytearray(encoded(HEARD))
    content[34:36] = struct.pack("<H", 8)
    with pytest.raises(
        Undecodable, match=r"^its header contradicts itself: 32000 samples where 16000 have room$"
    ):
        decode(bytes(content))


@pytest.mark.parametrize("codec", ["aac", "libopus"])
def test_an_mp4_with_less_than_its_table_says_is_refused(codec):
    content = fast_start(encoded_by_av(voice(3.0, 48_000), 48_000, "mp4", codec))
    assert len(decode(content)) == pytest.approx(3 * SAMPLE_RATE, abs=2000)
    with pytest.raises(
        Undecodable,
        match=r"^truncated: \d\.\d\d of 3\.\d\d s$" if codec == "libopus" else "not a recording",
    ):
        decode(content[: len(content) * 2 // 3])


def test_half_a_webm_that_knows_its_length_is_refused_and_one_that_was_piped_is_read():
    content = encoded_by_av(voice(3.0, 48_000), 48_000, "webm", "libopus")
    assert len(decode(content)) == pytest.approx(3 * SAMPLE_RATE, abs=2000)
    with pytest.raises(Undecodable, match=r"^truncated: 1\.\d\d of 3\.\d\d s$"):
        decode(content[: len(content) // 2])
    place = content.index(b"\x44\x89")  # the length's element, made into one that nobody reads
    assert (
        len(
            decode(
                (content[:place] + b"\xec" + content[place + 2 :]).replace(
                    b"\xec\x88", b"\xec\x89", 1
                )[: len(content) // 2]
            )
        )
        > SAMPLE_RATE
    )


def test_many_channels_are_read_in_small_pieces(monkeypatch):
    monkeypatch.setattr(codec, "BLOCK_VALUES", 64_000)
    many = np.stack([voice(0.5, seed=seed) for seed in range(64)], axis=1)
    pieces = list(codec.blocks(io.BytesIO(encoded(many, subtype="FLOAT"))))
    assert [len(piece) for piece in pieces] == [1000] * 8
    assert np.allclose(np.concatenate(pieces), many.mean(axis=1), atol=1e-6)


def test_a_header_that_tells_less_than_nothing_tells_nothing(monkeypatch):
    class Lying:
        duration = -3.0

    monkeypatch.setattr(soundfile, "info", lambda _: Lying)
    assert header_seconds(FILES["WAV"]) is None
