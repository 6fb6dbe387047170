"""Intervals, nulls and rank statistics on tensors; every random draw is seeded.

Draws of a single unit are all alike, and tell nothing of how units vary: their weights, and with them the ends of an
interval, are NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import stats
from sklearn.metrics import roc_auc_score
from torch import Tensor

from mechinterp.measures.intervals import ROUNDING, Interval
from mechinterp.measures.threads import share_out

CONFIDENCE = 0.95

_WHOLE = 2**21  # numbers up to which random draws are made at once (16 MB in float64)


def seeded_order(n: int, seed: int) -> list[int]:
    """The numbers 0 to n - 1 in an order that follows from the seed."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed)).tolist()


def resample_weights(
    n: int, *, resamples: int, seed: int, sizes: Float[Tensor, " n"] | None = None
) -> Float[Tensor, "resample n"]:
    """Bootstrap weights: each row says how often each of n units was drawn, scaled to sum to 1; NaN for a single one.

    Args:
        sizes: inputs behind each unit, when units are groups of inputs; a group drawn counts for its size.
    """
    if n * resamples > _WHOLE:
        return _resample_weights(n, resamples, torch.Generator().manual_seed(seed), sizes)
    return _kept_weights(n, resamples, seed, None if sizes is None else tuple(sizes.tolist()))


@lru_cache(maxsize=4)
def _kept_weights(n: int, resamples: int, seed: int, sizes: tuple[float, ...] | None) -> Float[Tensor, "resample n"]:
    """Those of small numbers, once: the intervals of a table have the same draws, and nobody changes them."""
    known = None if sizes is None else torch.tensor(sizes, dtype=torch.float64)
    return _resample_weights(n, resamples, torch.Generator().manual_seed(seed), known)


def _resample_weights(
    n: int, resamples: int, generator: torch.Generator, sizes: Float[Tensor, " n"] | None
) -> Float[Tensor, "resample n"]:
    if n == 1:
        return torch.full((resamples, 1), math.nan, dtype=torch.float64)
    drawn = torch.randint(n, (resamples, n), generator=generator)
    one = torch.ones((), dtype=torch.float64).expand(resamples, n)
    counts = torch.zeros(resamples, n, dtype=torch.float64).scatter_add_(1, drawn, one)
    if sizes is not None:
        counts *= sizes.double()
    return counts.div_(counts.sum(1, keepdim=True))


def weighted_mean(weights: Float[Tensor, "resample n"], values: Float[Tensor, " n"]) -> Float[Tensor, " resample"]:
    """Means of shares or nats, each with a row of weights; what rounding alone tells from 0 is 0.

    Else an effect of 0 would now and then be one, or a divisor, and when would differ from processor to processor.
    """
    means = weights @ values
    return means.masked_fill(means.abs() < ROUNDING, 0)


def percentile_interval(value: float, draws: Float[Tensor, " resample"]) -> Interval:
    """The percentile interval of a statistic from its bootstrap draws."""
    finite = draws[torch.isfinite(draws)]
    if len(finite) == 0:
        return Interval(value, math.nan, math.nan)
    low, high = percentiles(finite).tolist()
    return Interval(value, low, high)


def percentile_ends(draws: Float[Tensor, "resample k"]) -> tuple[list[float], list[float]]:
    """The lower and upper ends of the percentile intervals of k statistics from their bootstrap draws."""
    ends = percentiles(draws)
    return ends[0].tolist(), ends[1].tolist()


def percentiles(draws: Float[Tensor, " resample *statistic"]) -> Float[Tensor, " 2 *statistic"]:
    """Both ends of the percentile intervals: to the bit `torch.quantile`, which sorts what is only to be parted."""
    draws, tail = draws.detach().cpu().double(), (1 - CONFIDENCE) / 2
    ranks = torch.tensor([tail, 1 - tail], dtype=torch.float64) * (len(draws) - 1)
    below, above = ranks.floor().long(), ranks.ceil().long()
    parted = torch.from_numpy(np.partition(draws.numpy(), sorted({*below.tolist(), *above.tolist()}), axis=0))
    share = (ranks - below).reshape(-1, *[1] * (draws.ndim - 1))
    return torch.where(draws.isnan().any(0), math.nan, parted[below].lerp(parted[above], share))


def bootstrap(
    statistic: Callable[[Float[Tensor, "resample n"]], Float[Tensor, " resample"]],
    n: int,
    *,
    seed: int,
    resamples: int = 2000,
    sizes: Float[Tensor, " n"] | None = None,
) -> Interval:
    """Percentile bootstrap of a statistic that is a function of the units' weights; of a single unit without ends.

    Args:
        statistic: maps weights [resample, n], rows summing to 1, to one value per row.
        n: number of units.
        sizes: see `resample_weights`.
    """
    whole = torch.ones(1, n, dtype=torch.float64) if sizes is None else sizes.double()[None]
    value = float(statistic(whole / whole.sum())[0])
    if n == 1:  # whatever the statistic makes of NaN
        return Interval(value, math.nan, math.nan)
    if n * resamples <= _WHOLE:
        return percentile_interval(value, statistic(resample_weights(n, resamples=resamples, seed=seed, sizes=sizes)))
    generator, step = torch.Generator().manual_seed(seed), max(1, _WHOLE // n)
    draws = [
        statistic(_resample_weights(n, min(step, resamples - done), generator, sizes))
        for done in range(0, resamples, step)
    ]
    return percentile_interval(value, torch.cat(draws))


def lower_median(values: Float[Tensor, " n"], weights: Float[Tensor, "resample n"]) -> Float[Tensor, " resample"]:
    """Of values of different weights the least that, with all below it, has half of the weight; rows sum to 1."""
    order = values.argsort()
    reached = weights[:, order].cumsum(1) >= 0.5 - 1e-9
    return values[order][reached.int().argmax(1)]


def wilson(successes: int, trials: int) -> Interval:
    """Wilson's interval for a rate (scipy); nan for no trials."""
    if trials == 0:
        return Interval(math.nan, math.nan, math.nan)
    interval = stats.binomtest(successes, trials).proportion_ci(CONFIDENCE, method="wilson")
    return Interval(successes / trials, float(interval.low), float(interval.high))


def wilson_of_shares(mean: float, units: int) -> Interval:
    """Wilson's interval around the mean of one share a unit, such as of the edits that know a question.

    Shares vary at most as much as single yes-or-no answers of that mean, so that it is never too narrow for the units;
    unlike a bootstrap it has a width where all units are alike.

    Args:
        mean: of the shares, each from 0 to 1.
        units: their number.
    """
    if units == 0:
        return Interval(math.nan, math.nan, math.nan)
    z = float(stats.norm.ppf((1 + CONFIDENCE) / 2))
    centre = mean + z**2 / (2 * units)
    half = z * math.sqrt(mean * (1 - mean) / units + z**2 / (4 * units**2))
    low, high = ((centre + side * half) / (1 + z**2 / units) for side in (-1, 1))
    return Interval(mean, max(0.0, min(low, mean)), min(1.0, max(high, mean)))  # rounding only


@dataclass(frozen=True)
class NullComparison:
    """An observed value against the same statistic along random directions.

    Attributes:
        z: (observed - mean of the null) / its standard deviation; 0 where the null has no spread and nothing differs.
        p: two-sided, (1 + draws at least as far from the null's mean) / (1 + draws).
        low, high: the null's 95% band.
    """

    z: float
    p: float
    low: float
    high: float


def compare_with_null(observed: float, null: Float[Tensor, " draw"]) -> NullComparison:
    """Set a value against draws from its null distribution."""
    null = null.double()
    center, spread = null.mean(), null.std()
    distance = abs(observed - float(center))
    if spread == 0:
        z = 0.0 if distance == 0 else math.copysign(math.inf, observed - float(center))
    else:
        z = (observed - float(center)) / float(spread)
    p = (1 + int(((null - center).abs() >= distance).sum())) / (1 + len(null))
    band = percentile_interval(observed, null)
    return NullComparison(z, p, band.low, band.high)


def random_directions(
    value_vectors: Float[Tensor, "d_mlp d_model"], n: int, *, seed: int
) -> Float[Tensor, "draw d_model"]:
    """Unit directions drawn from a normal distribution with the covariance of the value vectors, centred at 0."""
    generator = torch.Generator().manual_seed(seed)
    vectors = value_vectors.detach().cpu()
    d_mlp, d_model = vectors.shape
    # eps V has covariance V^T V without that d_model x d_model matrix being formed. Of a large V some columns are taken
    # at a time, and of eps some rows: multiples of 16, as torch draws normal numbers.
    rows, shares = max(1, _WHOLE // (8 * d_mlp)) * 16, [vectors]
    if d_model > _columns_at_once(d_mlp):
        shares = list(vectors.tensor_split(torch.get_num_threads(), dim=1))
    draws = torch.empty(n, d_model, dtype=torch.float64)
    for top in range(0, n, rows):
        noise = torch.randn(min(rows, n - top), d_mlp, generator=generator, dtype=torch.float64)
        torch.cat(share_out(partial(_centred_product, noise), shares), dim=1, out=draws[top : top + rows])
    return draws.div_(draws.norm(dim=1, keepdim=True))


def _columns_at_once(d_mlp: int) -> int:
    return max(1, _WHOLE // (2 * d_mlp))


def _centred_product(noise: Float[Tensor, "draw d_mlp"], vectors: Float[Tensor, "d_mlp k"]) -> Float[Tensor, "draw k"]:
    """Noise times columns of V, each less its mean."""
    d_mlp, k = vectors.shape
    step = _columns_at_once(d_mlp)
    if k <= step:
        wide = vectors.double()
        return noise @ (wide - wide.mean(0))
    product = torch.empty(len(noise), k, dtype=torch.float64)
    buffer = torch.empty(step, d_mlp, dtype=torch.float64)  # one for all: what is freed is not always given back
    for columns, target in zip(vectors.split(step, dim=1), product.split(step, dim=1), strict=True):
        wide = buffer[: columns.shape[1]].copy_(columns.T)
        target.copy_(noise @ wide.sub_(wide.mean(1, keepdim=True)).T)
    return product


def auroc(
    scores: Float[Tensor, " input"],
    positive: Bool[Tensor, " input"],
    *,
    seed: int,
    groups: Int[Tensor, " input"] | None = None,
    resamples: int = 2000,
) -> Interval:
    """Area under the ROC curve (scikit-learn) with a bootstrap interval; nan for one class, its ends for a single input
    of either.

    Args:
        groups: number of each input's group, where inputs of a group are not independent (they share a question):
            groups are then drawn, whole, and draws of one class only are left out. Otherwise inputs are drawn by class.
    """
    y, x = positive.cpu().numpy().astype(bool), scores.detach().cpu().double().numpy()
    if y.all() or not y.any():
        return Interval(math.nan, math.nan, math.nan)
    # AUROC is the share of (positive, negative) pairs in the right order; resampling weighs the pairs anew.
    high, low = torch.from_numpy(x[y]), torch.from_numpy(x[~y])
    ordered = (high[:, None] > low[None]).double() + 0.5 * (high[:, None] == low[None]).double()
    if groups is None or len(groups.unique()) == len(groups):
        weights = [
            resample_weights(len(part), resamples=resamples, seed=seed + i) for i, part in enumerate((high, low))
        ]
    else:
        _, number = groups.cpu().unique(return_inverse=True)
        drawn = resample_weights(int(number.max()) + 1, resamples=resamples, seed=seed)
        weights = [drawn[:, number[torch.from_numpy(rows)]] for rows in (y, ~y)]
    pairs = weights[0].sum(1) * weights[1].sum(1)
    draws = (((weights[0] @ ordered) * weights[1]).sum(1) / pairs).clamp(0, 1)  # rounding only
    return percentile_interval(float(roc_auc_score(y, x)), draws)
