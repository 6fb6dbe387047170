"""Contributions with intervals, and as shares of the change; undefined where there is no change to share out.

    share of the change   phi_g / (F(T) - F(B))              adds up to 1 (of a path: to its completeness)
    share                 phi_g sign(change) / sum |phi|     of all effects; below 0 where it works against the change

Both are undefined where the interval of F(T) - F(B) contains 0, and where there are not two units to draw from: a share
of nothing may be any number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.audit.origins.units import Units
from mechinterp.measures.intervals import Interval
from mechinterp.measures.statistics import percentile_interval, resample_weights

_NONE = Interval(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Shares:
    """Contributions of groups, and what is drawn of them.

    Attributes:
        units: over which is drawn.
        change: F(T) - F(B).
        phi: of every group.
        seed: of the draws.
        resamples: their number.
    """

    units: Units
    change: Float[Tensor, " unit"]
    phi: Float[Tensor, "unit group"]
    seed: int = 0
    resamples: int = 2000

    @cached_property
    def _weights(self) -> Float[Tensor, "draw unit"]:
        """The first row is the whole sample, the others are draws."""
        sizes = self.units.sizes
        drawn = resample_weights(len(self.units), resamples=self.resamples, seed=self.seed, sizes=sizes)
        return torch.cat([(sizes / sizes.sum())[None], drawn])

    def interval(self, values: Float[Tensor, " unit"]) -> Interval:
        """A mean over prompts."""
        return _interval(self._weights @ values)

    @cached_property
    def of_change(self) -> Interval:
        """F(T) - F(B)."""
        return self.interval(self.change)

    @cached_property
    def undefined(self) -> str | None:
        """Why there are no shares; None where there are."""
        if len(self.units) < 2:
            return "undefined: an interval wants prompts of at least two questions"
        if not math.isfinite(self.of_change.value):
            return "undefined: the read-out is not finite"
        if self.of_change.low <= 0 <= self.of_change.high:
            return "undefined: the interval of the change contains 0"
        return None

    @cached_property
    def _effect(self) -> Float[Tensor, " draw"]:
        """Sum of |phi| over groups, with the sign of the change."""
        return (self._weights @ self.phi).abs().sum(1) * torch.sign(self._weights @ self.change)

    def share(self, values: Float[Tensor, " unit"]) -> Interval:
        """Of the effects, of a group or of a part of one."""
        return _NONE if self.undefined else _interval(self._weights @ values / self._effect)

    def share_of_change(self, values: Float[Tensor, " unit"]) -> Interval:
        """Of the change."""
        return _NONE if self.undefined else _interval(self._weights @ values / (self._weights @ self.change))

    def columns(self, values: Float[Tensor, " unit"]) -> Mapping[str, float]:
        """The columns of a contribution in a table."""
        return {
            **self.interval(values).columns("phi"),
            **self.share(values).columns("share"),
            "share_of_change": self.share_of_change(values).value,
        }


def _interval(rows: Float[Tensor, " draw"]) -> Interval:
    return percentile_interval(float(rows[0]), rows[1:])
