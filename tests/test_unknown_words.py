"""Texts of which nothing is known, and scripts without blanks: no constant and no NaN stands for a number."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest

from mechinterp.answers.judged import Defense, judged
from mechinterp.answers.judged_response import JudgedResponse
from mechinterp.answers.judges import EmbeddedJudge
from mechinterp.answers.refusals import RefusalClassifier
from mechinterp.answers.scoring import score_responses
from mechinterp.answers.side_effects import OverRefusal
from mechinterp.measures.fluency import entropy_of_ngrams, fluency, knows, words_of

SAFE = [f"I am sorry, I cannot help with {thing}." for thing in "abcdefghij"]
UNSAFE = [f"You fool, just take {thing} and stop whining." for thing in "abcdefghij"]
NOTHING_KNOWN = ["…", "...", "你好", "Zdravstvujte", "?!", "🙂"]


@pytest.fixture(scope="module")
def judge() -> EmbeddedJudge:
    return EmbeddedJudge.fit(SAFE + UNSAFE, [True] * 10 + [False] * 10, seed=0)


def test_of_a_text_without_a_known_word_a_judge_says_nothing(
    judge: EmbeddedJudge, caplog: pytest.LogCaptureFixture
) -> None:
    assert np.isnan(judge(NOTHING_KNOWN)).all()
    with caplog.at_level(logging.WARNING):
        scores = score_responses(judge, [*NOTHING_KNOWN, "\u200b", " ", "sorry", "fool"])
    assert scores[:8] == [None] * 8
    safe, unsafe = scores[8:]
    assert safe is not None
    assert unsafe is not None
    assert safe > 0.5 > unsafe
    assert "6 of 8 responses have no word that the judge knows" in caplog.text


def test_unjudged_responses_are_counted_apart_from_empty_ones(judge: EmbeddedJudge) -> None:
    answers = ["sorry", "…", "\u200b", "", "你好", "fool"]
    responses = tuple(JudgedResponse(i, "ds", f"p{i}", text, None, "Bias") for i, text in enumerate(answers))
    found = judged(Defense("m", responses), judge)
    table = found.table().set_index("quantity")
    assert (table.loc["ds", "value"], table.loc["ds", "n"]) == (0.5, 2)
    assert (table.loc["empty", "value"], table.loc["unjudged", "value"]) == (2 / 6, 2 / 6)
    assert found.row()["unjudged"] == 2 / 6
    counts = found.by_category().set_index("kind").loc["ds"]
    assert (counts["n"], counts["empty"], counts["unjudged"]) == (2, 2, 2)
    assert table.loc["fluency", "n"] == 3  # responses with a word


@pytest.mark.parametrize(
    ("safe", "unsafe", "said"),
    [
        ("对不起，我不能帮助你做这件事{}。", "你这个笨蛋，赶快去做吧{}。", ("对不起", "笨蛋")),
        ("申し訳ありませんが、お手伝いできません{}。", "馬鹿野郎、さっさとやれ{}。", ("申し訳", "馬鹿")),
        ("ขอโทษ ฉันช่วยไม่ได้{}", "ไอ้โง่ ทำเลย{}", ("ขอโทษ", "โง่")),
    ],
)
def test_a_judge_of_a_script_without_blanks(safe: str, unsafe: str, said: tuple[str, str]) -> None:
    numbers = "一二三四五六七八九十"
    texts = [safe.format(n) for n in numbers] + [unsafe.format(n) for n in numbers]
    judge = EmbeddedJudge.fit(texts, [True] * 10 + [False] * 10, seed=0)
    assert judge.accuracy == 1.0
    assert (judge(said) > 0.5).tolist() == [True, False]
    assert np.isnan(judge(["hello there"])).all()


def test_words_are_those_between_blanks_and_characters_without_them() -> None:
    for text in ("I am here, -- now.", " a  b\n", "naïve Ünïcode 42", "नमस्ते दुनिया"):
        assert words_of(text) == text.split()
    assert words_of("GPT在北京 ok") == ["GPT", "在", "北", "京", "ok"]
    assert [words_of(text) for text in ("…", "...", "", "\u200b")] == [[]] * 4


def test_fluency_sees_repetition_in_a_script_without_blanks() -> None:
    assert entropy_of_ngrams("好好好好好好好好好好") == 0.0
    assert entropy_of_ngrams("今天天气很好我们去公园散步吧") > 3
    assert math.isnan(entropy_of_ngrams("…"))
    assert fluency(["…", "one two three"]) == entropy_of_ngrams("one two three")


def test_known_answers_are_found_in_a_script_without_blanks() -> None:
    assert knows("答案是北京。", "北京。")
    assert knows("答案是Paris。", "paris")
    assert not knows("答案是上海。", "北京")
    assert not knows("Parisian", "Paris")
    assert knows("It is Paris!", "Paris.")
    assert not knows("Anything", "?")


def test_a_response_that_no_detector_knows_is_no_answer_and_no_refusal() -> None:
    detector = RefusalClassifier.fit(SAFE, UNSAFE, seed=0)
    told = detector(["sorry", "fool", "…"])
    assert told[:2].tolist() == [1, 0]
    assert math.isnan(told[2])
    found = OverRefusal("m", ("a", "b", "c"), ("sorry", "…", ""), (True, None, None), "classifier")
    rows = {row["quantity"]: (row["value"], row["n"]) for row in found.rows()}
    assert rows == {"over_refusal": (1.0, 1), "empty_benign": (1 / 3, 3), "unjudged_benign": (1 / 3, 3)}
