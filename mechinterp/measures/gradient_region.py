"""Where the gradients of two losses part: cosine and magnitude of each of many tensors (MemFlex, arXiv 2407.01920).

    cos_t = <G_U, G_R> / (|G_U| |G_R|)          G_U, G_R: mean gradients of what is to be forgotten and to be kept
    a_t   = mean of |G_U| over the entries of t

    located:  cos_t < mu  and  a_t > sigma      (both strict)

The paper prints the magnitude with G_R; its code takes G_U, and so does this. Mean absolute gradients scale with the
loss and the parametrisation: a sigma of one model means nothing on another, a quantile does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mechinterp.errors import InputError


@dataclass(frozen=True)
class Thresholds:
    """Which tensors are located.

    Attributes:
        cosine: mu, below which the cosine lies; None for no such condition.
        magnitude: sigma, above which the mean absolute gradient lies; None for no such condition.
        quantiles: both are quantiles among all tensors, from 0 to 1, and no numbers of their own.
    """

    cosine: float | None = 0.5
    magnitude: float | None = 0.5
    quantiles: bool = True

    def __post_init__(self) -> None:
        for name, value in (("cosine", self.cosine), ("magnitude", self.magnitude)):
            if value is not None and self.quantiles and not 0 <= value <= 1:
                raise InputError(f"`{name}` is a quantile between 0 and 1, got {value}; or give `quantiles=False`")

    def cuts(self, cosines: Float[Tensor, " tensor"], magnitudes: Float[Tensor, " tensor"]) -> tuple[float, float]:
        """mu and sigma themselves; infinite where there is no condition, NaN where no cosine is defined."""
        pairs = ((self.cosine, cosines, math.inf), (self.magnitude, magnitudes, -math.inf))
        found = [_cut(given, values, free, quantile=self.quantiles) for given, values, free in pairs]
        return found[0], found[1]

    def located(
        self, cosines: Float[Tensor, " tensor"], magnitudes: Float[Tensor, " tensor"]
    ) -> Bool[Tensor, " tensor"]:
        """Which tensors are; one without a cosine (a gradient of zero) only where there is no condition on it.

        Raises:
            InputError: if none is, with the ends between which the values lie.
        """
        mu, sigma = self.cuts(cosines, magnitudes)
        chosen = torch.ones_like(cosines, dtype=torch.bool)
        if self.cosine is not None:
            chosen &= cosines < mu
        if self.magnitude is not None:
            chosen &= magnitudes > sigma
        if not bool(chosen.any()):
            told = cosines[~cosines.isnan()]
            ends = f"cosines from {float(told.min()):.3g} to {float(told.max()):.3g}" if len(told) else "no cosines"
            raise InputError(
                f"nothing is located: of {len(cosines)} none has a cosine below {mu:.3g} and a magnitude above "
                f"{sigma:.3g}; there are {ends}, magnitudes from {float(magnitudes.min()):.3g} to "
                f"{float(magnitudes.max()):.3g}; loosen `cosine` or `magnitude`"
            )
        return chosen


def _cut(given: float | None, values: Float[Tensor, " tensor"], free: float, *, quantile: bool) -> float:
    if given is None:
        return free
    known = values[~values.isnan()].double()
    return float(torch.quantile(known, given)) if quantile and len(known) else math.nan if quantile else given


@dataclass(frozen=True)
class Agreement:
    """What two gradients of some groups of numbers have in common, summed in float64; sums of several add up.

    Attributes:
        products, forget_squares, retain_squares: <G_U, G_R>, |G_U|^2 and |G_R|^2 of each group.
        forget_sizes, retain_sizes: sums of the absolute values.
        entries: numbers in a group.
    """

    products: Float[Tensor, " group"]
    forget_squares: Float[Tensor, " group"]
    retain_squares: Float[Tensor, " group"]
    forget_sizes: Float[Tensor, " group"]
    retain_sizes: Float[Tensor, " group"]
    entries: int

    @classmethod
    def of(cls, forget: Float[Tensor, "group d"], retain: Float[Tensor, "group d"]) -> Agreement:
        """Of two gradients, a row for each group."""
        parts = []
        for some in range(0, len(forget), _ROWS):
            u, r = (each[some : some + _ROWS].double() for each in (forget, retain))
            parts.append([(u * r).sum(1), (u * u).sum(1), (r * r).sum(1), u.abs().sum(1), r.abs().sum(1)])
        both, u, r, forget_sizes, retain_sizes = (torch.cat(columns) for columns in zip(*parts, strict=True))
        return cls(both, u, r, forget_sizes, retain_sizes, forget.shape[1])

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(
            self.products + other.products,
            self.forget_squares + other.forget_squares,
            self.retain_squares + other.retain_squares,
            self.forget_sizes + other.forget_sizes,
            self.retain_sizes + other.retain_sizes,
            self.entries + other.entries,
        )

    @property
    def cosine(self) -> Float[Tensor, " group"]:
        """NaN where one of the two is zero."""
        lengths = self.forget_squares.sqrt() * self.retain_squares.sqrt()
        return torch.where(lengths > 0, self.products / lengths, math.nan)

    @property
    def magnitude(self) -> Float[Tensor, " group"]:
        """Mean absolute gradient of what is to be forgotten."""
        return self.forget_sizes / self.entries

    @property
    def retain_magnitude(self) -> Float[Tensor, " group"]:
        """Mean absolute gradient of what is to be kept."""
        return self.retain_sizes / self.entries


_ROWS = 1024  # in float64 at a time
