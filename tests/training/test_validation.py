"""What evaluations of a training are compared by, in writing with and without spaces."""

from __future__ import annotations

import pytest

from asr.training.state import rank
from asr.training.validation import compared_by
from support.training import validation_of

SPACED = ("wer_bounded", "cer_bounded", "loss")
UNSPACED = ("cer_bounded", "wer_bounded", "loss")


@pytest.mark.parametrize(
    ("texts", "wanted"),
    [
        (["ett två tre"], SPACED),
        (["привет мир", "안녕 하세요"], SPACED),
        (["今天天气很好"], UNSPACED),
        (["今日はいい天気です", "カラオケ"], UNSPACED),
        (["วันนี้อากาศดี"], UNSPACED),
        (["今天天气很好", "ok"], UNSPACED),
        (["今", "only few letters are chinese here"], SPACED),
        (["12 34"], SPACED),
        ([], SPACED),
    ],
)
def test_the_writing_of_most_letters_decides_which_rate_comes_first(
    texts: list[str], wanted: tuple[str, ...]
) -> None:
    assert compared_by(texts) == wanted


def test_texts_without_spaces_go_by_cer() -> None:
    """Each sentence is one word there: WER prefers one sentence right and the rest all wrong."""
    validation = validation_of(["今天天气很好", "我们去公园吧", "他在学校里学习"])
    one_right = validation.scores(["今天天气很好", "", ""])
    nearly = validation.scores(["今天天气真好", "我们去公园吗", "她在学校里学习"])
    assert one_right["wer_bounded"] < nearly["wer_bounded"]
    scores = [validation.score({**rates, "loss": 1.0}) for rates in (one_right, nearly)]
    assert rank(scores[1]) < rank(scores[0])
    assert scores[1] == [3 / 19, 1.0, 1.0]


def test_plain_rates_stay_as_they_are_beside_the_bounded_ones() -> None:
    rates = validation_of(["a b", "c"]).scores(["A, b!", "c d e f"])
    assert rates == {"wer": 1.0, "cer": 1.5, "wer_bounded": 1 / 3, "cer_bounded": 1 / 4}
