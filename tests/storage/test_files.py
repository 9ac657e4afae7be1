"""Files appear whole or not at all, and hashes name what is in them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr import paths
from asr.storage import files, hashing
from support.repository import REPOSITORY

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def test_a_new_folder_stands_in_its_place_when_the_block_ends(tmp_path):
    with files.new_folder(tmp_path / "deep" / "out") as draft:
        (draft / "a").write_text("1")
        assert not (tmp_path / "deep" / "out").exists()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]
    assert (tmp_path / "deep" / "out" / "a").read_text() == "1"


def fail_half_way(path: Path) -> None:
    with files.new_folder(path) as draft:
        (draft / "sub").mkdir()
        (draft / "sub" / "new").write_text("new")
        raise RuntimeError("half way")


def test_a_new_folder_leaves_nothing_when_the_block_fails(tmp_path):
    with pytest.raises(RuntimeError, match="half way"):
        fail_half_way(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_new_folder_leaves_the_old_one_as_it_was(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("old")
    with pytest.raises(RuntimeError, match="half way"):
        fail_half_way(tmp_path / "out")
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["out", "out/old"]


def test_a_new_folder_replaces_the_old_one_whole(tmp_path):
    (tmp_path / "out" / "old").mkdir(parents=True)
    with files.new_folder(tmp_path / "out") as draft:
        (draft / "new").write_text("new")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["new"]


def test_what_a_killed_process_left_goes_with_the_next_try(tmp_path):
    code = """
import os, sys
from pathlib import Path
from asr.storage import files
with files.new_folder(Path(sys.argv[1])):
    os.kill(os.getpid(), 9)
"""
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path / "out")], cwd=REPOSITORY)
    assert killed.returncode == -9
    assert [path.suffix for path in tmp_path.iterdir()] == [".part"]
    with files.new_folder(tmp_path / "out"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_a_new_folder_has_the_rights_that_the_umask_gives(tmp_path, mask):
    before = os.umask(mask)
    try:
        with files.new_folder(tmp_path / "out"):
            pass
        assert files.umask() == mask
    finally:
        os.umask(before)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o777 & ~mask


@settings(max_examples=20)
@given(st.binary(max_size=200), st.binary(max_size=200))
def test_bytes_written_over_others_are_read_back(tmp_path_factory, old, new):
    path = tmp_path_factory.mktemp("bytes") / "deep" / "file"
    for content in (old, new):
        files.write_bytes(path, content)
        assert path.read_bytes() == content
    assert [one.name for one in path.parent.iterdir()] == ["file"]


def test_a_reader_with_the_file_open_keeps_the_old_bytes(tmp_path):
    path = tmp_path / "file"
    files.write_bytes(path, b"old")
    with path.open("rb") as reader:
        files.write_bytes(path, b"new")
        assert reader.read() == b"old"


def test_a_write_that_fails_leaves_the_old_file_and_no_draft(tmp_path):
    path = tmp_path / "file"
    path.mkdir()
    (path / "old").write_text("old")
    with pytest.raises(IsADirectoryError):
        files.write_bytes(path, b"new")
    assert [one.name for one in tmp_path.iterdir()] == ["file"]
    assert (path / "old").read_text() == "old"


@settings(max_examples=30)
@given(JSON)
def test_json_comes_back_as_it_went(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("json") / "value.json"
    files.write_json(path, value)
    assert files.read_json(path) == value
    assert path.read_bytes().endswith(b"\n")


def test_json_refuses_what_json_does_not_have(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "value.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=30)
@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_equal_values_have_equal_hashes_whatever_the_order_of_keys(value):
    assert hashing.hash_of(value) == hashing.hash_of(dict(reversed(value.items())))


def test_other_values_have_other_hashes():
    values = [None, 0, False, "0", [], {}, [0], {"a": 0}, {"a": 1}, {"b": 0}]
    assert len({hashing.hash_of(value) for value in values}) == len(values)


def test_sha256_is_the_known_one(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert (
        hashing.sha256(tmp_path / "file")
        == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


def test_a_link_shares_the_bytes(tmp_path):
    (tmp_path / "source").write_text("x")
    files.link(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "source").samefile(tmp_path / "target")


def test_a_link_into_another_file_system_copies(tmp_path):
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system here")
    (tmp_path / "source").write_text("x")
    target = other / f"link-{os.getpid()}"
    try:
        files.link(tmp_path / "source", target)
        assert target.read_text() == "x"
    finally:
        target.unlink(missing_ok=True)


def test_paths_of_params_are_meant_from_the_root_that_dvc_names(monkeypatch, tmp_path):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "repository"))
    monkeypatch.chdir(tmp_path)
    assert paths.resolve("corpora/mine") == tmp_path / "repository" / "corpora" / "mine"
    assert paths.resolve("../beside") == tmp_path / "beside"
    assert paths.resolve(str(tmp_path / "absolute")) == tmp_path / "absolute"
    assert paths.cache("shards") == tmp_path / "repository" / ".cache" / "shards"


def test_paths_of_params_expand_the_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert paths.resolve("~/corpus") == tmp_path / "corpus"


@pytest.mark.parametrize("given", [None, ""])
def test_without_dvc_the_root_is_the_working_folder(monkeypatch, tmp_path, given):
    monkeypatch.delenv("DVC_ROOT", raising=False)
    if given is not None:
        monkeypatch.setenv("DVC_ROOT", given)
    monkeypatch.chdir(tmp_path)
    assert paths.root() == tmp_path
