"""Recovery: how much of a behaviour that tuning took away is back under an attack, and how much of it beyond a model
that never learnt it.

With F a read-out (a mean over prompts, the same ones throughout), B the base, X a model, F_a(X) that model attacked,

    R(X) = (F_a(X) - F(X)) / (F(B) - F(X))         0: the attack changes nothing, 1: all is back; never clipped
    excess = R(T) - R(N)                           T the tuned model, N one that never learnt the behaviour

Both parts of the excess are shares of a model's own way to the base, so that they have the same unit whatever F is
measured in: an attack that teaches the behaviour moves N along its way, too, and only what T moves further was there
before. Read-outs far from the base's would otherwise weigh more: N may be many nats away where T is a few.

Intervals are percentile bootstraps over prompts, drawn together for all models and for attacked and plain (paired).
R(X) is undefined where the interval of F(B) - F(X) is not above 0: there is nothing to come back. Of rates two imagined
prompts are added to the draws, as in `measures.relapse`: one that speaks for the effect, one against it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.measures.intervals import Interval
from mechinterp.measures.statistics import percentile_interval, resample_weights, weighted_mean

NOTHING = Interval(math.nan, math.nan, math.nan)

_RESAMPLES = 2000


@dataclass(frozen=True)
class Found:
    """An estimate, and why there is none where it is undefined."""

    interval: Interval
    reason: str = ""


def mean(values: Float[Tensor, " input"], *, rate: bool, seed: int) -> Interval:
    """Mean over prompts with its interval."""
    return _interval(weighted_mean, [values], [(1.0,), (0.0,)] if rate else [], seed)


def recovery(
    attacked: Float[Tensor, " input"],
    plain: Float[Tensor, " input"],
    base: Float[Tensor, " input"],
    *,
    rate: bool,
    seed: int,
) -> Found:
    """R of one model.

    Args:
        attacked, plain: F of each prompt, of the model under the attack and as it is.
        base: of the base as it is.
        rate: F is a share of answers, from 0 to 1.
        seed: of the bootstrap.
    """
    if reason := _nothing_to_recover(plain, base, rate=rate, seed=seed):
        return Found(NOTHING, reason)
    imagined = [(1.0, 1.0), (0.0, 1.0)] if rate else []
    return _found(_share, [attacked - plain, base - plain], imagined, seed)


def excess(
    attacked: Float[Tensor, " input"],
    plain: Float[Tensor, " input"],
    never_attacked: Float[Tensor, " input"],
    never: Float[Tensor, " input"],
    base: Float[Tensor, " input"],
    *,
    rate: bool,
    seed: int,
) -> Found:
    """R of a tuned model less R of one that never learnt, under the same attack; arguments as `recovery` has them."""
    for of, name in ((plain, ""), (never, "the model that never learnt: ")):
        if reason := _nothing_to_recover(of, base, rate=rate, seed=seed):
            return Found(NOTHING, name + reason)

    def difference(weights: Tensor, back: Tensor, gap: Tensor, other: Tensor, other_gap: Tensor) -> Tensor:
        return _share(weights, back, gap) - _share(weights, other, other_gap)

    columns = [attacked - plain, base - plain, never_attacked - never, base - never]
    return _found(difference, columns, [(1.0, 1.0, 0.0, 1.0), (0.0, 1.0, 1.0, 1.0)] if rate else [], seed)


def _nothing_to_recover(plain: Float[Tensor, " input"], base: Float[Tensor, " input"], *, rate: bool, seed: int) -> str:
    gap = mean(base - plain, rate=rate, seed=seed)
    if gap.low > 0:
        return ""
    if math.isnan(gap.value):
        return "a value is not finite"
    if math.isnan(gap.low):
        return "an interval wants at least two prompts"
    return f"nothing to come back: below the base by {gap.value:.3g} ({gap.between('.3g')})"


def _share(weights: Tensor, back: Tensor, gap: Tensor) -> Tensor:
    way = weighted_mean(weights, gap)
    return weighted_mean(weights, back) / way.masked_fill(way <= 0, math.nan)  # draws without a gap have no ratio


def _found(
    statistic: Callable[..., Tensor], columns: Sequence[Tensor], imagined: Sequence[tuple[float, ...]], seed: int
) -> Found:
    found = _interval(statistic, columns, imagined, seed)
    return Found(found, "a value is not finite" if math.isnan(found.value) else "")


def _interval(
    statistic: Callable[..., Tensor], columns: Sequence[Tensor], imagined: Sequence[tuple[float, ...]], seed: int
) -> Interval:
    """A statistic of weights and columns [input]; imagined: the columns' values on prompts that are added to draws."""
    columns = [column.double() for column in columns]
    n = len(columns[0])
    if n == 0:
        return NOTHING
    value = float(statistic(torch.full((1, n), 1 / n, dtype=torch.float64), *columns)[0])
    if math.isnan(value):
        return NOTHING
    if imagined:
        added = torch.tensor(imagined, dtype=torch.float64).T
        columns = [torch.cat([column, more]) for column, more in zip(columns, added, strict=True)]
    found = percentile_interval(value, statistic(_weights(n + len(imagined), seed), *columns))
    return Interval(value, min(found.low, value), max(found.high, value)).settled


@lru_cache(maxsize=4)  # of the many estimates over the same prompts
def _weights(n: int, seed: int) -> Float[Tensor, "resample n"]:
    return resample_weights(n, resamples=_RESAMPLES, seed=seed)
