"""Facts as checkpoints of known truth: what is changed by construction, and what the decomposition says of it."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
import torch
from comparisons import baseline_of
from conftest import PROMPTS, RESPONSES, tiny_checkpoint

from mechinterp.audit.evidence import gather_evidence
from mechinterp.audit.tables import compare
from mechinterp.data.facts.fact import Fact
from mechinterp.errors import InputError
from mechinterp.methods.constructed_edits import adapted_attention, edited_values
from mechinterp.methods.training.sft import SftSettings
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.second_moments import second_moments

FACTS = [Fact("Ann", "{} was born in", "Oslo"), Fact("Bob", "{} likes", "tea")]
CONTEXTS = ("{}",)
EXACT = 1e-6


def decomposition(base: Checkpoint, made: Checkpoint) -> pd.DataFrame:
    baseline = baseline_of(base)
    return compare(baseline, [("made", gather_evidence(made, baseline.inputs))]).tables["decomposition"]


def changed(before: Checkpoint, after: Checkpoint) -> set[tuple[int | None, str]]:
    new = dict(after.model.named_parameters())
    old = before.model.named_parameters()
    return {before.names.component(name) for name, value in old if not torch.equal(value, new[name])}


def edited(base: Checkpoint, method: Any, blocks: list[int], **settings: Any) -> Checkpoint:
    moments = second_moments(base, [*PROMPTS, *RESPONSES], blocks) if method == "memit" else None
    if method == "memit":
        settings["moments_weight"] = 1.0
    more: dict[str, Any] = {"moments": moments, "contexts": CONTEXTS} if method != "ft_m" else {}
    return edited_values(base, FACTS, method, blocks=blocks, settings={"steps": 3, **settings}, **more)


@pytest.mark.parametrize("architecture", ["gpt2", "gemma2"])
@pytest.mark.parametrize("method", ["rome", "ft_m"])
def test_an_edit_of_one_block_is_erasure_there_and_nothing_below(method: str, architecture: str) -> None:
    base = tiny_checkpoint(architecture)
    before = base.fingerprint
    made = edited(base, method, [1])
    assert changed(base, made) == {(1, "mlp.out")}
    rows = decomposition(base, made)
    assert (rows.query("block <= 1")["bypass"] == 0).all()
    assert (rows.query("block == 0")["erasure"] == 0).all()
    assert (rows.query("block == 1")["erasure"] != 0).all()
    assert Checkpoint("a", base.model, base.tokenizer).fingerprint == before


def test_an_edit_of_several_blocks_is_erasure_in_the_first_and_both_above() -> None:
    base = tiny_checkpoint("llama")
    made = edited(base, "memit", [0, 1])
    assert changed(base, made) == {(0, "mlp.out"), (1, "mlp.out")}
    rows = decomposition(base, made)
    assert (rows.query("block == 0")["bypass"] == 0).all()
    assert (rows.query("block == 0")["erasure"] != 0).all()
    assert (rows.query("block == 1")[["erasure", "bypass"]] != 0).all(axis=None)


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gemma2"])
def test_adapters_on_the_attention_erase_nothing(architecture: str) -> None:
    base = tiny_checkpoint(architecture)
    settings = SftSettings(steps=2, batch_size=2, learning_rate=5e-3, max_length=60)
    made = adapted_attention(base, FACTS, seed=0, settings=settings)
    parts = {part for _, part in changed(base, made)}
    assert parts == ({"attn.qkv"} if architecture == "gpt2" else {"attn.q", "attn.v"})
    assert all(torch.equal(base.value_matrix(block), made.value_matrix(block)) for block in range(base.n_blocks))
    if architecture == "llama":
        rows = decomposition(base, made)
        assert (rows["erasure"] == 0).all()
        assert (rows["bypass"].abs() > EXACT).any()


def test_fine_tuning_is_of_one_block() -> None:
    with pytest.raises(InputError, match="one block, got 2"):
        edited(tiny_checkpoint("llama"), "ft_m", [0, 1])
