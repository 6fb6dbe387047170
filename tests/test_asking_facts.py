"""What models make of facts: the released accuracies, whatever the batch, and measures worked by hand."""

from __future__ import annotations

import math

import pytest
import torch
from chats import chat_checkpoint
from conftest import PROMPTS, RESPONSES, tiny_checkpoint
from golden_cases import golden, golden_checkpoint

from mechinterp.answers.facts import FactAnswers, Said, ask_facts
from mechinterp.answers.scored_facts import FactScores, summary_rows
from mechinterp.data.facts.fact import Fact
from mechinterp.errors import InputError
from mechinterp.measures.facts import mean_of_shares, mean_over_kinds, says, share_equal, share_kept
from mechinterp.measures.fluency import entropy_of_ngrams
from mechinterp.models.passes.scoring import score
from mechinterp.models.passes.teacher_forced import UNDEFINED, Forced, force

CASE = golden("knowedit/accuracy_trained.json")


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("batch", [1, 4])
def test_accuracies_are_the_released_ones_of_one_text_at_a_time_whatever_the_batch(side: str, batch: int) -> None:
    found = force(
        golden_checkpoint("knowedit/trained_gpt2"), CASE["prompts"], CASE["targets"], side=side, max_batch=batch
    )
    assert [list(each.ids) for each in found] == CASE["labels"]
    assert [share_equal(each.predicted, each.ids) for each in found] == CASE["accuracy_one_by_one"]


@torch.no_grad()
def test_the_released_batch_is_a_trap_that_left_padding_without_positions_explains() -> None:
    checkpoint = golden_checkpoint("knowedit/trained_gpt2")
    texts = [f"{prompt} {target}" for prompt, target in zip(CASE["prompts"], CASE["targets"], strict=True)]
    batch = checkpoint.tokenizer(texts, return_tensors="pt", padding=True, padding_side="left")
    predicted = checkpoint.model(**batch).logits.argmax(-1)  # positions count the padding
    found = [row[-len(labels) - 1 : -1].tolist() for row, labels in zip(predicted, CASE["labels"], strict=True)]
    assert found == CASE["predicted_tokens"]
    shares = [share_equal(said, labels) for said, labels in zip(found, CASE["labels"], strict=True)]
    assert shares == CASE["accuracy_in_one_batch"]
    assert shares != CASE["accuracy_one_by_one"]


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gemma2", "opt"])
def test_a_forced_answer_is_that_of_a_plain_pass_and_its_score(architecture: str) -> None:
    checkpoint = tiny_checkpoint(architecture)
    found = force(checkpoint, PROMPTS, RESPONSES)
    scores = score(checkpoint, PROMPTS, RESPONSES)
    for prompt, each, mean in zip(PROMPTS, found, scores, strict=True):
        ids = [*checkpoint.tokenizer(prompt)["input_ids"], *each.ids]
        plain = checkpoint.model(torch.tensor([ids])).logits[0]
        start = len(ids) - len(each.ids) - 1
        assert list(each.predicted) == plain[start:-1].argmax(-1).tolist()
        assert math.isclose(each.logprob, float(mean), rel_tol=1e-5, abs_tol=1e-6)


def test_a_logit_that_is_no_number_is_undefined_not_wrong() -> None:
    checkpoint = tiny_checkpoint("llama")
    with torch.no_grad():
        checkpoint.model.lm_head.weight[3] = math.nan
    (fact,) = (Fact("", "Two is", "three"),)
    (answers,) = ask_facts(checkpoint, [fact])
    assert set(answers.target.predicted) == {UNDEFINED}
    assert math.isnan(FactScores.of(1, fact, answers).values["success_all"])
    assert all(math.isnan(row["value"]) for row in summary_rows("m", [FactScores.of(1, fact, answers)], seed=0))


FACTS = [
    Fact("Oslo", "{} is in", "Chile", "Norway", ("Where is Oslo? It is in",), {"hop": (("Oslo is near", "Lima"),)}),
    Fact("Rome", "{} is in", "Peru", locality={"near": (("Bonn is in", "Germany"), ("Rome has", "a river"))}),
    Fact("Bonn", "{} is in", ground_truth="Germany"),
]


def test_facts_together_are_facts_one_by_one_and_a_prompt_twice_is_read_once() -> None:
    checkpoint, read = tiny_checkpoint("gpt2"), list[tuple[int, int]]()
    together = ask_facts(checkpoint, FACTS, max_new_tokens=4, progress=lambda *done: read.append(done))
    assert read[-1] == (7, 7)  # "Bonn is in Germany" is asked by two of them
    for fact, found in zip(FACTS, together, strict=True):
        (alone,) = ask_facts(checkpoint, [fact], max_new_tokens=4, max_batch=1)
        assert _whole(alone) == _whole(found)


def _whole(answers: FactAnswers) -> object:
    """All of it but for log-probabilities, which differ in rounding."""
    kinds = {**answers.portability, **answers.locality}
    each = [*filter(None, (answers.target, answers.truth)), *answers.rephrased, *(f for k in kinds.values() for f in k)]
    return [(forced.ids, forced.predicted) for forced in each], list(kinds), answers.said


def test_a_model_against_itself_keeps_everything_in_any_format() -> None:
    for checkpoint in (tiny_checkpoint("llama", bos=True), chat_checkpoint("qwen2_5")):
        answers = ask_facts(checkpoint, FACTS, max_new_tokens=3)
        scores = [FactScores.of(n, *each) for n, each in enumerate(zip(FACTS, answers, answers, strict=True), 1)]
        assert [each.values.get("locality_all") for each in scores] == [None, 1.0, 1.0]
        assert scores[2].kinds["locality", "itself"] == 1  # nothing of it is to be changed
        assert all(each.values["same_answer"] == 1 for each in scores)


def forced(text: str, predicted: str) -> Forced:
    return Forced(tuple(map(ord, text)), tuple(map(ord, predicted)), (-1.0,) * len(text))


def test_measures_worked_by_hand() -> None:
    fact = Fact("a", "{} is", "abcd", "efgh", ("of a", "this a"), locality={"x": (("p", "ab"),)})
    after = FactAnswers(
        target=forced("abcd", "abcx"),
        truth=forced("efgh", "efgh"),
        rephrased=(forced("abcd", "abcd"), forced("abcd", "xxcd")),
        portability={"one": (forced("ab", "ab"), forced("ab", "xx")), "two": (forced("ab", "ab"),)},
        locality={"x": (forced("ab", "xb"),)},
        said=Said((1, 2, 9), "It is ABCD.", "drawn words"),
    )
    before = FactAnswers(locality={"x": (forced("ab", "ab"),)}, said=Said((1, 2, 3, 4), "no", ""))
    scores = FactScores.of(7, fact, after, before)
    assert scores.values == {
        "success": 0.75,
        "success_all": 0.0,
        "target_logprob": -1.0,
        "truth": 1.0,
        "truth_all": 1.0,
        "truth_logprob": -1.0,
        "rephrase": 0.75,
        "rephrase_all": 0.5,
        "portability": 0.75,  # (1/2 + 1) / 2: the kinds first; of all three prompts it would be 2/3
        "portability_all": 0.75,
        "locality": 0.5,
        "locality_all": 0.0,
        "said_target": 1.0,
        "same_answer": 0.5,
        "fluency": entropy_of_ngrams("a is drawn words"),
    }
    assert scores.kinds["portability", "one"] == 0.5
    assert scores.row("m")["fact"] == 7


def test_a_summary_is_over_facts_and_its_interval_over_subjects() -> None:
    scores = [
        FactScores(number, Fact(subject, "p", "t", relation=relation), {"success": share, "fluency": share}, {})
        for number, (subject, relation, share) in enumerate(
            [("a", "r", 1.0), ("a", "s", 0.0), ("b", "r", 0.5), ("", "s", 0.5)], 1
        )
    ]
    rows = {(row["quantity"], row["relation"]): row for row in summary_rows("m", scores, seed=0)}
    whole = rows["success", ""]
    assert (whole["value"], whole["n"], whole["subjects"]) == (0.5, 4, 3)
    assert (whole["value_low"], whole["value_high"]) == _ends([0.5] * 3)
    assert whole["value_low"] < _ends([0.5] * 4)[0]  # as if of four it would be too narrow
    assert (rows["success", "r"]["value"], rows["success", "s"]["value"]) == (0.75, 0.25)
    assert rows["fluency", ""]["unit"] == "bits"


def _ends(shares: list[float]) -> tuple[float, float]:
    interval = mean_of_shares(shares, range(len(shares)))
    return interval.low, interval.high


def test_shares_of_tokens() -> None:
    assert share_equal([1, 2], [1, 3]) == 0.5
    assert math.isnan(share_equal([1, UNDEFINED], [1, 3]))
    with pytest.raises(ValueError, match="zip"):
        share_equal([1], [1, 2])
    assert (share_kept([1, 2, 3], [1, 2]), share_kept([1], [1, 2]), share_kept([2, 1], [1, 2])) == (1, 0.5, 0)
    assert math.isnan(share_kept([1], []))
    assert says("Well, I DON'T know.", "I don't know.")
    assert not says("I do", "I don't know.")
    assert math.isnan(mean_over_kinds({"a": []}))


@pytest.mark.parametrize("row", golden("knowedit/fluency.json")["rows"], ids=lambda row: row["text"][:20])
def test_fluency_is_the_released_one_on_words_between_blanks(row: dict) -> None:
    if row["tokens"]:
        assert entropy_of_ngrams(" ".join(row["tokens"])) == pytest.approx(row["entropy"], abs=1e-12)
    else:
        assert row["entropy"] == 0
        assert math.isnan(entropy_of_ngrams(""))  # no words: undefined here


def test_a_prompt_that_is_too_long_is_told_in_one_line() -> None:
    with pytest.raises(InputError, match="truncate from the left"):
        ask_facts(tiny_checkpoint("gpt2"), [Fact("", "x" * 400, "y")])
