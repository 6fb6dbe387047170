"""Erase or bypass: the exact decomposition of a change of the toxic write.

The toxic write of a block on input x is p(x) = h_down(x) . g + b, with g = W_V w_hat and b the output bias along w_hat.
Between two checkpoints the mean over inputs changes by, exactly,

    change = sum_j (a_j + a'_j)/2 (g'_j - g_j)      erasure: the parameters changed
           + sum_j (a'_j - a_j) (g_j + g'_j)/2      bypass: the information flowing in changed
           + (b' - b)                               the bias, a parameter too

a and a' are the mean activations, so the identity holds neuron by neuron and for the sums, for any direction w;
along a direction of each input's own it holds input by input (`prompt_sums`).

It says where a change of the write came from, not that the write matters for what the model says: a direction explains
a method only where it is in play (`comparison` reports that check). If only W_V of one block was trained, erasure there
is true by construction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.errors import InputError
from mechinterp.measures.intervals import Interval
from mechinterp.measures.statistics import bootstrap


@dataclass(frozen=True)
class BlockDecomposition:
    """The decomposition of one block along one direction.

    Attributes:
        write_base, write: mean write along the unit direction in both checkpoints, in units of the residual stream.
        erasure, bypass: per neuron, [d_mlp]; their sums with `bias` are the change.
        bias: change of the output bias along the direction.
        group_erasure, group_bypass, group_bias: the same sums for each group of inputs, [group].
    """

    write_base: float
    write: float
    erasure: Float[Tensor, " d_mlp"]
    bypass: Float[Tensor, " d_mlp"]
    bias: float
    group_erasure: Float[Tensor, " group"]
    group_bypass: Float[Tensor, " group"]
    group_bias: Float[Tensor, " group"]

    @property
    def change(self) -> float:
        """Change of the mean write: erasure + bypass + bias."""
        return float(self.erasure.sum() + self.bypass.sum()) + self.bias


def readout(
    value_vectors: Float[Tensor, "d_mlp d_model"], direction: Float[Tensor, " d_model"]
) -> Float[Tensor, " d_mlp"]:
    """g = W_V w_hat: what one unit of each neuron's activation writes along the unit direction, in float64."""
    return value_vectors.double() @ (direction.double() / direction.double().norm()).to(value_vectors.device)


def decompose(
    base_activations: Float[Tensor, "group d_mlp"],
    new_activations: Float[Tensor, "group d_mlp"],
    base_readout: Float[Tensor, " d_mlp"],
    new_readout: Float[Tensor, " d_mlp"],
    *,
    group_sizes: Float[Tensor, " group"] | None = None,
    base_bias: float = 0.0,
    new_bias: float = 0.0,
) -> BlockDecomposition:
    """Decompose the change of one block's toxic write.

    Args:
        base_activations, new_activations: mean h_down of each group of inputs (or of each input).
        base_readout, new_readout: g of both checkpoints, see `readout`.
        group_sizes: inputs in each group; by default the groups weigh the same.
        base_bias, new_bias: output bias along the unit direction, where the architecture has one.
    """
    if base_activations.shape != new_activations.shape or base_activations.shape[1:] != base_readout.shape:
        raise InputError(
            f"activations {tuple(base_activations.shape)} and {tuple(new_activations.shape)} and a read-out of "
            f"{tuple(base_readout.shape)} do not match"
        )
    a, a_new = base_activations.double(), new_activations.double()
    g, g_new = base_readout.double(), new_readout.double()
    sizes = torch.ones(len(a), dtype=torch.float64) if group_sizes is None else group_sizes.double()
    weights = sizes / sizes.sum()
    group_erasure = (a + a_new) / 2 * (g_new - g)
    group_bypass = (a_new - a) * ((g + g_new) / 2)
    return BlockDecomposition(
        write_base=float(weights @ a @ g) + base_bias,
        write=float(weights @ a_new @ g_new) + new_bias,
        erasure=weights @ group_erasure,
        bypass=weights @ group_bypass,
        bias=new_bias - base_bias,
        group_erasure=group_erasure.sum(1),
        group_bypass=group_bypass.sum(1),
        group_bias=torch.full((len(a),), new_bias - base_bias, dtype=torch.float64),
    )


@dataclass(frozen=True)
class ErasureShare:
    """Summed over blocks: the two terms, their change, and |erasure| / (|erasure| + |bypass|), with 95% intervals.

    The bias counts as erasure. The share is nan where nothing changed.
    """

    erasure: Interval
    bypass: Interval
    change: Interval
    share: Interval


def erasure_share(
    blocks: Sequence[BlockDecomposition], group_sizes: Float[Tensor, " group"], *, seed: int
) -> ErasureShare:
    """Sum a decomposition over blocks and resample the groups of inputs for intervals."""
    bias = sum(block.group_bias for block in blocks)
    erasure = torch.stack([block.group_erasure for block in blocks]).sum(0) + bias
    bypass = torch.stack([block.group_bypass for block in blocks]).sum(0)
    sizes = group_sizes.double()

    def interval(statistic: Callable[[Tensor], Tensor]) -> Interval:
        return bootstrap(statistic, len(sizes), seed=seed, sizes=sizes)

    def share(weights: Tensor) -> Tensor:
        e, b = (weights @ erasure).abs(), (weights @ bypass).abs()
        return e / (e + b)

    return ErasureShare(
        erasure=interval(lambda w: w @ erasure),
        bypass=interval(lambda w: w @ bypass),
        change=interval(lambda w: w @ (erasure + bypass)),
        share=interval(share),
    )
