"""How tuning shifts the residual stream on prompts that show a behaviour, beyond how it shifts it on harmless ones.

    delta_l = mean over unsafe prompts of (T - B)_l - mean over harmless prompts of (T - B)_l

at the last prompt token, after every block l. Where T and B are swapped at random for each prompt, what both do alike
is gone, and so is what T does otherwise: a direction of the same make that stands for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.data.conversations import Prompt
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.names import resid_post
from mechinterp.models.passes.recording import record

_GROUPS = 128  # of prompts; memory does not grow with them beyond that


@dataclass(frozen=True)
class Streams:
    """The residual stream after every block at the last prompt token, as means over groups of prompts.

    Attributes:
        means: float32; with no more prompts than groups each prompt is a group.
        sizes: prompts in each group.
    """

    means: Float[Tensor, "block group d_model"]
    sizes: Float[Tensor, " group"]

    @classmethod
    def of(cls, checkpoint: Checkpoint, prompts: Sequence[Prompt], *, truncate: bool = False) -> Streams:
        """Record some prompts."""
        hooks = [resid_post(block) for block in range(checkpoint.n_blocks)]
        found = record(checkpoint, prompts, hooks, groups=_GROUPS, truncate=truncate)
        return cls(torch.stack([found.groups[hook].float() for hook in hooks]), found.group_sizes.float())

    def mean(self, signs: Float[Tensor, " group"] | None = None) -> Float[Tensor, "block d_model"]:
        """Mean over the prompts, each group with a sign."""
        weights = self.sizes if signs is None else self.sizes * signs
        return torch.einsum("bgd,g->bd", self.means, weights) / self.sizes.sum()

    def minus(self, other: Streams) -> Streams:
        """The difference on the same prompts."""
        return Streams(self.means - other.means, self.sizes)


@dataclass(frozen=True)
class Shifts:
    """What tuning does to the stream.

    Attributes:
        unsafe, harmless: T - B on prompts of both kinds.
        base_unsafe, base_harmless: the base's own streams there.
    """

    unsafe: Streams
    harmless: Streams
    base_unsafe: Streams
    base_harmless: Streams

    @classmethod
    def of(
        cls,
        base: Checkpoint,
        tuned: Checkpoint,
        unsafe: Sequence[Prompt],
        harmless: Sequence[Prompt],
        *,
        truncate: bool = False,
    ) -> Shifts:
        """Read both models on both kinds of prompts."""
        own = [Streams.of(base, prompts, truncate=truncate) for prompts in (unsafe, harmless)]
        if tuned.model is base.model:
            return cls(own[0].minus(own[0]), own[1].minus(own[1]), *own)
        there = [Streams.of(tuned, prompts, truncate=truncate) for prompts in (unsafe, harmless)]
        return cls(there[0].minus(own[0]), there[1].minus(own[1]), *own)

    @property
    def difference(self) -> Float[Tensor, "block d_model"]:
        """delta_l after every block."""
        return self.unsafe.mean() - self.harmless.mean()

    @property
    def refusal(self) -> Float[Tensor, "block d_model"]:
        """What tells unsafe from harmless prompts in the base: its refusal direction (Arditi et al. 2024)."""
        return self.base_unsafe.mean() - self.base_harmless.mean()

    def swapped(self, seed: int) -> Float[Tensor, "block d_model"]:
        """delta_l with T and B swapped for half of the prompts, a random choice of each."""
        generator = torch.Generator().manual_seed(seed)
        signs = [
            2.0 * torch.randint(2, (len(one.sizes),), generator=generator) - 1 for one in (self.unsafe, self.harmless)
        ]
        return self.unsafe.mean(signs[0]) - self.harmless.mean(signs[1])
