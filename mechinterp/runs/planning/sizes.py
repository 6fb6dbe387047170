"""How large a study's model is, and how many texts it has of which length: what its costs are reckoned from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from mechinterp.data.pairs import knowledge_of
from mechinterp.methods.work import Texts
from mechinterp.models.names import HookNames
from mechinterp.runs.config import StudyConfig
from mechinterp.runs.planning.materials import Materials

SAMPLE = 64
"""Texts of each kind that are tokenised to learn how long they are."""

CHARACTERS_PER_TOKEN = 3
"""Where there is no tokenizer yet. English has about four with the tokenizers of these models: an upper bound."""

PUBLISHED_SIZES = {"train": 4050, "validation": 2700, "test": 1350, "comments": 159571}
"""SafeEdit's and Jigsaw's, for files that are not there yet."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a model.

    Attributes:
        parameters: all of them, tied ones once.
        multiplied: those that every token is multiplied with; an embedding only looks its row up.
        n_blocks, d_mlp, vocabulary, residual: blocks, value vectors of a block, tokens, width of the stream.
        value_matrix: elements of one block's W_V.
        adapted_features: numbers into and out of all matrices that LoRA adapts: times the rank, its parameters.
        key_values: numbers kept per token while generating.
        dtype: of the weights.
    """

    parameters: int
    multiplied: int
    n_blocks: int
    d_mlp: int
    vocabulary: int
    residual: int
    value_matrix: int
    adapted_features: int
    key_values: int
    dtype: torch.dtype

    @classmethod
    def of(cls, skeleton: PreTrainedModel, dtype: str = "auto") -> Shape:
        """Measure a model on any device, whose weights are not read.

        Raises:
            InputError: for an architecture without a single value matrix per block.
        """
        config, names = skeleton.config.get_text_config(), HookNames(skeleton.config)
        values = skeleton.get_parameter(names.value_parameter(0)[0])
        unembedding, embedding = skeleton.get_output_embeddings(), skeleton.get_input_embeddings()
        matrices = [m for m in skeleton.modules() if isinstance(m, nn.Linear | Conv1D) and m is not unembedding]
        parameters = sum(parameter.numel() for parameter in skeleton.parameters())
        tied = unembedding is not None and unembedding.weight is embedding.weight
        heads = config.num_attention_heads
        head = getattr(config, "head_dim", None) or config.hidden_size // heads
        own = getattr(config, "dtype", None)
        own = own if isinstance(own, torch.dtype) else torch.float32
        return cls(
            parameters=parameters,
            multiplied=parameters - (0 if tied else embedding.weight.numel()),
            n_blocks=names.n_blocks,
            d_mlp=values.numel() // names.d_model,
            vocabulary=embedding.weight.shape[0],
            residual=names.d_model,
            value_matrix=values.numel(),
            adapted_features=sum(sum(matrix.weight.shape) for matrix in matrices),
            key_values=2 * names.n_blocks * (getattr(config, "num_key_value_heads", None) or heads) * head,
            dtype=own if dtype == "auto" else getattr(torch, dtype),
        )

    @property
    def neurons(self) -> int:
        """Of all blocks."""
        return self.n_blocks * self.d_mlp

    @property
    def weights(self) -> int:
        """Bytes of the weights."""
        return self.parameters * self.dtype.itemsize


@dataclass(frozen=True)
class Amounts:
    """How many texts of each kind a study has; how long they are is in `texts`.

    Attributes:
        told: how the lengths were learnt, and what they are, in words.
    """

    texts: Texts
    told: str
    n_validation: int
    n_test: int
    n_questions: int
    n_comments: int
    n_knowledge: int
    comment: float

    @classmethod
    def of(cls, materials: Materials, config: StudyConfig) -> Amounts:
        """Count what is there and tokenise a sample of it; SafeEdit's published sizes stand for what is missing."""
        sizes = {name: len(getattr(materials, name)) or size for name, size in PUBLISHED_SIZES.items()}
        some = _sample(materials.test or materials.validation or materials.train)
        texts = {
            "prompt": [instance.prompt for instance in some],
            "safe": [instance.safe for instance in some],
            "unsafe": [instance.unsafe for instance in some],
            "constraint": [f"{pair.prompt} {pair.answer}" for pair in map(knowledge_of, some) if pair is not None],
        }
        written = config.dinm.max_output_tokens
        longest = {"prompt": config.dinm.max_input_tokens, "safe": written, "unsafe": written, "constraint": 64}
        lengths = {kind: _mean_length(texts[kind], materials) or float(longest[kind]) for kind in longest}
        comment = _mean_length([one.text for one in _sample(materials.comments)], materials) or 128.0
        known = "a sample" if materials.tokenizer is not None else f"{CHARACTERS_PER_TOKEN} characters to a token"
        if not some:
            known = "the longest that the settings allow, as there are no instances"
        guessed = ", ".join(name for name in PUBLISHED_SIZES if not getattr(materials, name))
        told = (
            f"tokens by {known}: prompt {lengths['prompt']:.0f}, safe response {lengths['safe']:.0f}, unsafe "
            f"{lengths['unsafe']:.0f}, comment {comment:.0f}"
        )
        most = config.data.max_comments if config.data is not None else None
        return cls(
            Texts(n_training=sizes["train"], n_instances=min(config.edit_instances, sizes["test"]), **lengths),
            f"{told}; published sizes stand for {guessed}" if guessed else told,
            n_validation=sizes["validation"],
            n_test=sizes["test"],
            n_questions=len({instance.question for instance in materials.test}) or sizes["test"],
            n_comments=min(sizes["comments"], most or sizes["comments"]),
            n_knowledge=materials.knowledge,
            comment=comment,
        )


def _sample(items: Sequence) -> Sequence:
    """Some of them, evenly spread."""
    return items[:: max(1, len(items) // SAMPLE)]


def _mean_length(texts: Sequence[str], materials: Materials) -> float:
    """Mean number of tokens, 0 of no texts."""
    if not texts:
        return 0.0
    if materials.tokenizer is None:
        return sum(map(len, texts)) / len(texts) / CHARACTERS_PER_TOKEN
    return sum(map(len, materials.tokenizer(list(texts), verbose=False)["input_ids"])) / len(texts)
