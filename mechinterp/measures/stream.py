"""The whole residual stream: what each part of the model writes along a direction, and how that changed.

    write of the stream before the final norm = embedding + sum over blocks (attention + MLP [+ the MLP's norm])

The stream is the sum of what was added to it, so its projection on any direction is the sum of theirs: exactly, up to
the rounding of the model's own additions. The MLP's part of a change splits into erasure and bypass (`decomposition`);
an attention's does not, as its output has no one matrix of values to be exact about. Where an architecture (Gemma)
normalises the MLP's output before adding it, the difference that this makes is a part of its own, `mlp_norm`.

These are direct writes. That a block writes less may be the work of the blocks below it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.measures.decomposition import BlockDecomposition
from mechinterp.measures.statistics import percentile_ends, resample_weights

Key = tuple[str, int | None]
"""(component, block): ("embed", None), ("attention", 3), ("mlp", 3), ("mlp_norm", 3)."""


@dataclass(frozen=True)
class StreamPart:
    """One part's mean write along the unit direction in both checkpoints, in units of the residual stream.

    Attributes:
        write_base, write: means over inputs.
        group_change: their difference in each group of inputs, float64 [group].
        erasure, bypass, bias: of an MLP, they sum to the change; None of other parts.
    """

    write_base: float
    write: float
    group_change: Float[Tensor, " group"]
    erasure: float | None = None
    bypass: float | None = None
    bias: float | None = None

    @property
    def change(self) -> float:
        """Change of the mean write."""
        return self.write - self.write_base


def stream_parts(
    embed: tuple[Float[Tensor, " group"], Float[Tensor, " group"]],
    attention: list[tuple[Float[Tensor, " group"], Float[Tensor, " group"]]],
    mlp: list[BlockDecomposition],
    group_sizes: Float[Tensor, " group"],
    *,
    mlp_out: list[tuple[Float[Tensor, " group"], Float[Tensor, " group"]]] | None = None,
) -> dict[Key, StreamPart]:
    """All parts of the stream along one direction, base against tuned; their writes sum to the stream's.

    Args:
        embed: write of the embedding in each group of inputs, base and tuned.
        attention: of every block's attention.
        mlp: the decomposition of every block's MLP.
        group_sizes: inputs in each group.
        mlp_out: what every block's MLP adds to the stream, where that is not its own output (a norm after it).
    """
    weights = group_sizes.double() / group_sizes.sum()

    def part(base: Tensor, tuned: Tensor) -> StreamPart:
        return StreamPart(float(weights @ base.double()), float(weights @ tuned.double()), (tuned - base).double())

    parts: dict[Key, StreamPart] = {("embed", None): part(*embed)}
    for block, found in enumerate(mlp):
        parts["attention", block] = part(*attention[block])
        change = found.group_erasure + found.group_bypass + found.bias
        terms = float(found.erasure.sum()), float(found.bypass.sum()), found.bias
        parts["mlp", block] = StreamPart(found.write_base, found.write, change, *terms)
        if mlp_out is not None:
            added = part(*mlp_out[block])
            parts["mlp_norm", block] = StreamPart(
                added.write_base - found.write_base, added.write - found.write, added.group_change - change
            )
    return parts


def change_intervals(
    parts: Mapping[Key, StreamPart], group_sizes: Float[Tensor, " group"], *, seed: int
) -> dict[Key, tuple[float, float]]:
    """95% percentile intervals of every part's change; the same groups of inputs are drawn for all of them."""
    changes = torch.stack([part.group_change for part in parts.values()], dim=1)
    weights = resample_weights(len(group_sizes), resamples=2000, seed=seed, sizes=group_sizes)
    return {key: (low, high) for key, low, high in zip(parts, *percentile_ends(weights @ changes), strict=True)}


@dataclass(frozen=True)
class StreamShift:
    """How far the mean residual stream after each block moved.

    Attributes:
        shift: ||m'_l - m_l||, m the mean over inputs, float64 [block].
        relative: over ||m_l||, float64 [block].
        vectors: m'_l - m_l, float64 [block, d_model].
    """

    shift: Float[Tensor, " block"]
    relative: Float[Tensor, " block"]
    vectors: Float[Tensor, "block d_model"]

    @classmethod
    def of(cls, base: Float[Tensor, "block d_model"], tuned: Float[Tensor, "block d_model"]) -> StreamShift:
        """Of the means of two checkpoints."""
        moved = tuned.double() - base.double()
        lengths = moved.norm(dim=1)
        return cls(lengths, lengths / base.double().norm(dim=1), moved)

    def cosines(self, direction: Float[Tensor, " d_model"]) -> Float[Tensor, " block"]:
        """Cosine of every block's shift with a direction; nan where nothing moved, as it then points nowhere."""
        direction = direction.double()
        return self.vectors @ direction / (self.shift * direction.norm())
