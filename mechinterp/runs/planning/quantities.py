"""How large a model is and how long its texts are: what the costs of a study are reckoned from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

from mechinterp.data.safeedit import SafeEditInstance
from mechinterp.models.names import HookNames
from mechinterp.runs.config import StudyConfig
from mechinterp.runs.planning.materials import Materials

SAMPLE = 64
"""Texts of each kind that are tokenised to learn how long they are."""

CHARACTERS_PER_TOKEN = 3
"""Where there is no tokenizer yet. English has about four with the tokenizers of these models: an upper bound."""

DIRECTIONS, PLACES = 3, 2
"""Directions that are tried, and places that are measured, whatever the settings (`directions`, `evidence`)."""

PUBLISHED_SIZES = {"train": 4050, "validation": 2700, "test": 1350, "comments": 159571}
"""SafeEdit's and Jigsaw's, for files that are not there yet."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a model, from its skeleton.

    Attributes:
        parameters: all of them, tied ones once.
        multiplied: those that every token is multiplied with; an embedding only looks its row up.
        n_blocks: number of blocks.
        value_matrix: elements of one block's W_V.
        d_mlp: value vectors in it.
        vocabulary: tokens.
        block_features: numbers that go into and come out of the matrices of a block, per token.
        adapted_features: the same over all matrices that LoRA adapts: times the rank, its parameters.
        residual: width of the residual stream.
        key_values: numbers kept per token while generating.
        dtype: of the weights.
    """

    parameters: int
    multiplied: int
    n_blocks: int
    value_matrix: int
    d_mlp: int
    vocabulary: int
    block_features: int
    adapted_features: int
    residual: int
    key_values: int
    dtype: torch.dtype

    @classmethod
    def of(cls, skeleton: PreTrainedModel, dtype: str = "auto") -> Shape:
        """Measure a skeleton.

        Args:
            skeleton: a model on any device; its weights are not read.
            dtype: of the study; `auto` is that of the config, else float32.

        Raises:
            InputError: for an architecture without a single value matrix per block.
        """
        config = skeleton.config.get_text_config()
        names = HookNames(skeleton.config)
        values = skeleton.get_parameter(names.value_parameter(0)[0])
        unembedding, embedding = skeleton.get_output_embeddings(), skeleton.get_input_embeddings()
        matrices = [m for m in skeleton.modules() if isinstance(m, nn.Linear | Conv1D) and m is not unembedding]
        features = sum(sum(matrix.weight.shape) for matrix in matrices)
        parameters = sum(parameter.numel() for parameter in skeleton.parameters())
        tied = unembedding is not None and unembedding.weight is embedding.weight
        heads = config.num_attention_heads
        head = getattr(config, "head_dim", None) or config.hidden_size // heads
        kept = getattr(config, "num_key_value_heads", None) or heads
        own = getattr(config, "dtype", None)
        own = own if isinstance(own, torch.dtype) else torch.float32
        return cls(
            parameters=parameters,
            multiplied=parameters - (0 if tied else embedding.weight.numel()),
            n_blocks=names.n_blocks,
            value_matrix=values.numel(),
            d_mlp=values.numel() // names.d_model,
            vocabulary=embedding.weight.shape[0],
            block_features=features // names.n_blocks,
            adapted_features=features,
            residual=names.d_model,
            key_values=2 * names.n_blocks * kept * head,
            dtype=own if dtype == "auto" else getattr(torch, dtype),
        )

    @property
    def weights(self) -> int:
        """Bytes of the weights."""
        return self.parameters * self.dtype.itemsize


@dataclass(frozen=True)
class Amounts:
    """How many texts of each kind there are, and how many tokens each has on average.

    Attributes:
        known_by: how the lengths were learnt, in words.
        guessed: files that are not there, whose sizes are those published.
        n_train, n_validation, n_test: instances.
        n_questions: distinct questions of the test instances.
        n_comments: comments the probe is trained on.
        n_edits: test instances that are edited.
        n_steered: prompts on which steering is tried.
        n_asked: prompts and knowledge questions that a method is evaluated on.
        n_knowledge: knowledge questions.
        prompt: tokens of an adversarial prompt.
        question: of a bare question.
        safe, unsafe: of a response.
        constraint: of a general-knowledge pair.
        comment: of a comment.
    """

    known_by: str
    guessed: tuple[str, ...]
    n_train: int
    n_validation: int
    n_test: int
    n_questions: int
    n_comments: int
    n_edits: int
    n_steered: int
    n_asked: int
    n_knowledge: int
    prompt: float
    question: float
    safe: float
    unsafe: float
    constraint: float
    comment: float

    @classmethod
    def of(cls, materials: Materials, config: StudyConfig) -> Amounts:
        """Count what is there and tokenise a sample of it; SafeEdit's published sizes stand for what is missing."""
        sizes = {name: len(getattr(materials, name)) or size for name, size in PUBLISHED_SIZES.items()}
        n_edits = min(config.edit_instances, sizes["test"])
        most = config.data.max_comments if config.data is not None else None
        tokenizer = materials.tokenizer
        counted = "a sample" if tokenizer is not None else f"{CHARACTERS_PER_TOKEN} characters to a token"
        instances = materials.test or materials.validation or materials.train
        texts = _texts(instances)
        if not instances:
            counted = "the longest that the settings allow, as there are no instances"
        longest = {
            "prompt": config.dinm.max_input_tokens,
            "question": 64,
            "safe": config.dinm.max_output_tokens,
            "unsafe": config.dinm.max_output_tokens,
            "constraint": 64,
        }
        lengths = {kind: _mean_length(texts[kind], tokenizer) or float(longest[kind]) for kind in longest}
        return cls(
            known_by=counted,
            guessed=tuple(name for name in PUBLISHED_SIZES if not getattr(materials, name)),
            n_train=sizes["train"],
            n_validation=sizes["validation"],
            n_test=sizes["test"],
            n_questions=len({instance.question for instance in materials.test}) or sizes["test"],
            n_comments=min(sizes["comments"], most or sizes["comments"]),
            n_edits=n_edits,
            n_steered=min(config.comparison.steering_inputs, sizes["test"]),
            n_asked=5 * n_edits + min(config.knowledge_questions, materials.knowledge),
            n_knowledge=materials.knowledge,
            comment=_mean_length([comment.text for comment in materials.comments], tokenizer) or 128.0,
            **lengths,
        )


def _texts(instances: Sequence[SafeEditInstance]) -> dict[str, list[str]]:
    some = _sample(instances)
    return {
        "prompt": [instance.adversarial_prompt for instance in some],
        "question": [instance.question for instance in some],
        "safe": [instance.safe_generation for instance in some],
        "unsafe": [instance.unsafe_generation for instance in some],
        "constraint": [f"{i.knowledge_constraint.prompt} {i.knowledge_constraint.answer}" for i in some],
    }


def _sample(items: Sequence) -> list:
    """Some of them, evenly spread."""
    return list(islice(items, 0, None, max(1, len(items) // SAMPLE)))


def _mean_length(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase | None) -> float:
    """Mean number of tokens, 0 of no texts."""
    texts = _sample(texts)
    if not texts:
        return 0.0
    if tokenizer is None:
        return _mean(len(text) / CHARACTERS_PER_TOKEN for text in texts)
    return _mean(len(ids) for ids in tokenizer(texts, verbose=False)["input_ids"])


def _mean(values: Iterable[float]) -> float:
    every = list(values)
    return sum(every) / len(every)
