"""Numbers and addresses as people read them."""

from __future__ import annotations

import pytest

from asr.markdown import cell
from asr.runtime import formatting


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (119, "119 s"),
        (121, "2 min"),
        (7100, "118 min"),
        (7300, "2 h"),
        (360_000, "100 h"),
    ],
)
def test_a_rough_duration_has_the_unit_that_matters(seconds: float, text: str) -> None:
    assert formatting.rough_duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (59.4, "59 s"),
        (61, "1 min 01 s"),
        (3600, "1 h 00 min"),
        (7325, "2 h 02 min"),
    ],
)
def test_a_duration_has_the_two_units_that_matter(seconds: float | None, text: str) -> None:
    assert formatting.duration_text(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00.0"), (59.96, "1:00.0"), (61.25, "1:01.2"), (3723.4, "1:02:03.4")],
)
def test_a_clock_shows_a_moment_as_players_do(seconds: float, text: str) -> None:
    assert formatting.clock(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0.0 MB"),
        (940_000_000, "940.0 MB"),
        (1_000_000_000, "1.0 GB"),
        (23_400_000_000, "23.4 GB"),
        (5e18, "5,000,000,000.0 GB"),
    ],
)
def test_bytes_are_said_in_megabytes_or_gigabytes(count: float, text: str) -> None:
    assert formatting.bytes_text(count) == text


@pytest.mark.parametrize(("share", "text"), [(None, "–"), (0.0, "0.0 %"), (0.1234, "12.3 %")])
def test_a_share_is_said_in_percent(share: float | None, text: str) -> None:
    assert formatting.percent(share) == text


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (None, ""),
        ("/mnt/a@b/c", "/mnt/a@b/c"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("http://me:secret@host:5000/path", "http://host:5000/path"),
        ("http://me:sec@ret@host", "http://host"),
        ("s3://bucket/prefix@2?token=secret", "s3://bucket/prefix@2"),
        ("hf://me/mine@main/a", "hf://me/mine@main/a"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
        ("postgresql://me:secret@db/runs", "postgresql://db/runs"),
        ("postgresql://me:pa/ss@db/runs", "postgresql://db/runs"),
        ("postgresql://me:pa?ss@db/runs", "postgresql://db/runs"),
        ("http://host:5000/a?token=secret@b", "http://host:5000/a"),
    ],
)
def test_an_address_loses_its_secrets_and_nothing_else(address: str | None, text: str) -> None:
    assert formatting.without_secret(address) == text


def test_text_in_a_markdown_table_stays_text() -> None:
    assert cell("a|b *c*\n<script>") == "a\\|b \\*c\\* &lt;script&gt;"
    assert cell(" ") == "(nothing)"
