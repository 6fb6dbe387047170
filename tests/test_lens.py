"""The logit lens: against the model's own logits, TransformerLens, and a stream worked by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import MAIN_ARCHITECTURES, N_BLOCKS, PROMPTS, RESPONSES, make_instance, tiny_checkpoint

from mechinterp.audit.logit_lens import answer_tokens, lens_table
from mechinterp.errors import InputError
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.interventions.contexts import steer
from mechinterp.models.names import resid_post
from mechinterp.models.passes.lens import EMBEDDING, LensToken, LogitLens, lens_points, read_lens
from mechinterp.models.text.tokens import encode

TOKENS = (LensToken(260, " Y", "unsafe"), LensToken(66, "c", "unsafe"), LensToken(7, "(", "safe"))
IDS = [token.id for token in TOKENS]
LAST = resid_post(N_BLOCKS - 1)


def means(lens: LogitLens) -> tuple[torch.Tensor, torch.Tensor]:
    weights = lens.group_sizes / lens.group_sizes.sum()
    return tuple(torch.einsum("g,gpt->pt", weights, part) for part in (lens.logits, lens.probabilities))


def own_logits(checkpoint: Checkpoint, position: str, responses: list[str] | None) -> list[torch.Tensor]:
    """Of every text alone, without padding: the model's own logits at the position, float64."""
    found = []
    for text in encode(checkpoint.tokenizer, PROMPTS, responses, max_length=256):
        with torch.no_grad():
            logits = checkpoint.model(torch.tensor([list(text.ids)])).logits[0].double()
        found.append(logits[list(text.positions(position))])
    return found


@pytest.mark.parametrize("architecture", [*MAIN_ARCHITECTURES, "qwen3", "phi3", "opt", "neox"])
@pytest.mark.parametrize("position", ["last", "response"])
def test_after_the_last_block_the_lens_is_the_model(architecture: str, position: str) -> None:
    checkpoint = tiny_checkpoint(architecture)
    responses = RESPONSES if position == "response" else None
    own = own_logits(checkpoint, position, responses)
    lens = read_lens(checkpoint, PROMPTS, TOKENS, position=position, responses=responses, max_tokens=64)
    logits, probabilities = (part[lens.points.index(LAST)] for part in means(lens))
    expected = torch.stack([part[:, IDS].mean(0) for part in own]).mean(0)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    expected = torch.stack([part.softmax(1)[:, IDS].mean(0) for part in own]).mean(0)
    torch.testing.assert_close(probabilities, expected, rtol=1e-4, atol=1e-7)


def test_a_cap_on_the_logits_counts() -> None:
    checkpoint = tiny_checkpoint("gemma2")
    checkpoint.model.config.final_logit_softcapping = 0.01
    lens = read_lens(checkpoint, PROMPTS, TOKENS)
    assert lens.logits.abs().max() <= 0.01
    checkpoint.model.config.final_logit_softcapping = None
    assert read_lens(checkpoint, PROMPTS, TOKENS).logits.abs().max() > 0.01


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_every_depth_is_that_of_transformer_lens(architecture: str) -> None:
    checkpoint = tiny_checkpoint(architecture)
    lens = read_lens(checkpoint, PROMPTS[:1], TOKENS)
    bridge = checkpoint.to_transformer_lens()
    ids = torch.tensor([list(encode(checkpoint.tokenizer, PROMPTS[:1], max_length=256)[0].ids)])
    with torch.no_grad():
        _, cache = bridge.run_with_cache(ids)
        for place, point in enumerate(lens.points):
            expected = bridge.unembed(bridge.ln_final(cache[point]))[0, -1].double()
            torch.testing.assert_close(lens.logits[0, place], expected[IDS], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(lens.probabilities[0, place], expected.softmax(0)[IDS], rtol=1e-4, atol=1e-7)


def test_the_points_go_up_and_parallel_blocks_have_no_middle() -> None:
    assert lens_points(tiny_checkpoint("llama")) == (
        EMBEDDING,
        *(f"blocks.{b}.hook_resid_{point}" for b in range(N_BLOCKS) for point in ("mid", "post")),
    )
    assert lens_points(tiny_checkpoint("neox")) == (EMBEDDING, *(resid_post(b) for b in range(N_BLOCKS)))


def test_the_middle_differs_from_the_end_of_a_block_by_what_its_mlp_writes() -> None:
    checkpoint = tiny_checkpoint("llama")
    checkpoint.value_matrix(1).zero_()
    logits, _ = means(read_lens(checkpoint, PROMPTS, TOKENS))
    same = [torch.equal(logits[1 + 2 * b], logits[2 + 2 * b]) for b in range(N_BLOCKS)]
    assert same == [False, True, False]


def test_batches_and_groups_change_nothing_but_rounding() -> None:
    checkpoint = tiny_checkpoint("mistral")
    whole = means(read_lens(checkpoint, PROMPTS, TOKENS, position="response", responses=RESPONSES))
    for settings in ({"max_tokens": 1}, {"groups": 2}, {"groups": 1, "max_tokens": 100}):
        parts = means(read_lens(checkpoint, PROMPTS, TOKENS, position="response", responses=RESPONSES, **settings))
        for one, other in zip(whole, parts, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_an_intervention_reaches_the_lens_once_and_from_its_block_on() -> None:
    checkpoint = tiny_checkpoint("llama")
    direction = checkpoint.parameter(f"{checkpoint.names.module('unembed')}.weight")[IDS[0]].detach().clone()
    before = means(read_lens(checkpoint, PROMPTS, TOKENS))[0]
    with steer(checkpoint, direction, block=N_BLOCKS - 1, alpha=3.0):
        steered = means(read_lens(checkpoint, PROMPTS, TOKENS))[0]
        with torch.no_grad():
            own = torch.stack([part[-1, IDS] for part in own_logits(checkpoint, "last", None)]).mean(0)
    assert torch.equal(before[:-1], steered[:-1])
    torch.testing.assert_close(steered[-1], own, rtol=1e-4, atol=1e-5)
    assert steered[-1, 0] > before[-1, 0]


def test_the_model_is_left_as_it_was_after_an_exception_too() -> None:
    checkpoint = tiny_checkpoint("gpt2")
    checkpoint.model.train()
    before = {name: value.clone() for name, value in checkpoint.model.state_dict().items()}
    modules = list(checkpoint.model.modules())

    def interrupted(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_lens(checkpoint, PROMPTS, TOKENS, progress=interrupted)
    assert not any(
        module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module) for module in modules
    )
    assert all(module.training for module in modules)
    assert all(torch.equal(before[name], value) for name, value in checkpoint.model.state_dict().items())


def test_a_narrow_type_is_read_in_its_own_pass() -> None:
    wide, narrow = (
        read_lens(tiny_checkpoint("llama", dtype=t), PROMPTS, TOKENS) for t in (torch.float32, torch.bfloat16)
    )
    assert narrow.logits.dtype == torch.float64
    assert (means(wide)[0] - means(narrow)[0]).abs().max() < 0.1


def test_bad_input_is_named() -> None:
    checkpoint = tiny_checkpoint("llama")
    with pytest.raises(InputError, match=r"tokens \[264, -1\] are not in the vocabulary of llama, ids 0 to 263"):
        read_lens(checkpoint, PROMPTS, [LensToken(264, "", "safe"), LensToken(-1, "", "safe")])
    with pytest.raises(InputError, match="no tokens"):
        read_lens(checkpoint, PROMPTS, [])
    with pytest.raises(InputError, match="no prompts"):
        read_lens(checkpoint, [], TOKENS)
    with pytest.raises(InputError, match="at least one group"):
        read_lens(checkpoint, PROMPTS, TOKENS, groups=0)
    with pytest.raises(InputError, match="needs responses"):
        read_lens(checkpoint, PROMPTS, TOKENS, position="response")
    checkpoint.value_matrix(0)[0, 0] = torch.inf
    with pytest.raises(InputError, match="not finite"):
        read_lens(checkpoint, PROMPTS, TOKENS)


def test_a_saved_lens_comes_back(tmp_path: Path) -> None:
    lens = read_lens(tiny_checkpoint("gpt2"), PROMPTS, TOKENS, groups=2)
    loaded = LogitLens.load(lens.save(tmp_path / "lens.safetensors"))
    assert (loaded.points, loaded.tokens, loaded.position) == (lens.points, lens.tokens, "last")
    assert (loaded.checkpoint, loaded.fingerprint) == (lens.checkpoint, lens.fingerprint)
    for name in ("logits", "probabilities", "group_sizes"):
        assert torch.equal(getattr(loaded, name), getattr(lens, name))


def test_the_tokens_are_the_most_frequent_first_ones_of_each_side() -> None:
    unsafe = ["You fool", "You there", "No way", "Only so", "I do"]
    safe = ["I am sorry", "I cannot", "No, never", "I will not", "Indeed"]
    instances = [
        make_instance(i, unsafe_generation=one, safe_generation=other)
        for i, (one, other) in enumerate(zip(unsafe, safe, strict=True))
    ]
    found = answer_tokens(tiny_checkpoint("llama"), instances)
    assert [(token.text, token.token_set) for token in found] == [(" Y", "unsafe"), (" O", "unsafe"), (" I", "safe")]
    assert [token.text for token in answer_tokens(tiny_checkpoint("llama"), instances, k=1)] == [" Y", " I"]
    alike = [make_instance(i, safe_generation="You would, would you") for i in range(2)]
    with pytest.raises(InputError, match="start with the same tokens"):
        answer_tokens(tiny_checkpoint("llama"), alike)
    with pytest.raises(InputError, match="at least 1, got 0"):
        answer_tokens(tiny_checkpoint("llama"), instances, k=0)


def test_the_table_has_the_means_and_intervals_around_them() -> None:
    logits = torch.zeros(2, 2, 1, dtype=torch.float64)
    logits[:, 1, 0] = torch.tensor([1.0, 4.0])
    lens = LogitLens((EMBEDDING, LAST), TOKENS[:1], logits, logits / 10, torch.tensor([2.0, 1.0]), "last", "sft", "f")
    table = lens_table("sft", lens, seed=0)
    assert list(table["point"]) == ["embed", "embed", "post", "post"]
    assert list(table["token"]) == ['" Y"', "all"] * 2
    table = table[table["token"] != "all"]
    assert table["block"].isna().tolist() == [True, False]
    assert table["block"].iloc[1] == N_BLOCKS - 1
    assert json.loads(table["token"].iloc[0]) == " Y"
    end = table.iloc[1]
    assert (end["logit"], end["logit_low"], end["logit_high"]) == pytest.approx((2.0, 1.0, 4.0))  # (2 * 1 + 1 * 4) / 3
    assert end["probability"] == pytest.approx(0.2)
    assert (table.iloc[0][["logit", "logit_low", "logit_high"]] == 0).all()


def test_a_set_together_is_the_mean_of_its_logits_and_the_sum_of_its_probabilities() -> None:
    values = torch.tensor([1.0, 3.0, 7.0], dtype=torch.float64).expand(2, 1, 3)
    lens = LogitLens((LAST,), TOKENS, values, values / 20, torch.tensor([2.0, 1.0]), "last", "sft", "f")
    together = lens_table("sft", lens, seed=0).query("token == 'all'").set_index("token_set")
    assert together["logit"].to_dict() == pytest.approx({"unsafe": 2.0, "safe": 7.0})
    assert together["probability"].to_dict() == pytest.approx({"unsafe": 0.2, "safe": 0.35})
    assert together["token_id"].isna().all()
