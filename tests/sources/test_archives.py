"""Archives that claim more than they hold: sizes, names and numbers that would fill memory or disk,
and ends that are none.
"""

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from asr.errors import DataError
from asr.sources import common_voice

END = bytes(2 * tarfile.BLOCKSIZE)


def header(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A member's header with any size, which tarfile itself would not write."""
    info = tarfile.TarInfo(name)
    info.type = kind
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = (
        (size % (1 << 96)).to_bytes(12, "big") if size < 0 else b"\x80" + size.to_bytes(11, "big")
    )
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def unpacked(folder: Path, content: bytes, packed: bool = True) -> list[str]:
    """The files that come out of an archive."""
    path = folder / "a.tar.gz"
    path.write_bytes(gzip.compress(content, 1) if packed else content)
    common_voice.unpack(path, folder / "out")
    return sorted(
        str(file.relative_to(folder / "out")) for file in folder.glob("out/**/*") if file.is_file()
    )


BAD = {
    "larger than any disk": (header("a", 1 << 60) + END, "unpacks to more than 2 times its size"),
    "sparse": (
        header("a", 1 << 40, tarfile.GNUTYPE_SPARSE) + END,
        "more than 2 times its size|not a whole archive",
    ),
    "less than nothing": (
        header("a", -512) + header("b") + END,
        "not a whole archive .a header of -512 bytes",
    ),
    "long name": (
        header("././@LongLink", 30 << 20, b"L") + bytes(30 << 20) + END,
        "not a whole archive .a header of 31457280 bytes",
    ),
    "long attributes": (
        header("x", 30 << 20, tarfile.XHDTYPE) + bytes(30 << 20) + END,
        "not a whole archive .a header of 31457280 bytes",
    ),
    "endless folders": (
        header("d", kind=tarfile.DIRTYPE) * 4_100 + END,
        "unpacks to more than 2 times its size",
    ),
    "broken header": (
        b"\1" + header("b")[1:] + header("c") + END,
        "not a whole archive .bytes behind its end",
    ),
    "endless end": (END + bytes(30 << 20), "not a whole archive .bytes behind its end"),
    "web page": (b"<!DOCTYPE html><html>not found</html>", "not a whole archive .*fetch it again"),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("packed", [True, False])
def test_an_archive_that_lies_is_refused(tmp_path, monkeypatch, kind, packed):
    content, message = BAD[kind]
    content = content if kind == "web page" else header("good") + content
    monkeypatch.setattr(common_voice, "MAX_GROWTH", 2)  # so that few members are too many
    if kind.startswith("endless") and not packed:
        assert unpacked(tmp_path, content, packed) == ["good"]  # it is as large as it says
        return
    with pytest.raises(DataError, match=message) as caught:
        unpacked(tmp_path, content, packed)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("length", [150, 3000])
def test_long_names_are_no_fault_until_the_disk_says_so(tmp_path, length):
    file = io.BytesIO()
    name = "/".join(["d" * 70] * (length // 71)) + "/clip.mp3"
    with tarfile.open(fileobj=file, mode="w") as tar:
        tar.addfile(tarfile.TarInfo(name))
    assert unpacked(tmp_path, file.getvalue()) == [name]


def test_padding_behind_the_end_is_no_fault(tmp_path):
    assert unpacked(tmp_path, header("a") + END + bytes(20_000)) == ["a"]
