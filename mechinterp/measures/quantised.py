"""Rounding of weights as quantisers do it: to whole steps of a scale, or to the sixteen values of NF4.

    int    a step of s = max|w| / (2^(bits-1) - 1) for each row, or group of neighbours in a row; w -> s round(w / s)
    NF4    w -> max|w| times the nearest of sixteen quantiles of the normal distribution, for each block of weights in
           their stored order (Dettmers et al. 2023, table 5)

Round to nearest, symmetric, without calibration: what a user who loads a checkpoint in few bits gets at least. What is
rounded already stays as it is, to the bit: the largest weight of a group keeps its value, and with it the scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
    *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725),
    *(0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)

NF4_LEVELS = torch.tensor(NF4, dtype=torch.float64)
"""The same as a tensor; each is a number of float32."""

NF4_MIDDLES = (NF4_LEVELS[1:] + NF4_LEVELS[:-1]) / 2
"""Where one value becomes nearer than the one before."""

_AT_ONCE = 2**22
"""Weights rounded at a time: some of them are held in float64."""


@dataclass(frozen=True)
class Scheme:
    """A way of rounding.

    Attributes:
        bits: of a code.
        group: weights that share a scale: neighbours of a row, or with `normal` of the whole matrix in its stored
            order; None for a whole row.
        normal: the codes stand for NF4's values, not for whole steps.
    """

    bits: int
    group: int | None = None
    normal: bool = False

    def rounded(self, weight: Float[Tensor, "row column"]) -> Float[Tensor, "row column"]:
        """The weights that the codes stand for, in their own type."""
        return self.both(weight)[1]

    def codes(self, weight: Float[Tensor, "row column"]) -> Int[Tensor, "row column"]:
        """The code of each weight: the number of steps, or the place in `NF4`."""
        return self.both(weight)[0]

    def both(
        self, weight: Float[Tensor, "row column"]
    ) -> tuple[Int[Tensor, "row column"], Float[Tensor, "row column"]]:
        """Codes, and the weights that they stand for."""
        if not weight.numel():
            return weight.to(torch.int16), weight.clone()
        rows = weight.reshape(1, -1) if self.normal else weight.reshape(-1, weight.shape[-1])
        group = min(self.group or rows.shape[1], rows.shape[1])
        found = [torch.empty(rows.shape, dtype=kind, device=weight.device) for kind in (torch.int16, weight.dtype)]
        columns = max(1, _AT_ONCE // group) * group
        step = max(1, _AT_ONCE // rows.shape[1])
        for top in range(0, len(rows), step):
            for left in range(0, rows.shape[1], columns):
                part = (slice(top, top + step), slice(left, left + columns))
                for whole, own in zip(found, self._groups(rows[part].double(), group), strict=True):
                    whole[part] = own.to(whole.dtype)
        codes, rounded = (whole.reshape(weight.shape) for whole in found)
        return codes, rounded

    @property
    def steps(self) -> int:
        """Whole steps from zero to the largest weight of a group."""
        return int(2 ** (self.bits - 1) - 1)

    def code_of(self, weights: Tensor, largest: Tensor) -> Tensor:
        """The codes of float64 weights whose group's largest, not 0, is `largest`: whole steps, or places in `NF4`."""
        if self.normal:
            return torch.bucketize(weights / largest, NF4_MIDDLES.to(weights.device))
        return (weights / (largest / self.steps)).round()

    def _groups(self, wide: Tensor, group: int) -> tuple[Tensor, Tensor]:
        """Codes and values of rows whose groups begin at their first column."""
        lacking = -wide.shape[1] % group
        padded = torch.nn.functional.pad(wide, (0, lacking)).unflatten(1, (-1, group))
        largest = padded.abs().amax(-1, keepdim=True)
        code = self.code_of(padded, largest.masked_fill(largest == 0, 1))
        value = NF4_LEVELS.to(wide.device)[code] * largest if self.normal else code * (largest / self.steps)
        value += 0.0  # no negative zeros
        return code.flatten(1)[:, : wide.shape[1]], value.flatten(1)[:, : wide.shape[1]]


IN_NF4 = Scheme(4, 64, normal=True)
"""As NF4 is loaded: sixteen values, 64 weights of the whole matrix to a scale."""
