"""How well a number tells two kinds of checkpoints apart, when several checkpoints come of one base.

    AUC      share of (gone, hidden) pairs in which the gone one has the larger number, ties half
    rates    of the checkpoints of a kind, the share that is called so, with Wilson's interval

Checkpoints of one base resemble each other, so that the bootstrap draws bases first, then checkpoints of either kind
within each; with a single base checkpoints alone, which tells nothing of another base.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mechinterp.measures.intervals import Interval
from mechinterp.measures.statistics import percentile_interval

_NONE = Interval(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Numbers:
    """A number of every checkpoint of a kind that has one.

    Attributes:
        values: the numbers.
        bases: of each, which base it comes of.
    """

    values: np.ndarray
    bases: np.ndarray

    @classmethod
    def of(cls, values: Sequence[float], bases: Sequence[object]) -> Numbers:
        """Those that are defined."""
        found, names = np.asarray(values, dtype=float), np.asarray(bases, dtype=object)
        there = np.isfinite(found)
        return cls(found[there], names[there])

    def __len__(self) -> int:
        return len(self.values)


def auc(high: Numbers, low: Numbers) -> Interval:
    """The share of pairs in which `high` has the larger number; nan where a kind has none, its ends for a single one.

    Args:
        high: checkpoints that should have the larger numbers.
        low: the others.
    """
    if not len(high) or not len(low):
        return _NONE
    ordered = (high.values[:, None] > low.values[None]) + 0.5 * (high.values[:, None] == low.values[None])
    if min(len(high), len(low)) < 2:
        return Interval(float(ordered.mean()), math.nan, math.nan)
    rng = np.random.default_rng(0)
    names = sorted({*high.bases, *low.bases}, key=str)
    drawn = rng.multinomial(len(names), [1 / len(names)] * len(names), size=1000)
    one, other = (_weights(kind, names, drawn, rng) for kind in (high, low))
    pairs = one.sum(1) * other.sum(1)
    draws = ((one @ ordered) * other).sum(1) / np.where(pairs > 0, pairs, math.nan)  # draws without a kind have none
    return percentile_interval(float(ordered.mean()), torch.from_numpy(draws))


def _weights(kind: Numbers, names: Sequence[object], drawn: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """How often every checkpoint is drawn, [resample, checkpoint]: of a base as many as it has, each time."""
    weights = np.zeros((len(drawn), len(kind)))
    for number, name in enumerate(names):
        own = np.flatnonzero(kind.bases == name)
        if len(own):
            weights[:, own] = rng.multinomial(drawn[:, number] * len(own), [1 / len(own)] * len(own))
    return weights


def best_threshold(high: Numbers, low: Numbers) -> float:
    """The number from which on a checkpoint is best called `high`: of the largest mean of both rates (Youden).

    It is chosen on the very checkpoints that it is then tried on, so that its rates are the best there could be.
    """
    if not len(high) or not len(low):
        return math.nan
    values = np.unique(np.concatenate([high.values, low.values]))
    edges = np.concatenate([values[:1], (values[1:] + values[:-1]) / 2, values[-1:] + 1])
    return float(max(edges, key=lambda edge: (high.values >= edge).mean() + (low.values < edge).mean()))


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> tuple[float, int]:
    """Spearman's, and of how many checkpoints; nan for fewer than three that have both numbers, or a constant."""
    from scipy.stats import spearmanr

    a, b = np.asarray(one, dtype=float), np.asarray(other, dtype=float)
    both = np.isfinite(a) & np.isfinite(b)
    a, b = a[both], b[both]
    if len(a) < 3 or len(set(a)) < 2 or len(set(b)) < 2:
        return math.nan, len(a)
    return float(spearmanr(a, b).statistic), len(a)
