"""Numerical rank of a change of weights, D = B - A, in one pass over its rows and without ever holding it.

A weight is stored with relative spacing: rounding moves w by at most u |w|, u being the type's unit roundoff (2^-24 for
float32, 2^-11 for float16, 2^-8 for bfloat16). A merged LoRA of rank 8 in bfloat16 is therefore D = L + N with L of
rank 8 and N of full rank, and counting non-zero singular values finds min(m, n). Counted here are the singular values
above the largest that rounding alone could give. An entry of N is uniform on +-u 2^e with 2^e <= |w|: its variance is
at most u^2 w^2 / 3, and twice that where A and B were both rounded. The norm of a random matrix with independent
entries of variance s_ij^2 is at most about max_i |s_i.| + max_j |s_.j| (Bandeira and van Handel 2016, arXiv 1408.6185;
for equal entries the familiar s (sqrt(m) + sqrt(n))), and never more than its Frobenius norm. Hence

    tolerance = u min(sqrt(2/3) (max_i |W_i.| + max_j |W_.j|), |W|_F),  W = A where it changed, 0 elsewhere,

and never below eps_float32 max(m, n) sigma_1, the usual bound of arithmetic in float32.

Up to `EXACT` rows or columns the singular values are exact, from a Gram matrix in float64. Above, they are those of
Q'D with Q an orthonormal basis of Y = D Omega for `SKETCH` random columns of signs (Halko, Martinsson and Tropp 2011,
arXiv 0909.4061), and values below 5e-4 sigma_1 are not told from float32 noise. With Y'Y = V S^2 V', Q = Y V / S and
Q'D = (Z V / S)', Z = D'Y: Y and Z both grow by rows of D, so one pass suffices. The singular values of Q'D are never
above those of D: the count is a lower bound, marked as such (`at_least`) when it reaches the sketch's size or when what
is left of |D|_F is more than rounding can hold.

What it does not show: the rank that was intended. An update mostly smaller than the type's spacing is stored as
scattered single steps, and their rank is high whatever was added.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

EXACT = 256

SKETCH = 64

PROBE = 512

_WIDTH = 16  # fewest columns to go on with

_FLOAT32 = torch.finfo(torch.float32).eps

# Products in float32, divided by S: below this share of the largest singular value a direction of the sketch is noise.
_SKETCH_FLOOR = 5e-4

# Share of |D|_F^2 that the sketch's float32 arithmetic may misplace.
_ENERGY_FLOOR = 1e-5


@dataclass(frozen=True)
class RankEstimate:
    """What the singular values of a change say.

    Attributes:
        rank: number of singular values above the tolerance; a lower bound if `at_least`.
        at_least: the sketch was too small to see all of them.
        stable_rank: |D|_F^2 / sigma_1^2, at most the rank without rounding; from a sketch an upper estimate, since its
            sigma_1 is a lower bound (close where few directions dominate, up to four times too high for noise).
        largest: sigma_1, the change's spectral norm.
        tolerance: singular values up to here may be rounding.
    """

    rank: int
    at_least: bool
    stable_rank: float
    largest: float
    tolerance: float


def unit_roundoff(*dtypes: torch.dtype) -> float:
    """Largest relative error of rounding to the coarsest of these types; 0 for integers."""
    return max(torch.finfo(dtype).eps / 2 if dtype.is_floating_point else 0.0 for dtype in dtypes)


class RankSketch:
    """Streaming estimate of the numerical rank of a change, fed with its rows.

    Most changes are soon seen to be of full rank, or of a rank far below the sketch's size. After `PROBE` rows the
    sketch therefore goes on with as many columns as it needs, and checks at the end that this was right. It needs none
    if the rank is beyond it: `stable_rank` and `largest` are then those of the rows seen.
    """

    def __init__(self, rows: int, columns: int, *, roundoff: float, seed: int = 0, narrowing: bool = True) -> None:
        """Start with no rows seen.

        Args:
            rows: m of the change.
            columns: n of the change.
            roundoff: unit roundoff of the type the weights are stored in, see `unit_roundoff`.
            seed: of the random signs.
            narrowing: go on with fewer columns after `PROBE` rows; then `result` may be None.
        """
        self.shape, self.roundoff, self.exact = (rows, columns), roundoff, min(rows, columns) <= EXACT
        self._row_weights = torch.zeros(rows)
        self._column_weights = torch.zeros(columns, dtype=torch.float64)
        self._energy = 0.0
        self._seen = 0
        self._width, self._narrowing = SKETCH, narrowing
        self._full: tuple[RankEstimate, float] | None = None  # once certain: the estimate, its smallest value
        if not self.exact:
            self._signs = _signs(columns, seed)
            self._Y = torch.empty(rows, SKETCH)
            self._Zt = torch.zeros(SKETCH, columns)
        elif columns <= rows:
            self._gram = torch.zeros(columns, columns, dtype=torch.float64)
        else:
            self._change = torch.empty(rows, columns)

    def update(
        self,
        start: int,
        change: Float[Tensor, "rows columns"],
        weights: Float[Tensor, "rows columns"],
        energy: float,
    ) -> None:
        """Take in the next rows; every row has to be given, in order.

        Args:
            start: index of the first of these rows.
            change: rows of D, finite, float32.
            weights: the same rows of A in float32, 0 where nothing changed (only changed weights were rounded anew).
            energy: sum of squares of `change`.
        """
        stop = self._seen = start + len(change)
        every = 4 if len(weights) >= 16 else 1  # of a piece of many rows, each fourth says how long the columns are
        self._column_weights += weights[::every].square().sum(0).mul_(every)
        # and, once the rank is known to be full, how long the rows are
        rows = slice(start, stop, 1 if self._full is None else every)
        self._row_weights[rows] = torch.linalg.vector_norm(weights[:: rows.step], dim=1)
        self._energy += energy
        if self._full is not None:
            return
        if not self.exact:
            Y = torch.mm(change, self._signs)
            self._Y[start:stop, : self._width] = Y
            self._Zt[: self._width].addmm_(Y.T, change)
            if self._narrowing and PROBE <= stop < self.shape[0]:
                self._narrow()
        elif self.shape[1] <= self.shape[0]:
            wide = change.double()
            self._gram.addmm_(wide.T, wide)
        else:
            self._change[start:stop] = change

    def result(self) -> RankEstimate | None:
        """The estimate once every row was given; None if the sketch was narrowed too far to tell."""
        if self._seen != self.shape[0]:
            raise ValueError(f"the change has {self.shape[0]} rows, only {self._seen} were given")
        if self._full is not None:
            estimate, smallest = self._full
            tolerance = max(self._rounding(), _SKETCH_FLOOR * self._energy**0.5)  # |D|_F is above sigma_1
            return replace(estimate, tolerance=tolerance) if smallest > tolerance else None
        estimate, values = self._estimate()
        if self._width < SKETCH and (estimate.at_least or len(values) == 0):
            return None
        return estimate

    def _narrow(self) -> None:
        """Choose how many columns to go on with, from the rows seen."""
        self._narrowing = False
        estimate, values = self._estimate()
        longer = (self.shape[0] / self._seen) ** 0.5  # columns, and at most sigma_1, grow by about this
        expected = max(self._rounding(longer), _SKETCH_FLOOR * longer * self._energy**0.5)
        if estimate.rank == SKETCH and float(values[-1]) > 1.25 * expected:
            self._full = estimate, float(values[-1])  # more rows cannot lower a singular value
        elif not estimate.at_least and 2 * estimate.rank < SKETCH:
            self._width = max(_WIDTH, 2 * estimate.rank)
            self._signs = self._signs[:, : self._width].contiguous()

    def _held(self) -> float:
        """|W|_F^2."""
        return float(self._row_weights[: self._seen].double().square().sum())

    def _rounding(self, longer: float = 1.0) -> float:
        """Largest singular value that rounding alone could give, in columns this many times longer than those seen."""
        longest = float(self._row_weights[: self._seen].max() + longer * self._column_weights.max().sqrt())
        return self.roundoff * min((2 / 3) ** 0.5 * longest, longer * self._held() ** 0.5)

    def _estimate(self) -> tuple[RankEstimate, Float[Tensor, " values"]]:
        """The estimate from the rows seen, and the singular values behind it."""
        values = self._singular_values()
        largest = float(values[0]) if len(values) else 0.0
        floor = _FLOAT32 * max(self.shape) if self.exact else max(_SKETCH_FLOOR, _FLOAT32 * max(self.shape))
        tolerance = max(self._rounding(), floor * largest)
        rank = int((values > tolerance).sum())
        left = self._energy - float((values[:rank] ** 2).sum())
        unseen = left > max(self.roundoff**2 * self._held(), _ENERGY_FLOOR * self._energy)
        estimate = RankEstimate(
            rank=rank,
            at_least=not self.exact and (rank == self._width or unseen),
            stable_rank=max(1.0, self._energy / largest**2) if largest else 0.0,
            largest=largest,
            tolerance=tolerance,
        )
        return estimate, values

    def _singular_values(self) -> Float[Tensor, " values"]:
        """Singular values, largest first: of the change, or of its projection on the sketch's range."""
        if self.exact:
            # A Gram matrix in float64 resolves 1e-8 of the largest value, well below the tolerance.
            gram = self._gram if self.shape[1] <= self.shape[0] else _gram(self._change.T)
            return torch.linalg.eigvalsh(gram).clamp_min(0).sqrt().flip(0)
        squared, V = torch.linalg.eigh(_gram(self._Y[: self._seen, : self._width]))
        kept = squared > (_SKETCH_FLOOR**2) * squared[-1]
        if not kept.any():
            return torch.zeros(0, dtype=torch.float64)
        inverse = V[:, kept] / squared[kept].sqrt()
        projected = inverse.T @ _gram(self._Zt[: self._width].T) @ inverse
        return torch.linalg.eigvalsh(projected).clamp_min(0).sqrt().flip(0)


def _gram(tall: Float[Tensor, "rows columns"]) -> Float[Tensor, "columns columns"]:
    """Columns' products in float64, a slice of rows at a time."""
    gram = torch.zeros(tall.shape[1], tall.shape[1], dtype=torch.float64)
    for part in tall.split(4096):
        wide = part.double()
        gram.addmm_(wide.T, wide)
    return gram


@lru_cache(maxsize=8)
def _signs(columns: int, seed: int) -> Float[Tensor, "columns sketch"]:
    """Omega; the matrices of a model have few widths."""
    signs = torch.randint(0, 2, (columns, SKETCH), generator=torch.Generator().manual_seed(seed))
    return signs.float().mul_(2).sub_(1)
