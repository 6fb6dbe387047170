"""What the benchmarks run on: Mistral-shaped models with random weights, and prompts of exact lengths.

Random weights take the time of trained ones. The tokenizer splits at blanks and knows one token per word, so a prompt
of n words has n tokens; it has no BOS, so every side of a benchmark feeds the same tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, MistralConfig, PreTrainedTokenizerFast

from mechinterp.models.checkpoints import Checkpoint

EOS, PAD = "</s>", "<pad>"


@dataclass(frozen=True)
class Shape:
    """Sizes of a Mistral-shaped model, under the names of its config."""

    num_hidden_layers: int
    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int = 32_000
    max_position_embeddings: int = 1024

    def __str__(self) -> str:
        return (
            f"Mistral, {self.num_hidden_layers} blocks, d_model {self.hidden_size}, d_mlp {self.intermediate_size}, "
            f"{self.num_attention_heads} heads ({self.num_key_value_heads} for keys and values), "
            f"vocabulary {self.vocab_size}"
        )

    def partial_flops(self, block: int, lengths: Sequence[int]) -> int:
        """Floating-point operations of a forward pass up to what flows into the second MLP matrix of a block.

        Two per matrix parameter used and token, and causal attention (queries times keys, weights times values) over
        the pairs of positions that see each other. Only the prompts' own tokens count, not padding; embeddings, norms,
        softmax and activations are left out.
        """
        head = self.hidden_size // self.num_attention_heads
        attention = 2 * self.hidden_size * head * (self.num_attention_heads + self.num_key_value_heads)
        matrix = self.hidden_size * self.intermediate_size
        used = (block + 1) * (attention + 2 * matrix) + block * matrix
        pairs = sum(length * (length + 1) // 2 for length in lengths)
        return 2 * used * sum(lengths) + 4 * self.hidden_size * pairs * (block + 1)


TWELVE_BLOCKS = Shape(12, 768, 2688, 12, 4)
SEVEN_BILLION = Shape(32, 4096, 14336, 32, 8)
TINY = Shape(3, 32, 64, 4, 2, vocab_size=128, max_position_embeddings=64)


def random_checkpoint(shape: Shape, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Checkpoint:
    """A model with random weights and its tokenizer, made on the device it stays on."""
    torch.manual_seed(0)
    config = MistralConfig(**asdict(shape), sliding_window=None, bos_token_id=None, eos_token_id=0, pad_token_id=1)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    vocabulary = {word: i for i, word in enumerate([EOS, PAD, *(f"w{i}" for i in range(2, shape.vocab_size))])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token=EOS))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token=EOS, pad_token=PAD, unk_token=EOS)
    return Checkpoint("random", model, tokenizer, "random weights")


def random_prompts(shape: Shape, lengths: Sequence[int], *, seed: int = 0) -> list[str]:
    """A prompt of random words for every length."""
    generator = np.random.default_rng(seed)
    return [" ".join(f"w{i}" for i in generator.integers(2, shape.vocab_size, length)) for length in lengths]


def uniform_lengths(n: int, shortest: int, longest: int, *, seed: int = 0) -> list[int]:
    """Evenly spread lengths from shortest to longest in random order.

    Every hundred prompts has the same lengths, so the same work, in an order of its own.
    """
    generator = np.random.default_rng(seed)
    lengths: list[int] = []
    while len(lengths) < n:
        spread = np.linspace(shortest, longest, min(100, n - len(lengths))).round().astype(int)
        lengths += generator.permutation(spread).tolist()
    return lengths


def long_tailed_lengths(n: int, *, longest: int, sigma: float = 0.7, seed: int = 0) -> list[int]:
    """Log-normal lengths around a quarter of the longest, clipped to it: most a few hundred tokens of 1,024, few many.

    The shape of attack prompts wrapped around short questions. SafeEdit's own texts are gated, and no statistic of
    their lengths is known to us: this is a stand-in, not a fit.
    """
    generator = np.random.default_rng(seed)
    return generator.lognormal(np.log(longest / 4), sigma, n).clip(16, longest).round().astype(int).tolist()
