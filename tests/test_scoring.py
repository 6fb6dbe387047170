"""Scores are the model's own log-probabilities, whatever the batch, the padding and the interventions."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import D_MODEL, MAIN_ARCHITECTURES, PROMPTS, RESPONSES, tiny_checkpoint

from mechinterp.errors import InputError
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.interventions.contexts import patch, steer
from mechinterp.models.names import h_down
from mechinterp.models.passes.generation import continue_greedily
from mechinterp.models.passes.scoring import score
from mechinterp.models.text.tokens import Encoded, encode


@torch.no_grad()
def by_hand(checkpoint: Checkpoint, text: Encoded) -> torch.Tensor:
    """Log-probability of every token of the response, from one plain pass of the text alone."""
    ids = torch.tensor([list(text.ids)])
    log_probabilities = checkpoint.model(input_ids=ids).logits[0].double().log_softmax(-1)
    return torch.stack([log_probabilities[i - 1, ids[0, i]] for i in range(text.prompt_length, len(text.ids))])


@pytest.mark.parametrize("architecture", [*MAIN_ARCHITECTURES, "opt", "phi3"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_scores_are_those_of_a_plain_pass_of_each_text_alone(architecture: str, side: str) -> None:
    checkpoint = tiny_checkpoint(architecture)
    texts = encode(checkpoint.tokenizer, PROMPTS, RESPONSES, max_length=256)
    expected = [by_hand(checkpoint, text) for text in texts]
    for reduce, of in (("mean", torch.mean), ("sum", torch.sum), ("first", lambda values: values[0])):
        wanted = torch.stack([of(values) for values in expected])
        for batch in (1, 2, 256):
            found = score(checkpoint, PROMPTS, RESPONSES, reduce=reduce, padding_side=side, max_batch=batch)
            assert found.dtype == torch.float64
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_the_probabilities_of_all_first_tokens_add_up_to_one() -> None:
    checkpoint = tiny_checkpoint("gemma2")  # whose logits are capped after the unembedding
    (prompt,) = encode(checkpoint.tokenizer, PROMPTS[:1], max_length=256)
    texts = [Encoded.of([*prompt.ids, token], prompt.prompt_length) for token in range(264)]
    scores = score(checkpoint, PROMPTS[:1] * 264, continuations=texts)
    assert math.isclose(float(scores.exp().sum()), 1, rel_tol=1e-5)


def test_prefix_suffix_and_cutting_reach_the_prompt() -> None:
    checkpoint = tiny_checkpoint("llama", bos=True)
    whole = score(checkpoint, ["P How do I? S"], ["No."])
    assert torch.equal(score(checkpoint, ["How do I?"], ["No."], prefix="P", suffix="S"), whole)
    long = "x" * 300
    with pytest.raises(InputError, match="`truncate=True`"):
        score(checkpoint, [long], ["No."])
    assert score(checkpoint, [long], ["No."], truncate=True).isfinite().all()


def test_interventions_act_at_the_tokens_of_the_span(checkpoint: Checkpoint) -> None:
    w = torch.ones(D_MODEL).cumsum(0)
    plain = score(checkpoint, PROMPTS, RESPONSES, reduce="first")
    whole = score(checkpoint, PROMPTS, RESPONSES)
    with steer(checkpoint, w, block=1, alpha=5.0, at="response"):  # the first token is decided before
        same = score(checkpoint, PROMPTS, RESPONSES, reduce="first", padding_side="left")
        torch.testing.assert_close(same, plain, rtol=1e-4, atol=1e-5)
        assert ((score(checkpoint, PROMPTS, RESPONSES) - whole).abs() > 1e-4).all()  # the later ones are not
    with steer(checkpoint, w, block=1, alpha=5.0, at="prompt_last"):
        assert ((score(checkpoint, PROMPTS, RESPONSES, reduce="first") - plain).abs() > 1e-3).all()
    source = tiny_checkpoint(checkpoint.source, seed=1)
    with patch(checkpoint, source, {h_down(1): None}):
        texts = continue_greedily(checkpoint, PROMPTS, max_new_tokens=5)
        greedy = score(checkpoint, PROMPTS, continuations=texts, reduce="sum")
        others = [Encoded.of([*t.ids[:-1], (t.ids[-1] + 1) % 256], t.prompt_length) for t in texts]
        assert (score(checkpoint, PROMPTS, continuations=others, reduce="sum") < greedy).all()


def test_nothing_stays_behind_and_a_damaged_model_gives_nan() -> None:
    checkpoint = tiny_checkpoint("gpt2", dtype=torch.bfloat16)
    checkpoint.model.train()
    done: list[tuple[int, int]] = []
    found = score(checkpoint, PROMPTS, RESPONSES, max_batch=2, progress=lambda *args: done.append(args))
    assert done == [(2, 5), (4, 5), (5, 5)]
    assert (found < 0).all()
    assert checkpoint.model.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in checkpoint.model.modules())
    checkpoint.value_bias(0)[0] = torch.nan
    assert score(checkpoint, PROMPTS, RESPONSES).isnan().all()
    assert score(checkpoint, [], []).shape == (0,)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"responses": RESPONSES, "reduce": "median"}, "reduce must be one of"),
        ({}, "responses or continuations"),
        ({"responses": RESPONSES[:2]}, "5 prompts but 2 responses"),
        ({"responses": [*RESPONSES[:4], " "]}, "response 4 is empty"),
        ({"continuations": [Encoded.of([1, 2], 1)]}, "5 prompts but 1 continuation"),
        ({"continuations": [Encoded.of([1, 2], 2)] * 5}, "response 0 has no token"),
    ],
)
def test_bad_input_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        score(tiny_checkpoint("gpt2"), PROMPTS, **arguments)
