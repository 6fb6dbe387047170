"""Shapes of the models that the configs name, as their public configs say: known before anything is fetched.

transformers' own defaults are those of Mistral-7B-v0.1 and Llama-2-7B; nothing here is read when a model is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from transformers import GPT2Config, LlamaConfig, MistralConfig, PretrainedConfig, PreTrainedModel

from mechinterp.models.names import HookNames

PUBLISHED: Mapping[str, Callable[[], PretrainedConfig]] = {
    "mistralai/Mistral-7B-v0.1": MistralConfig,
    "meta-llama/Llama-2-7b-chat-hf": lambda: LlamaConfig(max_position_embeddings=4096),
    "openai-community/gpt2-medium": lambda: GPT2Config(n_embd=1024, n_layer=24, n_head=16),
}


def published_skeleton(model: str) -> PreTrainedModel | None:
    """A model without weights of the published shape, None for a hub id that is not known here."""
    make = PUBLISHED.get(model)
    return None if make is None else HookNames(make(), model).skeleton
