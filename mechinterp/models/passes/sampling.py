"""Answers drawn at random, each from a generator of its own.

It is seeded by the answer's prompt and number: neither the other prompts nor how they share batches changes an answer,
but for rounding in the model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import LogitsProcessor

from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.generation import continue_tokens
from mechinterp.models.text.tokens import Encoded


def sampled(
    target: Checkpoint,
    prompts: Sequence[Encoded],
    samples: int,
    *,
    temperature: float = 1.0,
    top: int | None = None,
    max_new_tokens: int,
    seed: int,
    max_batch: int = 128,
) -> list[list[Encoded]]:
    """Answers drawn to each prompt.

    Args:
        target: the model; left as it was.
        prompts: in tokens.
        samples: answers to each.
        temperature: what the logits are divided by.
        top: draw only from that many of the most probable tokens; from all of them if not given.
        max_new_tokens: longest answer.
        seed: of the draws.
        max_batch: answers that are drawn at once.
    """
    many = [prompt for prompt in prompts for _ in range(samples)]

    def choosing(numbers: Sequence[int]) -> LogitsProcessor:
        return _Drawn(
            torch.stack([_uniforms(many[i], i % samples, max_new_tokens, seed) for i in numbers]), temperature, top
        )

    found = continue_tokens(target, many, max_new_tokens=max_new_tokens, choosing=choosing, max_batch=max_batch)
    return [found[start : start + samples] for start in range(0, len(found), samples)]


def _uniforms(prompt: Encoded, number: int, n: int, seed: int) -> Float[Tensor, " token"]:
    """The random numbers of one answer, a number in [0, 1) for each token."""
    own = hashlib.blake2b(f"{seed}/{number}/".encode() + prompt.ids.tobytes(), digest_size=7).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(own, "big"))
    return torch.rand(n, dtype=torch.float64, generator=generator)


class _Drawn(LogitsProcessor):
    """Leaves of each row the one token that its random number falls on, in the distribution's cumulative sum."""

    def __init__(self, uniforms: Float[Tensor, "row token"], temperature: float, top: int | None) -> None:
        self.uniforms, self.temperature, self.top, self.step = uniforms, temperature, top, 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if self.top is not None and self.top < scores.shape[1]:
            least = scores.topk(self.top, dim=1).values[:, -1:]
            scores = scores.masked_fill(scores < least, -torch.inf)
        sums = (scores.double() / self.temperature).softmax(1).cumsum(1)
        wanted = self.uniforms[:, self.step, None].to(sums.device) * sums[:, -1:]
        self.step += 1
        token = torch.searchsorted(sums, wanted, right=True).clamp_max(sums.shape[1] - 1)
        return torch.full_like(scores, -torch.inf).scatter_(1, token, 0.0)
