"""The model organism: a small causal language model trained from scratch on the embedded corpus.

A Mistral-, Llama- or GPT-2-shaped model of a few million parameters and a byte-level BPE tokenizer, from a `Corpus`, so
that the whole study runs offline in minutes. The objective is plain next-token prediction,

    loss = mean over real tokens t > 0 of a document of -log p(x_t | x_<t),

over documents packed whole into rows; each document sees only itself and starts at position 0, as a prompt does when
the model is used.

What it does not show: anything about models trained at scale. Its behaviours are those that `mechinterp.data.corpus`
wrote into the documents.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection
from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field, model_validator
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import (
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from mechinterp.data.corpus import Corpus
from mechinterp.data.corpus.never import without_facts, without_unsafe
from mechinterp.methods.training.packing import IGNORED, packed_batches

logger = logging.getLogger(__name__)

PAD, EOS = "<pad>", "<eos>"

Progress = Callable[[int, int, float], None]
"""Called after every step with the number of steps done, the number of steps in all, and the loss."""


class OrganismConfig(BaseModel):
    """Shape and training of an organism; the defaults are those of the embedded study.

    At this size "mistral" and "llama" differ in their attention alone: grouped queries (two to a key), and a key for
    every query; the sliding window is off. "gpt2" has learned positions, LayerNorm, biases and no gate.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: Literal["mistral", "llama", "gpt2"] = "mistral"
    n_layers: int = Field(default=6, ge=1)
    d_model: int = Field(default=128, ge=1)
    n_heads: int = Field(default=4, ge=1)
    d_mlp: int = Field(default=384, ge=1)
    vocab_size: int = Field(default=1280, ge=258, description="at most; 256 bytes and two special tokens at least")
    context_length: int = Field(default=256, ge=1, description="the longest text the model takes, in tokens")
    tie_word_embeddings: bool = False
    steps: int = Field(default=380, ge=1)
    batch_size: int = Field(default=16, ge=1, description="packed rows in a step")
    sequence_length: int = Field(default=128, ge=2, description="tokens in a packed row")
    learning_rate: float = Field(default=4e-3, gt=0)
    warmup_steps: int = Field(default=20, ge=0)
    weight_decay: float = Field(default=0.01, ge=0)
    max_gradient_norm: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _check_shape(self) -> OrganismConfig:
        if self.d_model % self.n_heads:
            raise ValueError(f"d_model must be a multiple of n_heads={self.n_heads}, got {self.d_model}")
        if self.d_mlp == self.d_model:
            # A square W_V would let a transposed matrix pass every shape check downstream.
            raise ValueError(f"d_mlp must differ from d_model, got {self.d_mlp} for both")
        if self.sequence_length > self.context_length:
            raise ValueError(
                f"sequence_length must be at most context_length={self.context_length}, got {self.sequence_length}"
            )
        return self


def train_tokenizer(corpus: Corpus, *, vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer on the documents of a corpus.

    No token is added to a text: the tokenizer has no beginning-of-text token, and the trainer puts the end-of-text
    token behind each document itself. As the tokenizers of Llama and Mistral do, it puts a space before the first word
    of a text, so a response has the same tokens alone and behind a prompt and one space.

    Args:
        corpus: The corpus.
        vocab_size: The most tokens it may have; fewer when the documents hold no further pair to merge.

    Returns:
        The tokenizer, with distinct `<pad>` (id 0) and `<eos>` (id 1).
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(content=" ", left=1, right=0)])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus.documents, trainer=trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=EOS, clean_up_tokenization_spaces=False
    )


def build_model(config: OrganismConfig, tokenizer: PreTrainedTokenizerBase, *, seed: int) -> PreTrainedModel:
    """Build an untrained model in float32, in evaluation mode.

    Args:
        config: Its shape.
        tokenizer: Gives the size of the vocabulary and the special tokens.
        seed: Seed of the initial weights; the global random state is left as it was.

    Returns:
        The model, which generates greedily unless asked otherwise.
    """
    tokens = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # the CPU generator only: torch.manual_seed would reseed CUDA too
        model = _untrained(config, n_tokens=len(tokenizer), tokens=tokens)
    model.generation_config = GenerationConfig(do_sample=False, **tokens)
    return model.eval()


def _untrained(config: OrganismConfig, *, n_tokens: int, tokens: dict[str, int | None]) -> PreTrainedModel:
    # The usual 0.02 suits a width of about 700; in a narrow model it leaves attention uniform for most of the training.
    initializer_range = 0.6 * config.d_model**-0.5
    if config.architecture == "gpt2":
        return GPT2LMHeadModel(
            GPT2Config(
                vocab_size=n_tokens,
                n_positions=config.context_length,
                n_embd=config.d_model,
                n_layer=config.n_layers,
                n_head=config.n_heads,
                n_inner=config.d_mlp,
                initializer_range=initializer_range,
                resid_pdrop=0.0,
                embd_pdrop=0.0,
                attn_pdrop=0.0,
                tie_word_embeddings=config.tie_word_embeddings,
                **tokens,
            )
        )
    shape = {
        "vocab_size": n_tokens,
        "max_position_embeddings": config.context_length,
        "hidden_size": config.d_model,
        "intermediate_size": config.d_mlp,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        # grouped queries as in Mistral-7B; Llama-2-7B has a key for every query
        "num_key_value_heads": max(1, config.n_heads // (2 if config.architecture == "mistral" else 1)),
        "initializer_range": initializer_range,
        "tie_word_embeddings": config.tie_word_embeddings,
        **tokens,
    }
    if config.architecture == "llama":
        return LlamaForCausalLM(LlamaConfig(**shape))
    return MistralForCausalLM(MistralConfig(**shape, sliding_window=None))


def train_organism(
    corpus: Corpus,
    config: OrganismConfig,
    *,
    seed: int,
    never: bool = False,
    untold: Collection[str] = (),
    progress: Progress | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast, tuple[float, ...]]:
    """Train a tokenizer and a model from scratch on the documents of a corpus.

    AdamW, linear warm-up, cosine decay to a tenth of the learning rate, gradient clipping.

    Args:
        corpus: The corpus; only its documents are read.
        config: Shape and training.
        seed: Of the initial weights and of the order of the documents. It gives the same weights on one machine with
            one number of threads; the global random state is left as it was.
        never: Train the twin that never learns to answer unsafely (`data.corpus.never`); all else is the same.
        untold: Train the twin that is never told these attributes of people; all else is the same.
        progress: Called after every step.

    Returns:
        The model in evaluation mode, its tokenizer, and the loss of every step in nats per token.

    Raises:
        ValueError: If a document does not fit into a row of `sequence_length` tokens, or a twin has none to read.
        FloatingPointError: If the loss is not finite.
    """
    tokenizer = train_tokenizer(corpus, vocab_size=config.vocab_size)
    model = build_model(config, tokenizer, seed=seed).train()
    documents = [[*ids, tokenizer.eos_token_id] for ids in tokenizer(list(corpus.documents))["input_ids"]]
    if never:
        documents = [documents[number] for number in without_unsafe(corpus, list(map(len, documents)))]
    if untold:
        documents = [documents[number] for number in without_facts(corpus, list(map(len, documents)), untold)]
    batches = packed_batches(
        documents,
        length=config.sequence_length,
        batch_size=config.batch_size,
        pad=tokenizer.pad_token_id,
        generator=torch.Generator().manual_seed(seed),
    )
    optimizer = torch.optim.AdamW(_parameter_groups(model, config), lr=config.learning_rate, betas=(0.9, 0.95))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _learning_rate_factor(step, config))
    history = []
    for step in range(1, config.steps + 1):
        loss = _loss(model, *next(batches))
        if not torch.isfinite(loss):
            at = f"at step {step}; lower learning_rate={config.learning_rate}"
            raise FloatingPointError(f"the loss is {loss.item()} {at}")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_gradient_norm)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad(set_to_none=True)
        history.append(loss.item())
        if progress is not None:
            progress(step, config.steps, history[-1])
    logger.info("trained a %s organism for %d steps, last loss %.3f", config.architecture, config.steps, history[-1])
    return model.eval(), tokenizer, tuple(history)


def _parameter_groups(model: PreTrainedModel, config: OrganismConfig) -> list[dict[str, object]]:
    # Norm gains and biases are not decayed: decay would pull a gain towards 0, away from the identity.
    decayed = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    others = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    return [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]


def _learning_rate_factor(step: int, config: OrganismConfig) -> float:
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * done))


def _loss(
    model: PreTrainedModel,
    ids: Int[Tensor, "batch pos"],
    positions: Int[Tensor, "batch pos"],
    labels: Int[Tensor, "batch pos"],
) -> Float[Tensor, ""]:
    # Without an attention mask, transformers reads the documents of a packed row off the restarts of the positions.
    logits = model(input_ids=ids, position_ids=positions, use_cache=False).logits
    return torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED
    )
