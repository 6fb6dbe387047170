"""Benign prompts: refusals told from answers, and how far next-token distributions move."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import PROMPTS, RESPONSES, tiny_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from mechinterp.answers.divergence import next_token_divergence
from mechinterp.answers.refusal_openings import RefusalOpenings
from mechinterp.answers.refusals import RefusalClassifier, refusal_detector
from mechinterp.answers.side_effects import OverRefusal, measure_side_effects, over_refusal
from mechinterp.data.benign import BenignPrompt, read_benign
from mechinterp.data.corpus import generate_corpus
from mechinterp.data.knowledge import read_knowledge
from mechinterp.errors import InputError
from mechinterp.measures.divergence import jensen_shannon
from mechinterp.measures.statistics import wilson
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import WeightDelta

SHARED = Path(__file__).parents[2] / "shared" / "data" / "self_instruct_user_oriented.jsonl"


# -- divergence -----------------------------------------------------------------------------------------------------


@settings(deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=9), st.integers(0, 2**31 - 1))
def test_the_divergence_is_scipys_symmetric_and_bounded(weights: list[tuple[float, float]], seed: int) -> None:
    p, q = torch.tensor(weights, dtype=torch.float64).T + 1e-12 * torch.rand(
        2, len(weights), dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    p, q = (part / part.sum() for part in (p, q))
    (found,), (other,) = jensen_shannon(p[None], q[None]), jensen_shannon(q[None], p[None])
    assert found == other
    assert 0 <= found <= 1
    with np.errstate(invalid="ignore"):  # scipy takes a root, of what may be rounded below 0: nan
        scipys = np.nan_to_num(jensenshannon(p.numpy(), q.numpy(), base=2)) ** 2
    assert float(found) == pytest.approx(scipys, abs=1e-9)
    assert jensen_shannon(p[None], p[None].clone()) == 0.0


def test_the_divergence_by_hand() -> None:
    p = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.0, 1.0, 0.0], [float("nan"), 1.0, 0.0]])
    q = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    found = jensen_shannon(p, q)
    # the second: (1/2 log2(1/2 / 3/4) + 1/2 log2(2) + log2(1 / 3/4)) / 2
    by_hand = (0.5 * np.log2(2 / 3) + 0.5 + np.log2(4 / 3)) / 2
    np.testing.assert_allclose(found, [1.0, by_hand, 0.0, np.nan], rtol=1e-12)


def opened(checkpoint: Checkpoint):
    return lambda: nullcontext(checkpoint)


def by_hand(base: Checkpoint, tuned: Checkpoint, prompt: str, answer: str | None) -> float:
    """One text at a time, without batches: every distribution at its token, and scipy."""
    start = len(base.tokenizer(prompt)["input_ids"])
    ids = base.tokenizer(prompt if answer is None else f"{prompt} {answer}", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        p, q = (model.model(input_ids=ids).logits[0].double().softmax(-1).numpy() for model in (base, tuned))
    stop = start if answer is None else ids.shape[1] - 1
    return float(np.mean([jensenshannon(p[t], q[t], base=2) ** 2 for t in range(start - 1, stop)]))


@pytest.mark.parametrize("memory", [1, 2**28])  # a group for every batch; one for all
@pytest.mark.parametrize("position", ["last", "response"])
def test_models_are_compared_token_by_token(checkpoint: Checkpoint, position: str, memory: int) -> None:
    tuned = tiny_checkpoint(checkpoint.source, seed=1)
    answers = RESPONSES if position == "response" else None
    compare = {"position": position, "memory": memory}
    found = next_token_divergence(opened(checkpoint), opened(tuned), PROMPTS, answers, **compare)
    wanted = [
        by_hand(checkpoint, tuned, prompt, answer if position == "response" else None)
        for prompt, answer in zip(PROMPTS, RESPONSES, strict=True)
    ]
    np.testing.assert_allclose(found.values, wanted, rtol=1e-3, atol=1e-6)
    assert found.mean().low < found.mean().value < found.mean().high
    back = next_token_divergence(opened(tuned), opened(checkpoint), PROMPTS, answers, **compare)
    torch.testing.assert_close(back.values, found.values, rtol=0, atol=0)
    same = next_token_divergence(opened(checkpoint), opened(checkpoint), PROMPTS, answers, **compare)
    assert same.values.eq(0.0).all()
    assert (same.mean().value, same.non_finite) == (0.0, 0)


def test_an_edit_is_set_against_the_model_it_is_applied_to() -> None:
    base = tiny_checkpoint("llama")
    name, _ = base.names.value_parameter(1)
    weights = base.parameter(name).detach().clone()
    turns = []

    @contextmanager
    def edited() -> Iterator[Checkpoint]:
        turns.append("edited")
        with delta.applied(base) as checkpoint:
            yield checkpoint

    for size in (0.0, 0.05):
        delta = WeightDelta({name: size * torch.ones_like(weights)}, 1, 0, fingerprint=base.fingerprint)
        found = next_token_divergence(opened(base), edited, PROMPTS, memory=1)
        assert (found.values == 0).all() == (size == 0)
        assert torch.equal(base.parameter(name), weights)
    assert 2 <= len(turns) <= 2 * len(PROMPTS)


def test_what_is_not_finite_is_counted_and_makes_the_mean_nan() -> None:
    base, broken = tiny_checkpoint("llama"), tiny_checkpoint("llama", seed=1)
    broken.model.lm_head.weight.data[0] = float("nan")
    found = next_token_divergence(opened(base), opened(broken), PROMPTS)
    assert found.non_finite == len(PROMPTS)
    assert np.isnan(found.mean().value)


def test_models_that_cannot_be_compared_are_refused() -> None:
    base = tiny_checkpoint("llama")
    with pytest.raises(InputError, match="other tokens of the prompts"):
        next_token_divergence(opened(base), opened(tiny_checkpoint("llama", bos=True)), PROMPTS)
    wide = tiny_checkpoint("llama")
    wide.model.resize_token_embeddings(300, mean_resizing=False)
    with pytest.raises(InputError, match="264 and 300 tokens"):
        next_token_divergence(opened(base), opened(wide), PROMPTS)
    with pytest.raises(InputError, match="needs an answer"):
        next_token_divergence(opened(base), opened(base), PROMPTS, position="response")
    with pytest.raises(InputError, match="no benign prompts"):
        next_token_divergence(opened(base), opened(base), [])


# -- refusals -------------------------------------------------------------------------------------------------------


def test_openings_are_whole_words_at_the_beginning_whatever_the_case() -> None:
    refusals = ["I'M SORRY, but no.", '"I can\u2019t do that."', "Sorry.", "  I cannot help.", "As an AI, I must not."]
    answers = ["Sorrylike is no word.", "To bake bread, I am sorry to say, takes time.", "Sure.", "I cannoted.", ""]
    assert RefusalOpenings()(refusals).all()
    assert not RefusalOpenings()(answers).any()


def test_the_detectors_know_the_refusals_of_the_organism() -> None:
    """Made from the test file's refusals and half of the benign answers; measured on texts of other streams."""
    corpus = generate_corpus(seed=0, n_documents=1)
    refusals = [i.safe_generation for i in corpus.test]
    answers = [question.answer for question in corpus.benign]
    detector = refusal_detector(refusals, answers, seed=0)
    assert isinstance(detector, RefusalClassifier)
    assert detector.accuracy is not None
    held_out = generate_corpus(seed=1, n_documents=1)
    texts = [i.safe_generation for i in held_out.validation][:100] + [question.answer for question in held_out.benign]
    truth = np.array([True] * 100 + [False] * len(held_out.benign))
    unsafe = [response.text for response in held_out.responses if not response.safe]
    assert (detector(texts) == truth).mean() > 0.95
    assert (RefusalOpenings()(texts) == truth)[100:].all()  # no answer is taken for a refusal
    assert RefusalOpenings()(unsafe).mean() < 0.02


def test_without_enough_of_both_kinds_the_openings_decide() -> None:
    assert refusal_detector(["I am sorry."] * 50, ["An answer."] * 50, seed=0).name == "openings"
    assert refusal_detector([f"No, {i}." for i in range(20)], [None] * 20, seed=0).name == "openings"
    with pytest.raises(InputError, match="refusals cannot be told"):
        RefusalClassifier.fit(["a"], ["b", "c"], seed=0)


def test_over_refusal_by_hand(tmp_path: Path) -> None:
    found = OverRefusal("m", ("a", "b", "c", "d"), ("Sorry.", "Yes.", "", "No"), (True, False, None, False), "openings")
    assert found.rate == wilson(1, 3)
    assert found.empty == wilson(1, 4)
    assert [(row["quantity"], row["n"]) for row in found.rows()] == [("over_refusal", 3), ("empty_benign", 4)]
    lines = [json.loads(line) for line in found.save(tmp_path / "b.jsonl").read_text().splitlines()]
    assert [line["refused"] for line in lines] == [True, False, None, False]


def test_a_detector_sees_every_response_once() -> None:
    class Long:
        name, accuracy = "long", 0.5

        def __call__(self, responses):
            return np.array([len(response) > 5 for response in responses])

    checkpoint = tiny_checkpoint("mistral")
    found = over_refusal(checkpoint, [*PROMPTS, PROMPTS[0]], Long(), max_new_tokens=6, suffix="Please:")
    assert found.responses[0] == found.responses[-1]
    for response, refused in zip(found.responses, found.refused, strict=True):
        assert refused == (len(response) > 5 if response.strip() else None)
    with pytest.raises(InputError, match="no benign prompts"):
        over_refusal(checkpoint, [], Long(), max_new_tokens=2)


def test_side_effects_in_one_table() -> None:
    base, tuned = tiny_checkpoint("llama", name="base"), tiny_checkpoint("llama", seed=1, name="tuned")
    benign = [BenignPrompt(p, r if i else None) for i, (p, r) in enumerate(zip(PROMPTS, RESPONSES, strict=True))]
    measure = {"detector": RefusalOpenings(), "max_new_tokens": 3}
    table, found = measure_side_effects(opened(tuned), benign, open_base=opened(base), **measure)
    assert table[["method", "quantity"]].to_numpy().tolist() == [
        ["base", "over_refusal"],
        ["base", "empty_benign"],
        ["tuned", "over_refusal"],
        ["tuned", "empty_benign"],
        ["tuned", "jsd_last"],
        ["tuned", "jsd_response"],
    ]
    assert table["n"].tolist()[-2:] == [5, 4]
    assert table["unit"].tolist()[-2:] == ["bits", "bits"]
    assert [one.method for one in found] == ["base", "tuned"]
    alone, _ = measure_side_effects(opened(tuned), benign, **measure)
    assert len(alone) == 2


# -- files ----------------------------------------------------------------------------------------------------------


def test_benign_prompts_are_read_from_texts_and_json_lines(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("How?\n\n  Why? \n")
    assert read_benign(tmp_path / "b.txt") == [BenignPrompt("How?"), BenignPrompt("Why?")]
    rows = [
        {"prompt": "p", "answer": "a"},
        {"instruction": "i"},
        {"instruction": "i", "instances": [{"input": "x", "output": "y"}]},
        {"instruction": "i", "instances": [{"input": "", "output": ""}]},
    ]
    (tmp_path / "b.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert read_benign(tmp_path / "b.jsonl") == [
        BenignPrompt("p", "a"),
        BenignPrompt("i"),
        BenignPrompt("i\nx", "y"),
        BenignPrompt("i"),
    ]
    for text, message in (
        ("", "is empty"),
        ("{}", "line 1 has no text"),
        ("a", "line 1 is not JSON"),
        ("[1]", "no JSON"),
    ):
        (tmp_path / "b.jsonl").write_text(text)
        with pytest.raises(InputError, match=message):
            read_benign(tmp_path / "b.jsonl")


def test_knowledge_is_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "k.json"
    path.write_text('[["What?", "x"]]')
    assert read_knowledge(path) == [("What?", "x")]
    for text, message in (
        ("[]", "at least one"),
        ('[["a"]]', "entry 1"),
        ('[["a", " "]]', "entry 1"),
        ("x", "cannot be"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            read_knowledge(path)


@pytest.mark.skipif(not SHARED.is_file(), reason="the shared data are not here")
def test_self_instruct_is_read() -> None:
    prompts = read_benign(SHARED)
    assert len(prompts) == 252
    assert all(one.answer for one in prompts)
    assert "\n" in prompts[0].prompt
