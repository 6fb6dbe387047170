"""How large a model is, of which no weight is read; and the shapes of the models that the configs name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from transformers import GPT2Config, LlamaConfig, MistralConfig, PretrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from mechinterp.models.names import HookNames

PUBLISHED: Mapping[str, Callable[[], PretrainedConfig]] = {
    "mistralai/Mistral-7B-v0.1": MistralConfig,
    "meta-llama/Llama-2-7b-chat-hf": lambda: LlamaConfig(max_position_embeddings=4096),
    "openai-community/gpt2-medium": lambda: GPT2Config(n_embd=1024, n_layer=24, n_head=16),
}
"""As their public configs say, for plans before anything is fetched; two are transformers' own defaults."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a model.

    Attributes:
        parameters: all of them, tied ones once.
        n_blocks, neurons, vocabulary: blocks, value vectors of all of them, tokens.
        value_matrix: elements of one block's W_V.
        features: numbers into and out of all matrices, for a token; times a rank, the parameters of LoRA adapters.
        key_values: numbers kept for a token while generating.
        dtype: of the weights.
    """

    parameters: int
    n_blocks: int
    neurons: int
    vocabulary: int
    value_matrix: int
    features: int
    key_values: int
    dtype: torch.dtype

    @classmethod
    def of(cls, skeleton: PreTrainedModel, dtype: str = "auto") -> Shape:
        """Measure a model on any device.

        Raises:
            InputError: for an architecture without a single value matrix per block.
        """
        config, names = skeleton.config.get_text_config(), HookNames(skeleton.config)
        values = skeleton.get_parameter(names.value_parameter(0)[0]).numel()
        unembedding = skeleton.get_output_embeddings()
        matrices = [m for m in skeleton.modules() if isinstance(m, nn.Linear | Conv1D) and m is not unembedding]
        heads = config.num_attention_heads
        head = getattr(config, "head_dim", None) or config.hidden_size // heads
        own = getattr(config, "dtype", None)
        return cls(
            parameters=sum(parameter.numel() for parameter in skeleton.parameters()),
            n_blocks=names.n_blocks,
            neurons=names.n_blocks * values // names.d_model,
            vocabulary=skeleton.get_input_embeddings().weight.shape[0],
            value_matrix=values,
            features=sum(sum(matrix.weight.shape) for matrix in matrices),
            key_values=2 * names.n_blocks * (getattr(config, "num_key_value_heads", None) or heads) * head,
            dtype=getattr(torch, dtype) if dtype != "auto" else own if isinstance(own, torch.dtype) else torch.float32,
        )

    @property
    def weights(self) -> int:
        """Bytes of the weights."""
        return self.parameters * self.dtype.itemsize


def published_skeleton(model: str) -> PreTrainedModel | None:
    """A model without weights of the published shape, None for a hub id that is not known here."""
    make = PUBLISHED.get(model)
    return None if make is None else HookNames(make(), model).skeleton
