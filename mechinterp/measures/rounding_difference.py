"""What rounding leaves of the difference of two matrices, rounded as `quantised` does, to the bit, in small pieces.

A piece stays in the processor's cache and is rounded in float32. There a quotient of a weight and its group's largest
is off by less than a millionth of the largest code, so that only the few weights that lie so near to where the code
changes are rounded in float64, by `Scheme` itself. What a code stands for comes out in bfloat16 and float16 as it does
in float64 for every scale that there is, which a test goes through.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import groupby

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.measures.quantised import NF4_LEVELS, NF4_MIDDLES, Scheme
from mechinterp.measures.threads import share_out

_PIECE = 2**16
"""Weights of a piece of each matrix (2 MB of buffers)."""

_BINS = 2**12
"""Of the width of NF4's values, which a table gives by bin: that of the one code in it, or nan where there are two."""

_LEAST = 1e-30
"""Scales below it are not divided by in float32."""


@dataclass
class Left:
    """Over weights: numbers of them, and sums of products in float64.

    Attributes:
        changed: weights that differ.
        moved: those of them with another code.
        difference: sum of squares of the difference T - B.
        rounded: of that of the rounded matrices, Q(T) - Q(B).
        product: sum of products of the two.
    """

    changed: int = 0
    moved: int = 0
    difference: float = 0.0
    rounded: float = 0.0
    product: float = 0.0

    def add(self, other: Left) -> None:
        """Add those of other weights."""
        for name in vars(self):
            setattr(self, name, getattr(self, name) + getattr(other, name))


def left_of_difference(
    before: Float[Tensor, "*row column"], after: Float[Tensor, "*row column"], schemes: Sequence[Scheme]
) -> list[Left]:
    """What each way of rounding leaves of the difference of two matrices, each rounded with scales of its own.

    Args:
        before, after: B and T, on the host, in any floating types; only read.
    """
    before, after = (weights.detach().reshape(-1, weights.shape[-1]) for weights in (before, after))
    found = {scheme: Left() for scheme in schemes}
    threads = torch.get_num_threads()
    for _, some in groupby(sorted(schemes, key=_layout), _layout):
        alike = tuple(some)
        pieces = list(_pieces(before, after, alike[0]))
        runs = [pieces[start::threads] for start in range(min(threads, len(pieces)))]
        for part in share_out(partial(_of_pieces, schemes=alike), runs):
            for scheme, left in zip(alike, part, strict=True):
                found[scheme].add(left)
    return [found[scheme] for scheme in schemes]


def _layout(scheme: Scheme) -> tuple[bool, int]:
    """What schemes share whose scales are the same weights' largest."""
    return scheme.normal, scheme.group or 0


def _pieces(before: Tensor, after: Tensor, scheme: Scheme) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Rows of both whose groups begin at their first column, and the size of a group."""
    if scheme.normal:
        group = scheme.group or before.numel()
        body = before.numel() // group * group
        flat = before.reshape(-1), after.reshape(-1)
        parts = [tuple(w[:body].view(-1, group) for w in flat), tuple(w[body:].view(1, -1) for w in flat)]
    else:
        group = min(scheme.group or before.shape[1], before.shape[1])
        parts = [(before, after)]
    for one, other in parts:
        if one.numel():
            step = max(1, _PIECE // one.shape[1])
            for top in range(0, len(one), step):
                yield one[top : top + step], other[top : top + step], group


def _of_pieces(pieces: Sequence[tuple[Tensor, Tensor, int]], schemes: Sequence[Scheme]) -> list[Left]:
    """Sums over pieces, scheme by scheme."""
    found = [Left() for _ in schemes]
    desk: _Desk | None = None
    for before, after, group in pieces:
        if desk is None or not desk.holds(before):  # the first piece is the largest of its width
            desk = _Desk(before, after, group)
        (old, new), n_changed = desk.take(before, after)
        if not n_changed:
            continue
        desk.scale()
        difference = new - old
        square = float(torch.dot(difference, difference))
        for scheme, left in zip(schemes, found, strict=True):
            n_moved = desk.encode(scheme)
            old_values, new_values = desk.decode(scheme)
            rounded = new_values.sub_(old_values)
            products = (float(torch.dot(rounded, other)) for other in (rounded, difference))
            left.add(Left(n_changed, n_moved, square, *products))
    return found


@lru_cache(maxsize=1)
def _nf4_by_bin() -> Tensor:
    """The value of NF4 nearest to all shares of the largest in a bin and a little beyond, nan where there are two."""
    middles = (NF4_MIDDLES + 1) * _BINS
    bins = torch.arange(2 * _BINS + 1, dtype=torch.float64)
    lowest, highest = (torch.bucketize(bins + edge, middles) for edge in (-0.01, 1.01))
    return NF4_LEVELS[lowest].masked_fill(lowest != highest, torch.nan).float()


class _Desk:
    """Buffers for a piece of both matrices: weights, the largest of each group, and codes that become values in place.

    The code of NF4 is the value that it stands for, as a share of the largest.
    """

    def __init__(self, before: Tensor, after: Tensor, group: int) -> None:
        rows, self._columns = before.shape
        self._group, self._padded = group, -(-self._columns // group) * group
        self._own = before.dtype, after.dtype
        self._wide = torch.float64 in self._own
        kind = torch.float64 if self._wide else torch.float32
        self._room = [torch.zeros(2, rows * self._padded, dtype=kind) for _ in range(3)]

    def holds(self, piece: Tensor) -> bool:
        """Whether there is room for a piece."""
        return piece.shape[1] == self._columns and len(piece) * self._padded <= self._room[0].shape[1]

    def take(self, before: Tensor, after: Tensor) -> tuple[Tensor, int]:
        """The next piece of both, padded with zeros, a flat row each; and how many weights differ."""
        size = len(before) * self._padded
        if size < self._room[0].shape[1]:  # the last piece
            self._room = [torch.zeros_like(room[:, :size]) for room in self._room]
        self._weights, self._scratch, self._code = self._room
        for weights, given in zip(self._weights, (before, after), strict=True):
            weights.view(len(given), -1)[:, : self._columns].copy_(given)
        old, new = self._weights.numpy()
        self._changed = old != new
        return self._weights, int(np.count_nonzero(self._changed))

    def scale(self) -> None:
        """The largest of each group."""
        groups = self._grouped(self._weights)
        self._largest = torch.maximum(groups.amax(1, keepdim=True), groups.amin(1, keepdim=True).neg_())
        least, most = self._largest.numpy().min(), self._largest.numpy().max()
        self._zeros = least == 0
        if self._zeros:
            least = self._largest.masked_fill(self._largest == 0, most).min()
        self._quick = bool(least >= _LEAST and most < np.inf) and not self._wide  # False for nan

    def encode(self, scheme: Scheme) -> int:
        """Find the codes of the piece, and how many of the weights that differ have different ones."""
        weights = self._grouped(self._weights)
        if self._quick:
            per = (_BINS if scheme.normal else scheme.steps) / self._largest
            if self._zeros:
                per[self._largest == 0] = 0
            torch.mul(weights, per, out=self._grouped(self._scratch))
            self._encode_quick(scheme)
        else:
            codes = scheme.code_of(weights.double(), self._largest.double().masked_fill(self._largest == 0, 1))
            self._grouped(self._code).copy_(NF4_LEVELS[codes] if scheme.normal else codes)
        old, new = self._code.numpy()
        moved = old != new
        moved &= self._changed
        return int(np.count_nonzero(moved))

    def _encode_quick(self, scheme: Scheme) -> None:
        if scheme.normal:
            bins = self._scratch.view(torch.int32).copy_(self._scratch.add_(_BINS))
            torch.index_select(_nf4_by_bin(), 0, bins.view(-1), out=self._code.view(-1))
            doubtful = np.isnan(self._code.numpy())
        else:
            torch.round(self._scratch, out=self._code)
            doubtful = self._scratch.sub_(self._code).abs_().numpy() > 0.4999
        if len(at := np.flatnonzero(doubtful)):
            weights, largest = self._weights.numpy().take(at), self._largest.numpy().take(at // self._group)
            codes = scheme.code_of(*(torch.from_numpy(each).double() for each in (weights, largest)))
            self._code.numpy().put(at, (NF4_LEVELS[codes] if scheme.normal else codes).numpy())

    def decode(self, scheme: Scheme) -> Tensor:
        """What the codes stand for, in their place."""
        codes = self._grouped(self._code)
        exact = not self._quick or (torch.float32 in self._own and not scheme.normal)
        scales = self._largest if scheme.normal else self._largest.double() / scheme.steps
        codes.copy_(codes.double() * scales.double()) if exact else codes.mul_(scales.float())
        for values, own in zip(self._code, self._own, strict=True):
            if own != values.dtype:
                values.copy_(values.to(own))
        return self._code

    def _grouped(self, flat: Tensor) -> Tensor:
        return flat.view(-1, self._group)
