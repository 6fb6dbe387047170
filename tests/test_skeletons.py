"""Skeletons are built once for configs that say the same, and for no others."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import CONFIGS, tiny_checkpoint
from transformers import LlamaConfig, MistralConfig

from mechinterp.models.names import HookNames
from mechinterp.models.skeletons import Described, skeleton_of


def test_configs_that_say_the_same_have_one_skeleton() -> None:
    config, again = CONFIGS["llama"](), CONFIGS["llama"]()
    again._name_or_path = "elsewhere"
    one = HookNames(config, "one").skeleton
    assert HookNames(again, "another").skeleton is one
    assert all(parameter.is_meta for parameter in one.parameters())
    assert one.config is not config
    wider = copy.deepcopy(config)
    wider.intermediate_size *= 2
    assert HookNames(wider).skeleton is not one
    assert HookNames(wider).skeleton.model.layers[0].mlp.up_proj.weight.shape[0] == wider.intermediate_size
    assert HookNames(config, trust_remote_code=True).skeleton is not one
    shape = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    kinds = {type(HookNames(kind(**shape, vocab_size=9)).skeleton) for kind in (LlamaConfig, MistralConfig)}
    assert len(kinds) == 2


def test_a_config_that_cannot_be_written_equals_itself_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    config, again = CONFIGS["gpt2"](), CONFIGS["gpt2"]()
    monkeypatch.setattr(type(config), "to_dict", lambda self: {}["nothing"])
    assert Described.of(config) == Described.of(config) != Described.of(again)


def test_what_is_shared_is_left_as_it_was() -> None:
    """By what asks for its names, and by the passes of a model of its kind."""
    checkpoint = tiny_checkpoint("gemma2")
    skeleton = skeleton_of(Described.of(checkpoint.model.config))
    before = {name: (value.shape, value.dtype) for name, value in skeleton.state_dict().items()}
    for block in range(checkpoint.n_blocks):
        checkpoint.value_matrix(block)
        checkpoint.names.site(f"blocks.{block}.hook_mlp_out")
    with torch.no_grad():
        checkpoint.model(torch.tensor([[1, 2, 3]]))
    assert checkpoint.names.skeleton is skeleton
    assert {name: (value.shape, value.dtype) for name, value in skeleton.state_dict().items()} == before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in skeleton.modules())
