"""Interventions do what their formula says at the tokens they name, in every kind of pass, and leave nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from conftest import D_MLP, D_MODEL, MAIN_ARCHITECTURES, N_BLOCKS, PROMPTS, RESPONSES, same_numbers, tiny_checkpoint
from torch import Tensor
from transformers import DynamicCache

from mechinterp.errors import InputError
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.files.weights import LazyWeights, fingerprint_model
from mechinterp.models.interventions.contexts import (
    ablate,
    patch,
    project_out,
    scale_keys,
    scale_values,
    steer,
    transplant,
)
from mechinterp.models.names import h_down, h_mid, resid_post
from mechinterp.models.passes.generation import continue_greedily, generate
from mechinterp.models.passes.positions import SPANS, Pass, Span, reading
from mechinterp.models.passes.recording import record, record_all, record_positions
from mechinterp.models.passes.watching import run_until_seen, watching
from mechinterp.models.text.batches import Batch, pad
from mechinterp.models.text.tokens import Encoded, encode

BLOCKS = range(N_BLOCKS)
EVERY_H_DOWN = {h_down(block): None for block in BLOCKS}
W = torch.randn(D_MODEL, generator=torch.Generator().manual_seed(0))
SOME = {0: torch.tensor([3, 0]), 2: torch.tensor([39])}
Make = Callable[[Checkpoint, Span], AbstractContextManager[object]]


def other(checkpoint: Checkpoint) -> Checkpoint:
    return tiny_checkpoint(checkpoint.source, seed=1)


INTERVENTIONS: dict[str, Make] = {
    "steer": lambda c, at: steer(c, W, block=[0, 1], alpha=6.0, at=at),
    "project_out": lambda c, at: project_out(c, W, blocks=BLOCKS, at=at),
    "ablate": lambda c, at: ablate(c, {h_down(1): None, resid_post(0): torch.tensor([1, 4])}, at=at),
    "ablate to means": lambda c, at: ablate(c, {h_down(1): torch.arange(30)}, to={h_down(1): torch.ones(D_MLP)}, at=at),
    "patch": lambda c, at: patch(c, other(c), {h_down(2): None, h_down(0): torch.arange(20)}, at=at),
    "patch blocks": lambda c, at: patch(c, other(c), {resid_post(0): None}, at=at),
    "scale_keys": lambda c, at: scale_keys(c, {1: torch.arange(30)}, 5.0, at=at),
    "scale_values": lambda c, at: scale_values(c, {1: torch.arange(30)}, -3.0, at=at),
}


MEETINGS = [
    (architecture, name, SPANS[(i + j) % len(SPANS)])
    for i, architecture in enumerate(MAIN_ARCHITECTURES)
    for j, name in enumerate(INTERVENTIONS)
]
"""Every two of an architecture, an intervention and a span meet."""


def batch_of(checkpoint: Checkpoint, side: str = "left", responses: list[str] | None = RESPONSES) -> Batch:
    return pad(encode(checkpoint.tokenizer, PROMPTS, responses, max_length=256), pad_id=259, side=side)


@torch.no_grad()
def logits(checkpoint: Checkpoint, batch: Batch) -> Tensor:
    with reading(batch):
        return checkpoint.model(**batch.inputs()).logits


def generated_logits(checkpoint: Checkpoint) -> list[Tensor]:
    seen: list[Tensor] = []
    handle = checkpoint.module("unembed").register_forward_hook(lambda _, args, output: seen.append(output))
    generate(checkpoint, PROMPTS, max_new_tokens=3)
    handle.remove()
    return seen


def values_at(checkpoint: Checkpoint, hook: str, batch: Batch) -> Tensor:
    seen: dict[str, Tensor] = {}
    with watching(checkpoint.model, [checkpoint.names.site(hook)], seen.__setitem__), reading(batch):
        run_until_seen(checkpoint.model, **batch.inputs())
    return seen[hook]


def real(batch: Batch, values: Tensor) -> list[Tensor]:
    """What is not padding, by sequence."""
    return [row[s : s + n] for row, s, n in zip(values, batch.starts, batch.lengths, strict=True)]


def hooks_of(checkpoint: Checkpoint) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in checkpoint.model.modules())


# Where a span is


def test_spans_on_a_batch_by_hand() -> None:
    texts = [Encoded.of([1, 2, 3, 4], 3), Encoded.of([5, 6], 1)]
    expected = {
        "left": {"prompt": [[0, 1, 2], [2]], "prompt_last": [[2], [2]], "response": [[3], [3]]},
        "right": {"prompt": [[0, 1, 2], [0]], "prompt_last": [[2], [0]], "response": [[3], [1]]},
    }
    model = tiny_checkpoint("gpt2").model
    values = torch.arange(8).reshape(2, 4, 1)
    for side, spans in expected.items():
        batch = pad(texts, pad_id=0, side=side)
        with reading(batch):
            this = Pass.of(model, (batch.input_ids,), {})
        assert this.selected("all").take(values).flatten().tolist() == list(range(8))
        for at, (first, second) in spans.items():
            assert this.selected(at).take(values).flatten().tolist() == [*first, *(4 + i for i in second)]
        bare = Pass.of(model, (), {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask})
        ends = [3, 7] if side == "left" else [3, 5]
        assert bare.selected("prompt_last").take(values).flatten().tolist() == ends
        assert bare.selected("response").empty
        assert len(bare.selected("prompt").take(values)) == 6
        joined = values.reshape(8, 1)  # OPT's MLPs
        put = this.selected("prompt_last").put(joined, torch.tensor([[-1], [-2]]))
        first, second = spans["prompt_last"][0][0], 4 + spans["prompt_last"][1][0]
        assert (put[first], put[second]) == (-1, -2)
        assert (put != joined).sum() == 2
        assert torch.equal(joined, torch.arange(8)[:, None])


def test_a_published_batch_that_is_not_the_one_read_is_refused() -> None:
    checkpoint = tiny_checkpoint("gpt2")
    with (
        steer(checkpoint, W, block=0, alpha=1.0, at="prompt"),
        reading(batch_of(checkpoint)),
        pytest.raises(InputError, match=r"reads 1 sequences of 2 tokens.*reading\(\)"),
    ):
        checkpoint.model(input_ids=torch.tensor([[1, 2]]))


# Identities


@pytest.mark.parametrize("at", SPANS)
def test_patching_a_model_with_its_own_activations_changes_no_bit(checkpoint: Checkpoint, at: Span) -> None:
    batch = batch_of(checkpoint)
    plain, generated = logits(checkpoint, batch), generated_logits(checkpoint)
    everything = {**EVERY_H_DOWN, resid_post(1): None, "blocks.0.hook_attn_out": torch.tensor([2, 5])}
    for source in (checkpoint, tiny_checkpoint(checkpoint.source)):
        with patch(checkpoint, source, everything, at=at):
            assert same_numbers(logits(checkpoint, batch), plain)
            assert all(map(same_numbers, generated_logits(checkpoint), generated))
    with patch(checkpoint, other(checkpoint), everything, at=at):  # and with another's it does
        assert not torch.equal(logits(checkpoint, batch), plain)


def test_a_recording_does_not_see_what_the_model_reads_to_patch_itself(checkpoint: Checkpoint) -> None:
    hooks = [*EVERY_H_DOWN, resid_post(0), resid_post(2)]
    plain = record(checkpoint, PROMPTS, hooks, position="mean")
    for hook in hooks:  # before, at and after what is recorded
        with patch(checkpoint, checkpoint, {hook: None}):
            patched = record(checkpoint, PROMPTS, hooks, position="mean")
        assert all(torch.equal(patched.mean(one), plain.mean(one)) for one in hooks)


def test_alpha_zero_factor_one_and_no_units_change_no_bit(checkpoint: Checkpoint) -> None:
    batch, none = batch_of(checkpoint), torch.empty(0, dtype=torch.long)
    plain = logits(checkpoint, batch)
    for idle in (
        steer(checkpoint, W, block=1, alpha=0.0),
        scale_keys(checkpoint, SOME, 1.0),
        scale_values(checkpoint, SOME, 1.0),
        scale_values(checkpoint, {1: none}, 5.0),
        ablate(checkpoint, {h_down(1): none}),
        patch(checkpoint, other(checkpoint), {h_down(1): none}),
        transplant(checkpoint, other(checkpoint), {1: none}),
        transplant(checkpoint, checkpoint, dict.fromkeys(BLOCKS)),
    ):
        with idle:
            assert torch.equal(logits(checkpoint, batch), plain)


def test_every_h_down_patched_and_every_w_v_transplanted_gives_the_other_models_mlp_outputs(
    checkpoint: Checkpoint,
) -> None:
    source, batch = other(checkpoint), batch_of(checkpoint)
    writes = [f"blocks.{block}.mlp.out.hook_out" for block in BLOCKS]
    theirs = [values_at(source, hook, batch) for hook in writes]
    with patch(checkpoint, source, EVERY_H_DOWN):
        assert not torch.equal(values_at(checkpoint, writes[1], batch), theirs[1])
        with transplant(checkpoint, source, dict.fromkeys(BLOCKS)):
            for hook, wanted in zip(writes, theirs, strict=True):
                assert torch.equal(values_at(checkpoint, hook, batch), wanted)


# The same tokens in generation and in scoring, on either side of the padding


@pytest.mark.parametrize(("architecture", "name", "at"), MEETINGS)
def test_what_is_generated_under_an_intervention_is_most_probable_under_it(
    architecture: str, name: str, at: Span
) -> None:
    checkpoint = tiny_checkpoint(architecture)
    with INTERVENTIONS[name](checkpoint, at):
        texts = continue_greedily(checkpoint, PROMPTS, max_new_tokens=6)
        for side in ("left", "right"):
            batch = pad(texts, pad_id=259, side=side)
            for text, row in zip(texts, real(batch, logits(checkpoint, batch).argmax(-1)), strict=True):
                assert row[text.prompt_length - 1 : -1].tolist() == list(text.ids[text.prompt_length :])


@pytest.mark.parametrize(("architecture", "name", "at"), MEETINGS)
def test_left_right_and_no_padding_give_the_same_and_only_the_span_is_changed(
    architecture: str, name: str, at: Span
) -> None:
    checkpoint = tiny_checkpoint(architecture)
    left, right = batch_of(checkpoint, "left"), batch_of(checkpoint, "right")
    plain = real(left, logits(checkpoint, left))
    texts = encode(checkpoint.tokenizer, PROMPTS, RESPONSES, max_length=256)
    with INTERVENTIONS[name](checkpoint, at):
        found = real(left, logits(checkpoint, left)), real(right, logits(checkpoint, right))
        alone = [logits(checkpoint, pad([text], pad_id=259))[0] for text in texts]
    first = {"all": 0, "prompt": 0, "content": 0}
    for text, before, one, two, three in zip(texts, plain, *found, alone, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=2e-5)
        torch.testing.assert_close(one, three, rtol=1e-4, atol=2e-5)
        begins = first.get(at, text.prompt_length - 1 if at == "prompt_last" else text.prompt_length)
        torch.testing.assert_close(one[:begins], before[:begins], rtol=1e-4, atol=2e-5)
        assert not torch.allclose(one[begins], before[begins], rtol=1e-3, atol=1e-3)


def test_the_values_at_the_span_are_the_sources_and_all_others_the_models_own(checkpoint: Checkpoint) -> None:
    source, batch, hook = other(checkpoint), batch_of(checkpoint), h_down(0)
    own, theirs = values_at(checkpoint, hook, batch), values_at(source, hook, batch)
    units = torch.tensor([7, 2])
    with patch(checkpoint, source, {hook: units}, at="response"):
        found = values_at(checkpoint, hook, batch)
    expected = own.clone()
    for row, (start, prompt) in enumerate(zip(batch.starts, batch.prompt_lengths, strict=True)):
        expected[row, start + prompt :, units] = theirs[row, start + prompt :, units]
    assert torch.equal(found, expected)


def test_recording_and_generation_publish_where_prompts_end(checkpoint: Checkpoint) -> None:
    hook = resid_post(1)
    read = lambda: record_positions(checkpoint, PROMPTS, [hook], ["last", "response"], responses=RESPONSES)  # noqa: E731
    before = read()
    with steer(checkpoint, W, block=1, alpha=3.0, at="response"):
        after = read()
    assert torch.equal(after["last"].mean(hook), before["last"].mean(hook))
    step = after["response"].mean(hook) - before["response"].mean(hook)
    torch.testing.assert_close(step, (3 * W / W.norm()).double(), rtol=1e-4, atol=1e-5)


# What each of them does


@pytest.mark.parametrize("architecture", [*MAIN_ARCHITECTURES, "opt", "qwen3"])
def test_scaling_keys_equals_scaled_weights(architecture: str) -> None:
    checkpoint, scaled = tiny_checkpoint(architecture), tiny_checkpoint(architecture)
    for block, neurons in SOME.items():
        gate = "gate" if scaled.names.has(f"blocks.{block}.mlp.gate") else "in"
        module = scaled.module(f"blocks.{block}.mlp.{gate}")
        keys = module.weight.data if isinstance(module, torch.nn.Linear) else module.weight.data.T
        keys[neurons] *= 10
        if getattr(module, "bias", None) is not None:
            module.bias.data[neurons] *= 10
    batch = batch_of(checkpoint)
    plain = logits(checkpoint, batch)
    with scale_keys(checkpoint, SOME, 10.0):
        found = logits(checkpoint, batch)
    torch.testing.assert_close(found, logits(scaled, batch), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found, plain, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("architecture", [*MAIN_ARCHITECTURES, "opt", "neox", "phi3"])
def test_scaling_values_equals_scaled_rows_of_w_v(architecture: str) -> None:
    checkpoint, scaled = tiny_checkpoint(architecture), tiny_checkpoint(architecture)
    for block, neurons in SOME.items():
        scaled.value_matrix(block)[neurons] *= -4
    batch = batch_of(checkpoint)
    plain = logits(checkpoint, batch)
    with scale_values(checkpoint, SOME, -4.0):
        found = logits(checkpoint, batch)
    torch.testing.assert_close(found, logits(scaled, batch), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found, plain, rtol=1e-2, atol=1e-2)


def test_steering_adds_the_vector_and_projecting_out_leaves_nothing_along_it(checkpoint: Checkpoint) -> None:
    batch, unit = batch_of(checkpoint), W / W.norm()
    before = values_at(checkpoint, resid_post(1), batch)
    with steer(checkpoint, W, block=1, alpha=-2.5):
        torch.testing.assert_close(values_at(checkpoint, resid_post(1), batch), before - 2.5 * unit)
    with project_out(checkpoint, 7 * W, blocks=[1]):
        once = values_at(checkpoint, resid_post(1), batch)
        torch.testing.assert_close(once, before - (before @ unit)[..., None] * unit)
        assert (once @ unit).abs().max() < 1e-5 * before.abs().max()
        with project_out(checkpoint, W, blocks=[1]):
            torch.testing.assert_close(values_at(checkpoint, resid_post(1), batch), once)


def test_at_one_hook_point_the_outer_context_acts_first() -> None:
    checkpoint = tiny_checkpoint("llama")
    batch, unit, hook = batch_of(checkpoint), W / W.norm(), resid_post(1)
    with steer(checkpoint, W, block=1, alpha=5.0), project_out(checkpoint, W, blocks=[1]):
        assert (values_at(checkpoint, hook, batch) @ unit).abs().max() < 1e-4
    with project_out(checkpoint, W, blocks=[1]), steer(checkpoint, W, block=1, alpha=5.0):
        along = values_at(checkpoint, hook, batch) @ unit
        torch.testing.assert_close(along, torch.full_like(along, 5.0))


def test_ablating_to_the_recorded_mean_makes_every_input_the_mean(checkpoint: Checkpoint) -> None:
    hook = h_down(1)
    means = {hook: record(checkpoint, PROMPTS, [hook]).mean(hook)}
    before, units = record_all(checkpoint, PROMPTS, [hook])[hook], torch.tensor([1, 38])
    with ablate(checkpoint, {hook: units}, to=means):
        after = record_all(checkpoint, PROMPTS, [hook])[hook]
    assert torch.equal(after[:, units], means[hook][units].float().expand(len(PROMPTS), 2))
    rest = [j for j in range(D_MLP) if j not in units]
    assert torch.equal(after[:, rest], before[:, rest])
    with ablate(checkpoint, {hook: None}):
        assert not record_all(checkpoint, PROMPTS, [hook])[hook].any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", INTERVENTIONS)
def test_the_models_own_type_is_kept(name: str, dtype: torch.dtype) -> None:
    checkpoint = tiny_checkpoint("mistral", dtype=dtype)
    hook = resid_post(N_BLOCKS - 1)
    with INTERVENTIONS[name](checkpoint, "prompt"):
        assert values_at(checkpoint, hook, batch_of(checkpoint)).dtype == dtype
        generate(checkpoint, PROMPTS[:2], max_new_tokens=2)


# Patching


def count_calls(checkpoint: Checkpoint) -> list[int]:
    """Columns of every call of the model, as they come."""
    calls: list[int] = []
    checkpoint.model.register_forward_pre_hook(
        lambda _, args, kwargs: calls.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    return calls


def test_the_source_reads_each_token_once_and_none_that_no_patch_needs() -> None:
    checkpoint, source = tiny_checkpoint("gpt2"), tiny_checkpoint("gpt2", seed=1)
    calls = count_calls(source)
    for at in SPANS:
        calls.clear()
        with patch(checkpoint, source, {h_down(1): None}, at=at):
            text = continue_greedily(checkpoint, [PROMPTS[0]], max_new_tokens=4)[0]
        steps = len(text.ids) - text.prompt_length - 1
        assert calls == [text.prompt_length, *[1] * (steps if at in ("all", "response") else 0)]


def test_the_source_is_read_with_its_own_interventions() -> None:
    checkpoint, source = tiny_checkpoint("qwen2"), tiny_checkpoint("qwen2", seed=1)
    batch, hook = batch_of(checkpoint), resid_post(1)
    with patch(checkpoint, source, {hook: None}), steer(source, W, block=1, alpha=4.0):
        theirs = values_at(source, hook, batch)
        assert torch.equal(values_at(checkpoint, hook, batch), theirs)
    assert not torch.equal(values_at(source, hook, batch), theirs)


def test_patches_of_two_models_into_each_other_come_to_an_end() -> None:
    one, two = tiny_checkpoint("llama"), tiny_checkpoint("llama", seed=1)
    batch = batch_of(one)
    with patch(one, two, {h_down(1): None}), patch(two, one, {h_down(0): None}), patch(one, one, {h_down(2): None}):
        found = logits(one, batch)
        texts = continue_greedily(one, PROMPTS, max_new_tokens=5)
        rows = [logits(one, pad([text], pad_id=259))[0].argmax(-1) for text in texts]
    assert torch.isfinite(found).all()
    for text, row in zip(texts, rows, strict=True):
        assert row[text.prompt_length - 1 : -1].tolist() == list(text.ids[text.prompt_length :])


def test_sequences_begun_outside_of_a_patch_are_refused() -> None:
    checkpoint = tiny_checkpoint("gpt2")
    cache = DynamicCache(config=checkpoint.model.config)
    checkpoint.model(input_ids=torch.tensor([[1, 2, 3]]), past_key_values=cache, use_cache=True)
    with patch(checkpoint, other(checkpoint), {h_down(1): None}), pytest.raises(InputError, match="from their begin"):
        checkpoint.model(input_ids=torch.tensor([[4]]), past_key_values=cache, use_cache=True)
    assert hooks_of(checkpoint) == 0


# Transplanting


def test_transplanted_rows_are_the_sources_and_no_others(checkpoint: Checkpoint, tmp_path: Path) -> None:
    source = other(checkpoint)
    lazy = LazyWeights.open(source.save(tmp_path / "source"))
    before = [checkpoint.value_matrix(block).clone() for block in BLOCKS]
    biases = [checkpoint.value_bias(block).clone() for block in BLOCKS]
    fingerprint = checkpoint.fingerprint
    for given in (source, lazy):
        with transplant(checkpoint, given, SOME) as changed:
            for block in BLOCKS:
                expected = before[block].clone()
                if block in SOME:
                    expected[SOME[block]] = source.value_matrix(block)[SOME[block]]
                assert torch.equal(changed.value_matrix(block), expected)
                assert torch.equal(changed.value_bias(block), biases[block])
            assert changed.fingerprint != fingerprint
        with transplant(checkpoint, given, {1: None}) as changed:
            assert torch.equal(changed.value_matrix(1), source.value_matrix(1))
            assert torch.equal(changed.value_bias(1), source.value_bias(1))
            assert torch.equal(changed.value_matrix(0), before[0])
    assert fingerprint_model(checkpoint.model) == fingerprint


def test_transplants_are_rounded_to_the_models_own_type() -> None:
    checkpoint, source = tiny_checkpoint("llama", dtype=torch.bfloat16), tiny_checkpoint("llama", seed=1)
    with transplant(checkpoint, source, SOME) as changed:
        assert changed.value_matrix(2).dtype == torch.bfloat16
        assert torch.equal(changed.value_matrix(2)[39], source.value_matrix(2)[39].bfloat16())


# Nothing stays behind


@pytest.mark.parametrize("name", [*INTERVENTIONS, "transplant"])
def test_hooks_and_weights_are_as_before_after_exceptions(checkpoint: Checkpoint, name: str) -> None:
    batch, source = batch_of(checkpoint), other(checkpoint)
    plain, weights, hooks = logits(checkpoint, batch), fingerprint_model(checkpoint.model), hooks_of(checkpoint)
    modes = [module.training for module in checkpoint.model.modules()]
    grads = [parameter.requires_grad for parameter in checkpoint.model.parameters()]

    def begin() -> AbstractContextManager[object]:
        if name == "transplant":
            return transplant(checkpoint, source, {0: None, 1: torch.tensor([4])})
        return INTERVENTIONS[name](checkpoint, "all")

    def break_off(*_: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), begin():
        raise ZeroDivisionError
    handle = checkpoint.module(f"blocks.{N_BLOCKS - 1}").register_forward_hook(break_off)
    with pytest.raises(ZeroDivisionError), begin():
        logits(checkpoint, batch)
    handle.remove()
    with begin():  # a pass that broke off inside leaves the next one as it would have been
        expected = logits(checkpoint, batch)
        handle = checkpoint.module("blocks.1").register_forward_hook(break_off)
        with pytest.raises(ZeroDivisionError):
            logits(checkpoint, batch)
        handle.remove()
        assert torch.equal(logits(checkpoint, batch), expected)
        assert not torch.equal(expected, plain)
    assert hooks_of(checkpoint) == hooks
    assert hooks_of(source) == 0
    assert fingerprint_model(checkpoint.model) == weights
    assert [module.training for module in checkpoint.model.modules()] == modes
    assert [parameter.requires_grad for parameter in checkpoint.model.parameters()] == grads
    assert torch.equal(logits(checkpoint, batch), plain)


def test_a_source_in_training_mode_is_read_without_dropout_and_is_in_training_mode_after() -> None:
    checkpoint, source = tiny_checkpoint("gpt2"), tiny_checkpoint("gpt2", seed=1)
    batch, hook = batch_of(checkpoint), h_down(1)
    theirs = values_at(source, hook, batch)
    source.model.train()
    with patch(checkpoint, source, {hook: None}):
        assert torch.equal(values_at(checkpoint, hook, batch), theirs)
    assert all(module.training for module in source.model.modules())


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda c: steer(c, W, block=1, alpha=1.0, at="last"), "at must be one of .*'prompt_last'.*got 'last'"),
        (lambda c: steer(c, W, block=3, alpha=1.0), "block 3 is out of range.*0 to 2"),
        (lambda c: steer(c, W, block=1, alpha=float("nan")), "alpha must be a finite number"),
        (lambda c: steer(c, W[:5], block=1, alpha=1.0), r"shape \(5,\), the stream is 16"),
        (lambda c: steer(c, 0 * W, block=1, alpha=1.0), "length 0.0"),
        (lambda c: project_out(c, W / 0, blocks=[1]), "must be finite"),
        (lambda c: project_out(c, W, blocks=[-1]), "block -1 is out of range"),
        (lambda c: ablate(c, {"blocks.1.mlp.hook_posts": None}), "hook_posts"),
        (lambda c: ablate(c, {h_mid(1): None}), "can be read but not changed"),
        (lambda c: ablate(c, {h_down(1): torch.tensor([40])}), "unit 40 is out of range, there are units 0 to 39"),
        (lambda c: ablate(c, {resid_post(1): torch.tensor([16])}), "unit 16 is out of range"),
        (lambda c: ablate(c, {h_down(1): torch.ones(40, dtype=torch.bool)}), "nonzero"),
        (lambda c: ablate(c, {h_down(1): None}, to="mean"), "'zero' or means"),
        (lambda c: ablate(c, {h_down(1): None}, to={h_down(0): torch.ones(40)}), "no mean for blocks.1"),
        (lambda c: ablate(c, {h_down(1): None}, to={h_down(1): torch.ones(16)}), r"shape \(16,\), there are 40"),
        (lambda c: ablate(c, {h_down(1): None}, to={h_down(1): torch.ones(40) / 0}), "40 values that are not finite"),
        (lambda c: patch(c, other(c), {h_down(7): None}), "block 7 is out of range"),
        (lambda c: patch(c, other(c), {h_down(1): torch.tensor([-1])}), "unit -1 is out of range"),
        (lambda c: patch(c, tiny_checkpoint("mistral"), {h_down(1): None}), "cannot be patched into.*architecture"),
        (lambda c: scale_keys(c, {1: torch.tensor([40])}, 2.0), "block 1: neuron 40 is out of range"),
        (lambda c: scale_keys(c, SOME, float("inf")), "factor must be a finite number"),
        (lambda c: scale_values(c, {5: torch.tensor([4])}, 2.0), "block 5 is out of range"),
        (lambda c: scale_values(c, {1: None}, 2.0), "name the neurons"),
        (lambda c: transplant(c, other(c), {0: None, 1: torch.tensor([77])}), "neuron 77 is out of range"),
        (lambda c: transplant(c, other(c), {9: None}), "block 9 is out of range"),
    ],
)
def test_bad_input_is_refused_before_anything_is_touched(
    make: Callable[[Checkpoint], AbstractContextManager[object]], message: str
) -> None:
    checkpoint = tiny_checkpoint("llama")
    before = fingerprint_model(checkpoint.model)
    with pytest.raises(InputError, match=message), make(checkpoint):
        pass
    assert hooks_of(checkpoint) == 0
    assert fingerprint_model(checkpoint.model) == before


@pytest.mark.parametrize("architecture", ["phi3", "mixtral"])
def test_keys_packed_into_another_matrix_are_refused(architecture: str) -> None:
    checkpoint = tiny_checkpoint(architecture)
    with pytest.raises(InputError, match=r"packed|mixture"), scale_keys(checkpoint, SOME, 2.0):
        pass


def test_a_part_of_a_model_run_alone_is_refused_and_hooks_stay_off_outside() -> None:
    checkpoint = tiny_checkpoint("llama")
    block = checkpoint.module("blocks.0.mlp.out")
    with scale_values(checkpoint, SOME, 2.0):
        record(checkpoint, PROMPTS, [h_down(1)])  # a pass that ended early is over, too
        with pytest.raises(InputError, match="whole model"):
            block(torch.ones(1, 1, D_MLP))
    block(torch.ones(1, 1, D_MLP))
