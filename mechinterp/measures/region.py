"""The toxic region of a block: its toxicity, and the shift of its activations.

Toxicity of a region (Wang et al. E.3):      T = mean_j cos(v_j, w)
Toxicity reduction rate:                     (T_base - T) / |T_base|
Activation shift rate:                       ||a - a_base|| / ||a_base||,   a = mean over inputs of h_down

T is a mean of thousands of signed cosines and lies near zero, so its relative change is ill-conditioned: every rate
comes with an interval, a null over random directions, and a flag when |T_base| is no larger than along those. A lower T
does not by itself show that the model writes less along w: that depends on the activations too (`decomposition`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.errors import InputError
from mechinterp.measures.intervals import Interval
from mechinterp.measures.large_matrices import mean_unit_vector, products_and_lengths
from mechinterp.measures.massive import dimension_share
from mechinterp.measures.statistics import NullComparison, bootstrap, compare_with_null, random_directions

TOP = (20, 128)
"""Sizes k of the sets of most toxic value vectors whose T is told besides."""


def cosines(
    value_vectors: Float[Tensor, "d_mlp d_model"], direction: Float[Tensor, " d_model"]
) -> Float[Tensor, " d_mlp"]:
    """Cosine of every value vector with a direction, float64; 0 for a vector of length 0."""
    products, lengths = products_and_lengths(value_vectors, direction.double() / direction.double().norm())
    return products / lengths.clamp_min(torch.finfo(torch.float64).tiny)


def random_toxicity(
    value_vectors: Float[Tensor, "d_mlp d_model"], random: Float[Tensor, "draw d_model"]
) -> Float[Tensor, " draw"]:
    """T of a region along each of some unit directions (the null), float64."""
    return random @ mean_unit_vector(value_vectors)


@dataclass(frozen=True)
class Toxicity:
    """How toxic one block's value vectors are, in one checkpoint.

    Attributes:
        mean: T in [-1, 1], with a 95% bootstrap interval over value vectors.
        null: T against T along random directions; None if none were drawn.
        top: for each k, the mean cosine of the k most toxic value vectors.
    """

    mean: Interval
    null: NullComparison | None
    top: dict[int, float]


def summarise_toxicity(
    cosine: Float[Tensor, " d_mlp"],
    null: Float[Tensor, " draw"] | None = None,
    *,
    seed: int,
) -> Toxicity:
    """T with its interval and null.

    Args:
        cosine: of every value vector with the toxic direction, see `cosines`.
        null: T along random directions, see `random_toxicity`.
        seed: of the bootstrap.
    """
    ranked = cosine.sort(descending=True).values
    interval = bootstrap(lambda weights: weights @ cosine, len(cosine), seed=seed)
    return Toxicity(
        mean=replace(interval, value=float(cosine.mean())),  # the same sum, to the last digit, as in `region_toxicity`
        null=None if null is None or len(null) == 0 else compare_with_null(float(cosine.mean()), null),
        top={k: float(ranked[:k].mean()) for k in TOP},
    )


@dataclass(frozen=True)
class RegionToxicity:
    """How the toxicity of one block's value vectors changed between two checkpoints.

    Attributes:
        base, new: T of both, in [-1, 1].
        reduction_rate: (T_base - T) / |T_base|, with a 95% interval from a paired bootstrap over value vectors.
        null: the change of T against its change along random directions.
        ill_conditioned: |T_base| lies inside the 95% band of T_base along random directions, so the rate means little.
        top: for each k, T of both over the k value vectors most toxic in the base.
    """

    base: float
    new: float
    reduction_rate: Interval
    null: NullComparison
    ill_conditioned: bool
    top: dict[int, tuple[float, float]]


def region_toxicity(
    base: Float[Tensor, "d_mlp d_model"],
    new: Float[Tensor, "d_mlp d_model"],
    direction: Float[Tensor, " d_model"],
    *,
    seed: int,
    random: Float[Tensor, "draw d_model"] | None = None,
) -> RegionToxicity:
    """Toxicity of a region before and after, with interval, null and flag.

    Args:
        base, new: W_V of the block in both checkpoints, row j is value vector v_j.
        direction: the toxic direction w.
        seed: of the bootstrap and of the random directions.
        random: directions of the null; by default 1,000 drawn with the covariance of the base's value vectors. Give
            them where many checkpoints share a base.
    """
    if base.shape != new.shape or base.shape[1] != len(direction):
        raise InputError(
            f"value matrices {tuple(base.shape)} and {tuple(new.shape)} and a direction of {len(direction)} do not fit"
        )
    # T along r is (mean unit value vector) . r, so a thousand directions cost two small products.
    random = random_directions(base, 1000, seed=seed) if random is None else random
    return compare_toxicity(
        cosines(base, direction),
        cosines(new, direction),
        random_toxicity(base, random),
        random_toxicity(new, random),
        seed=seed,
    )


def compare_toxicity(
    before: Float[Tensor, " d_mlp"],
    after: Float[Tensor, " d_mlp"],
    null_before: Float[Tensor, " draw"],
    null_after: Float[Tensor, " draw"],
    *,
    seed: int,
) -> RegionToxicity:
    """`region_toxicity` from what it needs of the two matrices, for those who cannot hold both.

    Args:
        before, after: cosines of every value vector with the toxic direction in both checkpoints, see `cosines`.
        null_before, null_after: T of both along the same random directions, see `random_toxicity`.
        seed: of the bootstrap.
    """
    both = torch.stack([before, after], dim=1)

    def rate(weights: Tensor) -> Tensor:
        means = weights @ both
        return (means[:, 0] - means[:, 1]) / means[:, 0].abs()

    base_band = compare_with_null(float(before.mean()), null_before)
    ranked = before.argsort(descending=True)
    return RegionToxicity(
        base=float(before.mean()),
        new=float(after.mean()),
        reduction_rate=bootstrap(rate, len(both), seed=seed),
        null=compare_with_null(float(after.mean() - before.mean()), null_after - null_before),
        ill_conditioned=base_band.low <= float(before.mean()) <= base_band.high,
        top={k: (float(before[ranked[:k]].mean()), float(after[ranked[:k]].mean())) for k in TOP},
    )


@dataclass(frozen=True)
class ActivationShift:
    """Shift of the mean activation, with a 95% interval over inputs, and the mean of the shift per input.

    Attributes:
        rate, per_input: of the mean, and the mean of every input's own.
        dimension_share: the share that one neuron makes of the squared change of the mean.
    """

    rate: Interval
    per_input: float
    dimension_share: float


def activation_shift(
    base: Float[Tensor, "input d_mlp"], new: Float[Tensor, "input d_mlp"], *, seed: int
) -> ActivationShift:
    """||a - a_base|| / ||a_base|| of the mean activation, and the mean over inputs of the same ratio.

    Args:
        base, new: h_down of every input in both checkpoints, in the same order.
    """
    if base.shape != new.shape:
        raise InputError(f"activations {tuple(base.shape)} and {tuple(new.shape)} are not of the same inputs")
    a, change = base.double(), new.double() - base.double()

    def rate(weights: Tensor) -> Tensor:
        return (weights @ change).norm(dim=1) / (weights @ a).norm(dim=1)

    per_input = float((change.norm(dim=1) / a.norm(dim=1)).mean())
    share = float(dimension_share(change.mean(0)))
    return ActivationShift(bootstrap(rate, len(a), seed=seed), per_input, share)
