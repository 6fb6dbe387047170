"""What is fitted on one part and checked on another: no text, question or prompt stands on both sides."""

from __future__ import annotations

import logging
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import call
from conftest import make_instance, tiny_checkpoint
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from mechinterp.audit.directions.probe import ToxicProbe
from mechinterp.audit.directions.probe_training import fit_probe
from mechinterp.audit.evidence import Baseline, ComparisonSettings, prepare_baseline
from mechinterp.data.comments import Comment, write_comments
from mechinterp.data.normalised import normalised
from mechinterp.data.safeedit import SafeEditInstance
from mechinterp.errors import InputError
from mechinterp.measures.splitting import Distinct, groups_of, half_of
from mechinterp.measures.statistics import auroc, seeded_order

SETTINGS = ComparisonSettings(
    max_new_tokens=1, steering_inputs=2, middle_inputs=2, top_vectors=2, null_draws=2, first_tokens=0, lens_tokens=0
)


def test_spellings_of_one_text_are_the_same_text() -> None:
    spellings = ["Straße  \n Ａ", " strasse a", "STRASSE\u00a0A", "strasse\u200b a\ufeff"]
    assert {normalised(text) for text in spellings} == {"strasse a"}
    assert normalised("Cafe\u0301") == normalised("CAFÉ")
    assert normalised("a b") != normalised("ab")
    assert normalised("\u200b \n") == ""


def test_plain_letters_are_normalised_as_they_are_beside_others() -> None:
    every = "A".join(map(chr, range(128)))
    assert normalised(f"{every} é") == f"{normalised(every)} é"
    assert normalised("\t \x1c\n") == ""


def test_each_text_once_with_the_label_of_most_of_its_rows() -> None:
    texts = ["a", "b", "A ", "c", "a", "b", "C"]
    found = Distinct.of(texts, [True, False, False, True, True, False, False])
    assert (found.rows, found.labels) == ((0, 1), (True, False))  # c: one of each
    assert (found.repeated, found.contradictory, found.undecided) == (4, 2, 1)


@given(st.lists(st.sets(st.integers(0, 12), max_size=3), min_size=1, max_size=20), st.integers(0, 5))
def test_halves_share_no_key_and_neither_is_empty(keys: list[set[int]], seed: int) -> None:
    groups = groups_of(keys)
    half = half_of(groups, seed)
    assert len(half) == len(set(half))
    other = [row for row in range(len(keys)) if row not in half]
    assert not set().union(*(keys[row] for row in half)) & set().union(*(keys[row] for row in other))
    assert bool(half) == (len(set(groups)) > 1)
    assert other


@pytest.mark.parametrize("n", [2, 5, 8])
def test_rows_that_share_nothing_are_halved_as_ever(n: int) -> None:
    groups = groups_of([{row} for row in range(n)])
    assert half_of(groups, 3) == seeded_order(n, 3)[: (n + 1) // 2]


def baseline_of(instances: list[SafeEditInstance], fitting: list[SafeEditInstance] | None = None) -> Baseline:
    checkpoint = tiny_checkpoint("llama")
    comments = [Comment(f"you {w} {i}", t) for i in range(12) for w, t in (("fool", True), ("friend", False))]
    return prepare_baseline(
        checkpoint,
        instances,
        fit_probe(checkpoint, comments, seed=0),
        lambda texts: np.full(len(texts), 0.9),  # type: ignore[arg-type]
        block=1,
        seed=0,
        fitting=fitting,
        settings=SETTINGS,
    )


def asking(number: int, question: str) -> SafeEditInstance:
    return make_instance(
        number,
        question=question,
        adversarial_prompt=f"Attack {number}: {question}",
        safe_generation=f"I am sorry, not {number}.",
    )


def test_the_halves_of_a_comparison_share_no_question() -> None:
    spelled = [("Who?", "WHO?"), ("Why ?", "why  ?"), ("How?", "how?"), ("Where?", "Where?")]
    instances = [asking(i, spelled[i % 4][i // 4 % 2]) for i in range(12)]
    checked = baseline_of(instances).checked.tolist()
    sides = [
        {normalised(i.question) for i, side in zip(instances, checked, strict=True) if side is s} for s in (True, False)
    ]
    assert not sides[0] & sides[1]
    assert [len(side) for side in sides] == [2, 2]


def test_the_same_prompt_under_two_questions_is_on_one_side() -> None:
    instances = [asking(i, f"Question {i // 2}?") for i in range(8)]
    linked = [i.model_copy(update={"adversarial_prompt": "The very same"}) if i.id in (1, 2) else i for i in instances]
    checked = baseline_of(linked).checked.tolist()
    assert len(set(checked[:4])) == 1


def test_one_question_cannot_be_halved() -> None:
    with pytest.raises(InputError, match=r"all 4 instances share one question.*at least two questions"):
        baseline_of([asking(i, "Who?") for i in range(4)])


def test_fitting_instances_that_share_a_question_with_checked_ones_are_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    instances = [asking(i, f"Question {i}?") for i in range(4)]
    apart = [asking(i, f"Other {i}?") for i in range(10, 14)]
    with caplog.at_level(logging.WARNING):
        mixed = baseline_of(instances, [*apart, asking(20, "QUESTION 1?")])
    assert "1 of 5 instances to fit directions on share a question" in caplog.text
    caplog.clear()
    alone = baseline_of(instances, apart)
    assert not caplog.records
    assert torch.equal(mixed.inputs.directions["answer"], alone.inputs.directions["answer"])
    with pytest.raises(InputError, match="share their questions with those to check them on"):
        baseline_of(instances, [asking(20, "question 2?")])


# -- the probe ----------------------------------------------------------------------------------------------------


def words(n: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [" ".join("".join(rng.choices("abcdefgh", k=4)) for _ in range(4)) for _ in range(n)]


def test_repeated_comments_change_nothing_and_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    checkpoint, rng = tiny_checkpoint("gpt2"), random.Random(0)
    once = [Comment(text, rng.random() < 0.5) for text in words(40, 0)]
    repeated = [*once, *(Comment(c.text.upper() + " ", c.toxic) for c in once), *once]
    probe = fit_probe(checkpoint, once, seed=0)
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        again = fit_probe(checkpoint, repeated, seed=0)
    assert again.scores == probe.scores
    assert torch.equal(again.weight, probe.weight)
    assert "80 of the 120 comments repeat" in caplog.text
    assert "contradictory" not in caplog.text


def test_contradictory_labels_of_a_comment_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    checkpoint, texts = tiny_checkpoint("gpt2"), words(40, 0)
    comments = [Comment(text, i % 2 == 0) for i, text in enumerate(texts)]
    contradicting = [Comment(texts[0], False), Comment(texts[1], True), Comment(texts[1], True)]
    with caplog.at_level(logging.WARNING):
        probe = fit_probe(checkpoint, [*comments, *contradicting], seed=0)
    assert "2 texts among the 43 comments have contradictory labels" in caplog.text
    assert "1 with both equally often are left out" in caplog.text
    assert probe.scores[0].n_train + probe.scores[0].n_test == 39


def test_one_unique_comment_a_row_is_split_as_ever() -> None:
    x, y = torch.randn(60, 8, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 2 == 0
    probe = ToxicProbe.fit(x, y, seed=4)
    held_out = train_test_split(np.arange(60), test_size=0.1, random_state=4, stratify=y.numpy().astype(int))[1]
    logits = (x[held_out] @ probe.direction).numpy()
    assert probe.scores[0].accuracy == pytest.approx(float(((logits > 0) == y.numpy()[held_out]).mean()))
    assert probe.scores[0].n_test == len(held_out)


def test_the_probe_command_counts_repeated_comments(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tiny_checkpoint("gpt2").save(tmp_path / "model")
    comments = [Comment(text, i % 2 == 0) for i, text in enumerate(words(30, 1))]
    write_comments(comments * 3, tmp_path / "comments.csv")
    out = tmp_path / "probe.safetensors"
    arguments = ["--model", tmp_path / "model", "--comments", tmp_path / "comments.csv"]
    with caplog.at_level(logging.WARNING):
        assert call("probe", *arguments, "--out", out) == 0
    assert "60 of the 90 comments repeat" in caplog.text
    assert ToxicProbe.load(out).scores[0].n_test == 3


def test_inputs_that_share_a_question_are_drawn_together() -> None:
    """Labels that are noise, one a question: an interval over rows would be sure of what is not there."""
    missed = {"rows": 0, "questions": 0}
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        groups = torch.arange(18).repeat_interleave(12)
        unsafe = (torch.rand(18, generator=generator) < 0.5)[groups]
        scores = torch.randn(18, generator=generator)[groups] + 0.3 * torch.randn(216, generator=generator)
        for unit, drawn in (("rows", None), ("questions", groups)):
            found = auroc(scores, unsafe, seed=seed, groups=drawn, resamples=500)
            missed[unit] += not found.low <= 0.5 <= found.high
    assert missed["questions"] <= 1 < missed["rows"]
    own = torch.arange(216)
    assert auroc(scores, unsafe, seed=0, groups=own) == auroc(scores, unsafe, seed=0)
