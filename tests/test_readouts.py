"""Read-outs are sums of a plain pass's own log-probabilities, on the same tokens for every model, differentiable."""

from __future__ import annotations

import pytest
import torch
from chats import chat_checkpoint
from conftest import D_MODEL, N_BLOCKS, PROMPTS, RESPONSES, tiny_checkpoint

from mechinterp.audit.readouts import READOUTS, ReadoutTexts, in_batches, log_odds, read, unsafe_logprob, write
from mechinterp.data.pairs import Pair
from mechinterp.errors import InputError
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.names import h_down
from mechinterp.models.passes.generation import continue_greedily
from mechinterp.models.passes.recording import record
from mechinterp.models.passes.scoring import score

PAIRS = [
    Pair(id=i, prompt=prompt, unsafe=unsafe, safe=safe)
    for i, (prompt, unsafe, safe) in enumerate(zip(PROMPTS, RESPONSES, RESPONSES[1:] + RESPONSES[:1], strict=True))
]


def by_hand(checkpoint: Checkpoint, ids: list[int], prompt_length: int) -> float:
    with torch.no_grad():
        logits = checkpoint.model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return float(sum(logits[i - 1, ids[i]] for i in range(prompt_length, len(ids))))


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gemma2", "opt"])
def test_log_odds_are_those_of_plain_passes_whatever_the_batch(architecture: str) -> None:
    checkpoint = tiny_checkpoint(architecture)
    texts = ReadoutTexts.of(checkpoint, PAIRS, tokens=6)
    assert len(texts) == len(PAIRS)
    for of, answers in ((texts.unsafe, RESPONSES), (texts.safe, RESPONSES[1:] + RESPONSES[:1])):
        for text, prompt, answer in zip(of, PROMPTS, answers, strict=True):
            assert f"{prompt} {answer}".startswith(checkpoint.tokenizer.decode(text.ids))
            assert 3 <= len(text.ids) - text.prompt_length <= 6
    unsafe, safe = (
        [by_hand(checkpoint, list(t.ids), t.prompt_length) for t in of] for of in (texts.unsafe, texts.safe)
    )
    wanted = torch.tensor(unsafe, dtype=torch.float64) - torch.tensor(safe, dtype=torch.float64)
    for max_tokens in (1, 100, None):
        torch.testing.assert_close(read(checkpoint, texts, max_tokens=max_tokens), wanted, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(
        read(checkpoint, texts, unsafe_logprob), torch.tensor(unsafe, dtype=torch.float64), rtol=1e-5, atol=1e-4
    )
    assert set(READOUTS) == {"log_odds", "unsafe_logprob"}


def test_of_whole_answers_they_are_what_scores_say() -> None:
    checkpoint = chat_checkpoint("qwen2_5")
    texts = ReadoutTexts.of(checkpoint, PAIRS, tokens=99)
    wanted = [
        score(checkpoint, PROMPTS, [getattr(p, kind) for p in PAIRS], reduce="sum") for kind in ("unsafe", "safe")
    ]
    torch.testing.assert_close(read(checkpoint, texts), wanted[0] - wanted[1], rtol=1e-5, atol=1e-4)


def test_the_bases_own_answers_stand_in_for_the_datas() -> None:
    base, tuned = tiny_checkpoint("mistral"), tiny_checkpoint("mistral", seed=1)
    own = continue_greedily(base, PROMPTS, max_new_tokens=8)
    texts = ReadoutTexts.of(base, PAIRS, unsafe=own, tokens=4)
    assert [text.ids for text in texts.unsafe] == [text.ids[: text.prompt_length + 4] for text in own]
    given = ReadoutTexts.of(base, PAIRS, unsafe=[pair.unsafe for pair in PAIRS])
    assert given == ReadoutTexts.of(base, PAIRS)
    assert (read(base, texts, unsafe_logprob) > read(tuned, texts, unsafe_logprob)).all()


@pytest.mark.parametrize("position", ["prompt_last", "response"])
@pytest.mark.parametrize("architecture", ["gpt2", "opt", "gemma3"])
def test_a_write_is_the_recorded_inflow_times_the_value_vectors(architecture: str, position: str) -> None:
    checkpoint, direction = tiny_checkpoint(architecture), torch.arange(1.0, D_MODEL + 1)
    texts = ReadoutTexts.of(checkpoint, PAIRS, tokens=99)
    hooks, unit = [h_down(block) for block in range(N_BLOCKS)], (direction / direction.norm()).double()
    at = "last" if position == "prompt_last" else "response"
    recorded = record(checkpoint, PROMPTS, hooks, position=at, responses=RESPONSES, keep=hooks)
    wanted = torch.zeros(len(PROMPTS), dtype=torch.float64)
    for block, hook in enumerate(hooks):
        wanted += recorded.inputs[hook].double() @ checkpoint.value_matrix(block).double() @ unit
        wanted += checkpoint.value_bias(block).double() @ unit
    torch.testing.assert_close(read(checkpoint, texts, write(direction, position)), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("readout", [log_odds, unsafe_logprob, write(torch.ones(D_MODEL), "response")])
def test_values_are_differentiable_a_batch_at_a_time(readout: object) -> None:
    checkpoint = tiny_checkpoint("gpt2")  # others norm in float32, whatever the type
    checkpoint.model.double().train()
    texts = ReadoutTexts.of(checkpoint, PAIRS, tokens=6)
    weight, step = checkpoint.parameter("transformer.h.0.mlp.c_proj.weight"), 1e-6
    slopes = [
        torch.autograd.grad(values.sum(), weight)[0]
        for _, values in in_batches(checkpoint, texts, readout, max_tokens=64)
    ]
    assert len(slopes) > 1
    assert checkpoint.model.training
    before, change = float(read(checkpoint, texts, readout).sum()), torch.randn_like(weight)
    weight.data += step * change
    after = float(read(checkpoint, texts, readout).sum())
    assert (after - before) / step == pytest.approx(float((sum(slopes) * change).sum()), rel=1e-3)


def test_narrow_models_and_long_prompts() -> None:
    narrow = tiny_checkpoint("llama", dtype=torch.bfloat16)
    texts = ReadoutTexts.of(narrow, PAIRS, tokens=6)
    assert read(narrow, texts).dtype == torch.float64
    assert read(narrow, texts).tolist() == pytest.approx(read(tiny_checkpoint("llama"), texts).tolist(), abs=2.5)
    long = [PAIRS[0].model_copy(update={"prompt": "x" * 300})]
    cut = ReadoutTexts.of(narrow, long, truncate=True, tokens=5)
    assert [cut.unsafe[0].ids[:251], cut.unsafe[0].prompt_length] == [cut.safe[0].ids[:251], 251]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda base: ReadoutTexts.of(base, []), "there are no pairs"),
        (lambda base: ReadoutTexts.of(base, PAIRS, tokens=0), "must be at least 1, got 0"),
        (lambda base: ReadoutTexts.of(base, PAIRS, unsafe=["a"]), "5 pairs but 1 unsafe answer$"),
        (lambda base: ReadoutTexts.of(base, [PAIRS[0].model_copy(update={"prompt": "x" * 300})]), "`truncate=True`"),
        (lambda base: write(torch.ones(D_MODEL), "last"), "'prompt_last' or over the 'response', got 'last'"),
        (lambda base: read(base, ReadoutTexts.of(base, PAIRS), write(torch.ones(3))), "the stream is 16 wide"),
    ],
)
def test_mistakes_are_answered(make: object, said: str) -> None:
    with pytest.raises(InputError, match=said):
        make(tiny_checkpoint("llama"))
