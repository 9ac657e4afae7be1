"""The errors page: what it shows is what the tables hold; hostile texts stay text; damaged stores
give a message.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from asr import wer
from asr.evaluation import slices
from asr.evaluation.alignment import DELETION, SUBSTITUTION
from asr.runs import run_index
from asr.storage import files
from dashboard import diff_html
from support.store import (
    HOSTILE,
    check,
    check_html,
    damaged,
    line,
    raise_bug,
    said,
    store,
    write_evaluation,
)

FILES = (
    "reports/evaluate/utterances.parquet",
    "reports/evaluate/metrics.json",
    "data/features/test/manifest.json",
)
SOUND_FILES = ("data/chunks/test/manifest.json", "data/chunks/test/chunk-00000.arrow")


def page() -> None:
    from dashboard.errors import page as errors

    errors.page()


@pytest.fixture(scope="module")
def results(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return store(tiny_data, tmp_path_factory.mktemp("errors") / "store")


@pytest.fixture(autouse=True)
def no_refresher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages start no process that reads the runs."""
    monkeypatch.setattr(run_index, "request_refresh", lambda *_: None)


@pytest.fixture
def at(results: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AppTest]:
    monkeypatch.setenv("DVC_ROOT", str(results))
    return AppTest.from_function(page, default_timeout=120).run()


def show(root: Path, lines: list[dict], monkeypatch: pytest.MonkeyPatch) -> AppTest:
    write_evaluation(root, lines)
    monkeypatch.setenv("DVC_ROOT", str(root))
    return AppTest.from_function(page, default_timeout=120).run()


def numbers(at: AppTest) -> dict[str, str]:
    return {one.label: one.value for one in at.metric}


def ids(at: AppTest) -> list[str]:
    """The utterances shown, in order."""
    lines = [text.split(" · ") for text in said(at).split("\n") if " · link" in text]
    return [parts[2 if "loop:" in parts[1] else 1] for parts in lines]


def players(at: AppTest) -> int:
    return len(at.get("audio"))


def test_utterances_with_scores_and_players(at: AppTest, results: Path) -> None:
    check(at)
    assert not at.warning
    assert not at.info
    table = wer_of(results, "finetuned")
    assert numbers(at)["Utterances"] == "8"
    assert numbers(at)["WER of your files now"] == f"{100 * table:.1f} %"
    assert len(ids(at)) == 8
    assert players(at) == 8
    assert "fel" in said(at)


def wer_of(root: Path, model: str) -> float:
    from asr import paths
    from asr.runs import reports

    rows = [
        row
        for row in reports.read_utterances(root / paths.UTTERANCES).to_pylist()
        if row["model"] == model
    ]
    counts = [
        wer.count_words(wer.normalize(row["reference"]), wer.normalize(row["hypothesis"]))
        for row in rows
    ]
    return sum(one.errors for one in counts) / sum(one.words for one in counts)


def test_two_models_side_by_side(at: AppTest, results: Path) -> None:
    at.selectbox(key="against").set_value("workspace").run()
    at.selectbox(key="against_model").set_value("start").run()
    check(at)
    assert (
        numbers(at)["WER of your files now, before training"]
        == f"{100 * wer_of(results, 'start'):.1f} %"
    )
    assert "better" in "".join(one.value for one in at.markdown)
    assert "heard by your files now, before training" in said(at)
    at.selectbox(key="errors_sort").set_value("second model worse").run()
    check(at)
    assert ids(at)[0] == "test-00000"  # the one of which the second heard nothing


def rows_of_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AppTest:
    lines = [
        line(
            "a",
            "en två tre",
            "en två tre",
            speaker="x",
            duration=3.0,
            attributes='{"age": "teens"}',
        ),
        line(
            "b",
            "en två tre fyra",
            "en tva",
            speaker="x",
            duration=1.0,
            attributes='{"age": "sixties"}',
        ),
        line("c", "fem", "sex sju", speaker="y", duration=2.0, attributes="not json"),
        line("d", "En, två!", "en tva", speaker=None, duration=None, attributes='{"age": "teens"}'),
    ]
    return show(tmp_path, lines, monkeypatch)


def test_order_search_slices_and_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = rows_of_words(tmp_path, monkeypatch)
    orders = {
        "most errors": "bcda",
        "highest error rate": "cbda",
        "longest": "acbd",
        "shortest": "bcad",
        "as in the test": "abcd",
    }
    for order, expected in orders.items():
        at.selectbox(key="errors_sort").set_value(order).run()
        assert "".join(ids(at)) == expected, order
    for words, expected in {
        "två": "abd",
        "TVA": "bd",
        "tva fyra": "b",
        "nothing like this": "",
        "": "abcd",
    }.items():
        at.text_input(key="errors_search").set_value(words).run()
        assert "".join(ids(at)) == expected, words
    at.multiselect(key="errors_slices").set_value(["age", "speaker"]).run()
    by_age = at.multiselect(key="slice_age")
    assert by_age.options == ["sixties", "teens"]
    by_age.set_value(["teens"]).run()
    assert "".join(ids(at)) == "ad"
    assert numbers(at)["WER of your files now"] == "20.0 %"
    at.button_group(key="errors_text").set_value("raw_").run()
    assert (
        numbers(at)["WER of your files now"] == "40.0 %"
    )  # "En," and "två!" are other words than "en" and "tva"
    check(at)


def test_confusions_are_counted_and_lead_to_their_utterances(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = rows_of_words(tmp_path, monkeypatch)
    at.button_group(key="errors_view").set_value("Frequent errors").run()
    check(at)
    substitutions, deletions, insertions = (frame.value for frame in at.dataframe)
    assert substitutions.iloc[0].tolist() == ["två", "tva", 2, 2]
    assert set(deletions["Said"]) == {"tre", "fyra"}
    assert insertions["Times"].sum() == 1
    assert not ids(at)
    at.selectbox(key="error").set_value((SUBSTITUTION, "två", "tva")).run()
    assert sorted(ids(at)) == ["b", "d"]
    at.selectbox(key="error").set_value((DELETION, "fyra", None)).run()
    assert ids(at) == ["b"]
    check(at)


def test_pages_turn_above_and_below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = show(tmp_path, [line(f"u{number:02d}", "en", "två") for number in range(45)], monkeypatch)
    assert ids(at) == [f"u{number:02d}" for number in range(20)]
    at.pagination[1].set_value(3).run()
    assert ids(at) == [f"u{number:02d}" for number in range(40, 45)]
    assert [one.value for one in at.pagination] == [3, 3]
    at.pagination[0].set_value(2).run()
    assert ids(at) == [f"u{number:02d}" for number in range(20, 40)]
    assert [one.value for one in at.pagination] == [2, 2]
    at.text_input(key="errors_search").set_value("en").run()  # the same rows: the page stays
    assert ids(at)[0] == "u20"
    at.selectbox(key="errors_sort").set_value("longest").run()
    check(at)


LOOPED = [
    line("a", "en två", "en två", duration=1.0),
    line("b", "åtta ett sju", "8 1 7 6 7 " * 12, duration=2.0),
    line("c", "nej", "ja " * 9, duration=3.0),
    line("d", "ja " * 9, "ja " * 8, duration=4.0),  # so it was said
    line("e", "fem", "sex", duration=5.0),
]


def test_loops_are_marked_counted_and_filtered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = show(tmp_path, LOOPED, monkeypatch)
    told = at.caption[0].value.replace("\\", "")
    assert told == "2 of 5 utterances are loops: 69 of 71 errors."
    assert "loop: “8 1 7 6 7” 12 times" in said(at)
    assert said(at).count("loop: ") == 2
    for choice, shown, errors in (
        ("only", "bc", "69"),
        ("without", "dea", "2"),
        (None, "bcdea", "71"),
    ):
        at.button_group(key="loops").set_value(choice).run()
        check(at)
        assert "".join(ids(at)) == shown
        assert numbers(at)["Errors"] == errors
    at.text_input(key="errors_search").set_value("nej").run()
    assert at.caption[0].value.replace("\\", "").startswith("1 of 1 utterances is a loop: 9 of 9")


def test_loops_of_two_models_are_told_of_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [*LOOPED, *(line(one["id"], one["reference"], "x", "start") for one in LOOPED)]
    at = show(tmp_path, lines, monkeypatch)
    at.selectbox(key="against").set_value("workspace").run()
    at.selectbox(key="against_model").set_value("start").run()
    told = at.caption[0].value.replace("\\", "")
    assert "your files now: 2 of 5 utterances are loops: 69 of 71 errors." in told
    assert "your files now, before training: 0 of 5 utterances are loops: 0 of" in told
    at.button_group(key="loops").set_value("only").run()
    assert "".join(ids(at)) == "bc"


def test_without_a_loop_nothing_is_said_of_loops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = show(tmp_path, [LOOPED[0], *LOOPED[3:]], monkeypatch)
    assert "loop" not in said(at) + "".join(one.value for one in at.caption)


# Choices in the address


def linked(told: dict[str, Any]) -> AppTest:
    """A fresh browser at this address."""
    at = AppTest.from_function(page, default_timeout=120)
    at.query_params.update(told)
    at.run()
    check(at)
    return at


def seen(at: AppTest) -> list[Any]:
    """What a visitor sees: rows, scores, pages, choices."""
    widgets = [*at.selectbox, *at.multiselect, *at.button_group, *at.text_input]
    chosen = {one.key: one.value for one in widgets}
    return [ids(at), numbers(at), chosen, [one.value for one in at.pagination]]


def choose_search(at: AppTest) -> None:
    at.text_input(key="errors_search").set_value("ord3 tre").run()


def choose_slices(at: AppTest) -> None:
    at.multiselect(key="errors_slices").set_value(["speaker", "age & more"]).run()
    at.multiselect(key="slice_speaker").set_value(["s1", "s2"]).run()
    at.multiselect(key="slice_age & more").set_value(["teens=1"]).run()


def choose_models(at: AppTest) -> None:
    at.selectbox(key="results_model").set_value("start").run()
    at.selectbox(key="against").set_value("workspace").run()
    at.selectbox(key="errors_sort").set_value("second model better").run()


def choose_text_and_order(at: AppTest) -> None:
    at.button_group(key="errors_text").set_value("raw_").run()
    at.selectbox(key="errors_sort").set_value("longest").run()


def choose_page(at: AppTest) -> None:
    at.pagination[1].set_value(3).run()


def choose_error(at: AppTest) -> None:
    at.button_group(key="errors_view").set_value("Frequent errors").run()
    at.selectbox(key="error").set_value((SUBSTITUTION, "fyra", "fem")).run()


def choose_loops(at: AppTest) -> None:
    at.button_group(key="loops").set_value("without").run()


def many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AppTest:
    lines = [
        line(
            f"u{number:02d}",
            f"ord{number} tre fyra",
            "ja " * 9 if number == 7 else f"ord{number} tre fem",
            speaker=f"s{number % 3}",
            duration=1.0 + number,
            attributes='{"age & more": "%s"}' % ("teens=1" if number % 2 else "åttio"),
        )
        for number in range(50)
    ]
    before = [{**one, "model": "start", "hypothesis": "x"} for one in lines]
    return show(tmp_path, [*lines, *before], monkeypatch)


@pytest.mark.parametrize(
    "choose",
    [
        choose_search,
        choose_slices,
        choose_models,
        choose_text_and_order,
        choose_page,
        choose_error,
        choose_loops,
    ],
)
def test_a_choice_is_in_the_address_and_a_link_shows_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choose: Callable[[AppTest], None]
) -> None:
    at = many(tmp_path, monkeypatch)
    before = seen(at)
    choose(at)
    check(at)
    assert seen(at) != before
    assert seen(linked(at.query_params)) == seen(at)


def test_a_page_of_another_list_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = many(tmp_path, monkeypatch)
    choose_page(at)
    assert ids(at)[0] == "u40"
    at.selectbox(key="errors_sort").set_value("longest").run()
    assert ids(at)[0] == "u49"
    for told in ("3", "x-y", "9" * 50, "³-1"):
        assert ids(linked({"errors_page": told}))[0] == "u07", "the loop, which has most errors"


def test_a_link_to_an_utterance_opens_its_page_and_marks_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = many(tmp_path, monkeypatch)
    choose_slices(at)
    at.multiselect(key="errors_slices").set_value([]).run()
    choose_page(at)
    (href,) = [href for id, href in links(at).items() if id == "u45"]
    told = parse_qs(urlparse(href).query)
    assert told["utterance"] == ["u45"]
    opened = linked(told)
    assert ids(opened) == ids(at)
    assert [one.value for one in opened.subheader] == ["This utterance was linked"]
    opened.pagination[0].set_value(1).run()
    assert not opened.subheader
    assert "utterance" not in opened.query_params
    for id in ("never heard of", "u45" * 2000, "<b>"):
        unmarked = linked({"utterance": id})
        assert not unmarked.subheader
        assert ids(unmarked)[0] == "u07"


def links(at: AppTest) -> dict[str, str]:
    """The address of each utterance shown, by its id."""
    hrefs = [re.findall('href="([^"]+)"', one.value) for one in at.html]
    return dict(zip(ids(at), (unescape(found[0]) for found in hrefs if found), strict=True))


def test_nothing_there_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    at = AppTest.from_function(page, default_timeout=120).run()
    check(at)
    assert at.info
    assert "dvc repro" in at.code[0].value


def test_recordings_of_another_test_are_not_played(at: AppTest, results: Path) -> None:
    metrics = results / "reports/evaluate/metrics.json"
    kept = metrics.read_bytes()
    files.write_json(metrics, {"test_hash": "another"})
    at.run()
    metrics.write_bytes(kept)
    check(at)
    assert players(at) == 0
    assert "not in the workspace" in at.info[0].value
    assert "dvc pull" in at.code[0].value
    assert len(ids(at)) == 8
    at.run()
    assert players(at) == 8


def test_marks_tell_their_kind_without_colour() -> None:
    shown = diff_html.texts("en två tre", "ett två fyra fem", normalized=True)
    check_html(shown)
    assert shown.count("<mark>") + shown.count("<ins>") == 5
    assert "<del>tre</del>" in diff_html.texts("en tre", "en", normalized=False)
    assert "(nothing)" in diff_html.texts("en", "", normalized=True)
    long = diff_html.texts("ja " * 2000, "ja", normalized=True)
    assert "1,600 words more" in long
    for kind in ("underline wavy", "line-through", "underline #"):
        assert kind in diff_html.STYLE


@pytest.mark.parametrize("normalised", [True, False])
def test_hostile_words_stay_words(normalised: bool) -> None:
    for text in HOSTILE:
        check_html(diff_html.texts(text, "en", normalised, text) + diff_html.facts_line(text, text))


def test_hostile_texts_in_every_field_are_shown_as_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [
        line(
            f"{text}{number}",
            text,
            HOSTILE[-number],
            HOSTILE[0],
            speaker=text,
            attributes=f'{{"k{number % 30}<b>": "<i>{number}"}}',
        )
        for number, text in enumerate(HOSTILE)
    ]
    at = show(tmp_path, lines, monkeypatch)
    at.button_group(key="errors_text").set_value("raw_").run()
    shown = ""
    for number in range(1, 11):
        at.pagination[0].set_value(number).run()
        check(at)
        shown += said(at)
    for text in HOSTILE:
        longest = max(text.split(), key=len)
        assert longest.replace("\x00", "") in shown.replace("\x00", "").replace("\ufffd", ""), text
    at.multiselect(key="errors_slices").set_value(["speaker", "k1<b>"]).run()
    at.button_group(key="errors_view").set_value("Frequent errors").run()
    check(at)


def test_the_check_sees_what_is_not_escaped() -> None:
    for text in ("<script>x</script>", '<span onclick="x">', "<!-- x -->"):
        with pytest.raises(AssertionError):
            check_html(text)


def test_a_hundred_damaged_stores_give_a_message(
    at: AppTest, results: Path, capsys: pytest.CaptureFixture
) -> None:
    hit: Counter[str] = Counter()
    for seed in range(100):
        name = (*FILES, *SOUND_FILES, FILES[0])[seed % 6]
        with damaged(results / name, seed) as way:
            st.cache_resource.clear()  # else what was read before is not read again
            at.run()
            check(at)
            told = bool(at.warning or at.info)
            assert told or numbers(at), (seed, name, way)
            assert told or way in ("flipped", "shape", "cut"), (seed, name, way)
        hit[f"{way}, {'told' if told else 'harmless'}"] += 1
    at.run()
    assert players(at) == 8
    assert sum(count for what, count in hit.items() if what.endswith("told")) >= 50
    with capsys.disabled():
        print(f"\n100 damaged stores, seeds 0 to 99: {dict(hit)}")


def test_a_fault_that_is_none_of_ours_would_be_seen(
    at: AppTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slices, "order", raise_bug)
    at.run()
    with pytest.raises(AssertionError, match="encountered an error"):
        check(at)
