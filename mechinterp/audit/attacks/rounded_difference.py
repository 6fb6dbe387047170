"""What rounding leaves of a change of weights, from two checkpoints' files alone: each tensor is read once.

With Q the rounding, over all matrices of a kind,

    other_bucket  share of the changed weights whose code is another one in T than in B
    norm_ratio    |Q(T) - Q(B)| / |T - B|, Frobenius norms; 0: rounding gives the base back
    cosine        of Q(T) - Q(B) with T - B

Each model has scales of its own, so that one large weight that moved moves every bucket of its group.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import nan, sqrt

import pandas as pd

from mechinterp.audit.attacks.attack import Point
from mechinterp.audit.attacks.block_matrices import block_matrices, by_output
from mechinterp.errors import InputError
from mechinterp.measures.quantised import Scheme
from mechinterp.measures.rounding_difference import Left, left_of_difference
from mechinterp.models.files.weights import LazyWeights
from mechinterp.models.passes.watching import Progress

ALL = "all"
"""The kind that stands for all matrices of the blocks."""


@dataclass
class _Sums:
    """Over the matrices of a kind: their weights, and what rounding leaves."""

    weights: int = 0
    left: Left = field(default_factory=Left)

    def row(self) -> dict[str, float]:
        left = self.left
        return {
            "n_weights": self.weights,
            "changed": left.changed / self.weights,
            "other_bucket": left.moved / left.changed if left.changed else nan,
            "norm_ratio": sqrt(left.rounded / left.difference) if left.difference else nan,
            "cosine": left.product / sqrt(left.rounded * left.difference) if left.rounded and left.difference else nan,
        }


def rounded_difference(
    base: LazyWeights, tuned: LazyWeights, schemes: Mapping[Point, Scheme], *, progress: Progress | None = None
) -> pd.DataFrame:
    """A row per point and kind of matrix, then one for all kinds: setting, dose, component and what the module names.

    Args:
        base, tuned: of one architecture; single tensors are read, one matrix of each at a time.
        schemes: the rounding at each point.
        progress: called with (matrices done, matrices in all).

    Raises:
        InputError: if a matrix is not the same size in both.
    """
    kinds: dict[str, dict[Point, _Sums]] = defaultdict(lambda: {point: _Sums() for point in schemes})
    rounding = tuple(schemes.values())
    matrices = list(block_matrices(base.names))
    for done, (name, kind, inputs_first) in enumerate(matrices, 1):
        before, after = (by_output(weights.tensor(name), inputs_first) for weights in (base, tuned))
        if before.shape != after.shape:
            raise InputError(
                f"{name} is {tuple(before.shape)} in {base.source}, {tuple(after.shape)} in {tuned.source}"
            )
        for sums, left in zip(kinds[kind].values(), left_of_difference(before, after, rounding), strict=True):
            sums.weights += before.numel()
            sums.left.add(left)
        if progress is not None:
            progress(done, len(matrices))
    rows = []
    for kind, found in [*kinds.items(), (ALL, _together(kinds, schemes))]:
        labels = ({"setting": point.setting, "dose": point.dose, "component": kind} for point in schemes)
        rows += [{**label, **found[point].row()} for label, point in zip(labels, schemes, strict=True)]
    return pd.DataFrame(rows)


def in_short(table: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Of all kinds of matrices together, as headings and rows of text for a terminal."""
    rows = [
        [
            f"{row['dose']:g} bits, {row['setting']}",
            *("" if pd.isna(row[name]) else f"{row[name]:.3g}" for name in ("other_bucket", "norm_ratio", "cosine")),
        ]
        for row in table[table["component"] == ALL].to_dict("records")
    ]
    return ["rounded to", "changed weights in another bucket", "norm left", "cosine"], rows


def _together(kinds: Mapping[str, Mapping[Point, _Sums]], schemes: Mapping[Point, Scheme]) -> dict[Point, _Sums]:
    whole = {point: _Sums() for point in schemes}
    for point, sums in whole.items():
        for found in kinds.values():
            sums.weights += found[point].weights
            sums.left.add(found[point].left)
    return whole
