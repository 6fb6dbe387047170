"""Massive activations, and what they make of a distance.

At a few positions, the first token above all (the attention sink), a dimension or two of the residual stream grow to
thousands of times what is usual. Sun et al. 2024, "Massive Activations in Large Language Models" (arXiv 2402.17762,
section 2), call an activation massive if

    |h_pd| > 100    and    |h_pd| is at least (or around) 1,000 times the median of |h| over positions and dimensions

A position that holds one is a *sink* here. Squared norms and distances of streams are then nearly this one number
squared: where they are largest is where it is, whatever the texts say. The share that a part makes of a distance
D = ||v|| is

    share = <v, v_part> / ||v||^2

which adds up to 1 over the parts. It is the part's share of the sum of squares where v stands over positions, and of a
difference of means it is what the part adds along that difference: there parts may work against each other, so that a
share can lie outside [0, 1].

A large share does not show that the model uses the sink for what the texts differ in, only that the number tells of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

MAGNITUDE = 100.0
OVER_MEDIAN = 1000.0
MOST = 0.5
"""A distance is the sinks' if they make more than this share of its square."""


def sinks(
    states: Float[Tensor, "text pos d_model"],
    mask: Bool[Tensor, "text pos"],
    looked: Bool[Tensor, "text pos"] | None = None,
) -> Bool[Tensor, "text pos"]:
    """The positions that hold a massive activation.

    Args:
        states: residual stream of some texts, padded to one length.
        mask: True at tokens; the median is of these.
        looked: the positions at which sinks are looked for, if not at the tokens alone.
    """
    largest = torch.linalg.vector_norm(states, ord=torch.inf, dim=-1).float()
    found = (largest > MAGNITUDE) & (mask if looked is None else looked)
    for row in found.any(1).nonzero().flatten().tolist():  # the median costs more than the maximum, and is rarely asked
        median = states[row][mask[row]].abs().float().median()
        found[row] &= largest[row] >= OVER_MEDIAN * median
    return found


@dataclass(frozen=True)
class Shares:
    """What one entry and all sinks make of the squares of some distances, after some blocks, of some pairs.

    Attributes:
        entry: the largest share of one dimension at one position; of a distance of means, of one dimension.
        position: where it stands; of a distance of means, where that dimension's means have most from.
        dimension: which it is.
        unsafe: whether the unsafe response has the larger activation there.
        sinks: the share of all sinks.
    """

    entry: Float[Tensor, "distance *block pair"]
    position: Int[Tensor, "distance *block pair"]
    dimension: Int[Tensor, "distance *block pair"]
    unsafe: Bool[Tensor, "distance *block pair"]
    sinks: Float[Tensor, "distance *block pair"]

    @classmethod
    def joined(cls, parts: Sequence[Shares], join: Callable[[list[Tensor]], Tensor]) -> Shares:
        """Some shares as one, on the host: `torch.cat` along the distances, or stacked along an axis of their own."""
        return cls(*(join([getattr(part, field.name).cpu() for part in parts]) for field in fields(cls)))

    @classmethod
    def over_positions(
        cls,
        safe: Float[Tensor, "pair pos d_model"],
        unsafe: Float[Tensor, "pair pos d_model"],
        positions: Bool[Tensor, "pair pos"],
        sink: Bool[Tensor, "pair pos"],
    ) -> Shares:
        """Of the distance over some positions, at each of which the two stand against each other.

        Args:
            safe, unsafe: residual streams of the two responses of every pair.
            positions: those that the distance is over.
            sink: those of which either holds a massive activation.
        """
        difference = torch.where(positions[..., None], safe - unsafe, 0)
        squares = difference.square().sum(-1)
        total = squares.sum(1)
        largest, place = difference.flatten(1).abs().max(1)
        position, dimension = place // safe.shape[-1], place % safe.shape[-1]
        rows = torch.arange(len(safe), device=safe.device)
        of_safe, of_unsafe = (side[rows, position, dimension].abs() for side in (safe, unsafe))
        of_sinks = (squares * sink).sum(1)
        return cls._of(largest.square(), position, dimension, of_safe, of_unsafe, of_sinks, total)

    @classmethod
    def of_means(
        cls,
        safe: Float[Tensor, "pair pos d_model"],
        unsafe: Float[Tensor, "pair pos d_model"],
        masks: tuple[Bool[Tensor, "pair pos"], Bool[Tensor, "pair pos"]],
        sink: tuple[Bool[Tensor, "pair pos"], Bool[Tensor, "pair pos"]],
    ) -> Shares:
        """Of the distance of the two means over tokens.

        Args:
            safe, unsafe: residual streams of the two responses of every pair.
            masks: the tokens of each.
            sink: those that hold a massive activation, of each.
        """
        states = tuple(
            torch.where(mask[..., None], side, 0) / mask.sum(1).clamp_min(1)[:, None, None]
            for side, mask in zip((safe, unsafe), masks, strict=True)
        )
        difference = states[0].sum(1) - states[1].sum(1)
        of_sinks = (states[0] * sink[0][..., None]).sum(1) - (states[1] * sink[1][..., None]).sum(1)
        largest, dimension = difference.abs().max(1)
        rows = torch.arange(len(safe), device=safe.device)
        (of_safe, in_safe), (of_unsafe, in_unsafe) = (side[rows, :, dimension].abs().max(1) for side in states)
        position = torch.where(of_unsafe > of_safe, in_unsafe, in_safe)
        along, total = (difference * of_sinks).sum(1), difference.square().sum(1)
        return cls._of(largest.square(), position, dimension, of_safe, of_unsafe, along, total)

    @classmethod
    def _of(
        cls,
        entry: Float[Tensor, " pair"],
        position: Int[Tensor, " pair"],
        dimension: Int[Tensor, " pair"],
        safe: Float[Tensor, " pair"],
        unsafe: Float[Tensor, " pair"],
        of_sinks: Float[Tensor, " pair"],
        total: Float[Tensor, " pair"],
    ) -> Shares:
        """Of one distance, from the parts of its square; a share of nothing is 0."""
        of_entry, of_sinks = (torch.where(total > 0, part / total, 0) for part in (entry, of_sinks))
        return cls(*(part[None] for part in (of_entry, position, dimension, unsafe > safe, of_sinks)))


def dimension_share(vectors: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows"]:
    """The share that one dimension makes of the squared length, in [1/d_model, 1]; 0 of a vector of zeros."""
    squares = vectors.double().square()
    total = squares.sum(-1)
    return torch.where(total > 0, squares.amax(-1) / total, 0)
