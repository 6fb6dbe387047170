"""How far one stored tensor is from another: element counts, norms and numerical rank, in two streaming passes.

`screen` compares bits and stops at the first that differ; `measure` does the arithmetic, for tensors that differ only.
Both work in pieces that stay in the processor's cache, so that a tensor mapped from a file is never copied as a whole.
Differences are taken in float32 (float64 for wider types and integers), sums over pieces in float64. A norm covers the
elements that are finite on both sides; the others are counted.

A norm says how far the weights moved, not what the model does differently.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mechinterp.measures.rank import RankEstimate, RankSketch, unit_roundoff

Status = Literal["same", "type", "rounded", "step", "changed"]
_SHORT = 2**14  # elements of one float32 sum of squares: it holds the sixth digit
PIECE = 2**20  # elements: fewer calls from Python for smaller ones, and room in the last cache for larger
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_NARROW = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Screening:
    """What comparing the bits says.

    Attributes:
        status: `same` bits; the same values in another `type`; one side the other `rounded` to its type, or within a
            `step` of its codes (`measures.codes`); `changed`.
        norm: Frobenius norm of the tensor where it is the same on both sides, else NaN: left to `measure`.
        nonfinite: number of non-finite values, likewise; 0 where left to `measure`.
    """

    status: Status
    norm: float = math.nan
    nonfinite: int = 0


@dataclass(frozen=True)
class Change:
    """How a tensor changed.

    Attributes:
        changed: number of elements that differ in their value (0 and -0 are one value).
        norm: Frobenius norm before.
        change_norm: Frobenius norm of the change.
        largest: largest absolute change of an element.
        nonfinite_before: number of non-finite values before.
        nonfinite_after: the same after.
        rank: numerical rank of the change of a matrix (of its finite part); None for other shapes, or if not asked for.
    """

    changed: int
    norm: float
    change_norm: float
    largest: float
    nonfinite_before: int
    nonfinite_after: int
    rank: RankEstimate | None


def screen(before: Tensor, after: Tensor) -> Screening:
    """Compare two tensors of one shape, and stop at the first piece that decides.

    Args:
        before: the tensor in its stored type.
        after: the other, in its own.

    Returns:
        The status, and the norm if the values are the same.
    """
    if before.shape != after.shape:
        raise ValueError(f"both tensors must have one shape, got {tuple(before.shape)} and {tuple(after.shape)}")
    if before.dtype != after.dtype:
        return _screen_types(before, after)
    squared, nonfinite = 0.0, 0
    for a, b in _pieces(before, after):
        if not np.array_equal(_bits(a), _bits(b)):
            return Screening("changed")
        part, bad = _square(_widened(a))
        squared, nonfinite = squared + part, nonfinite + bad
    return Screening("same", math.sqrt(squared), nonfinite)


def _screen_types(before: Tensor, after: Tensor) -> Screening:
    """Two types: the same values, or one the other's rounding?"""
    coarse = max(before.dtype, after.dtype, key=unit_roundoff)
    same, rounded, squared, nonfinite = True, coarse.is_floating_point, 0.0, 0
    for a, b in _pieces(before, after):
        same = same and torch.equal(a.double(), b.double())
        rounded = rounded and (same or torch.equal(a.to(coarse), b.to(coarse)))
        if not (same or rounded):
            return Screening("changed")
        if same:
            part, bad = _square(_widened(a))
            squared, nonfinite = squared + part, nonfinite + bad
    return Screening("type", math.sqrt(squared), nonfinite) if same else Screening("rounded")


def measure(before: Tensor, after: Tensor, *, rank: bool = True, seed: int = 0) -> Change:
    """Measure the change between two tensors of one shape.

    Args:
        before: A in its stored type.
        after: B in its own.
        rank: estimate the numerical rank of a matrix's change; about half of the work.
        seed: of the sketch behind the rank of large matrices.

    Returns:
        The change.
    """
    sketch = None
    if rank and before.ndim == 2 and before.numel():
        roundoff = unit_roundoff(before.dtype, after.dtype)
        sketch = RankSketch(before.shape[0], before.shape[1], roundoff=roundoff, seed=seed)
    change = _measure(before, after, sketch)
    if sketch is None:
        return change
    estimate = sketch.result()
    if estimate is None:  # its first rows misled it: once more, with all columns to the end
        sketch = RankSketch(before.shape[0], before.shape[1], roundoff=roundoff, seed=seed, narrowing=False)
        _measure(before, after, sketch)
        estimate = sketch.result()
    return replace(change, rank=estimate)


def _measure(before: Tensor, after: Tensor, sketch: RankSketch | None) -> Change:
    wide = torch.float32 if before.dtype in _NARROW and after.dtype in _NARROW else torch.float64
    scratch: list[Tensor] = []
    changed, squared, moved, largest = 0, 0.0, 0.0, 0.0
    bad_before, bad_after, row = 0, 0, 0
    for stored_a, stored_b in _pieces(before, after, by_row=sketch is not None):
        # The same memory for every piece: it stays in cache.
        scratch = scratch or [torch.empty(stored_a.shape, dtype=wide) for _ in range(2)]
        a = stored_a if stored_a.dtype == wide else scratch[0][: len(stored_a)].copy_(stored_a)
        b = stored_b if stored_b.dtype == wide else scratch[1][: len(stored_b)].copy_(stored_b)
        change = scratch[1][: len(b)]
        np.subtract(b.numpy(), a.numpy(), out=change.numpy())  # the operation that numpy does faster
        count = int(np.count_nonzero(_bits(change)))  # as integers: x - x is 0, without a sign
        part, moved_part = _dot(a), _dot(change)
        if not (math.isfinite(part) and math.isfinite(moved_part)):
            finite_a, finite_b = torch.isfinite(a), torch.isfinite(stored_b)
            count = int(_differs(stored_a, stored_b).sum())  # NaN - NaN is not 0
            bad_before += int((~finite_a).sum())
            bad_after += int((~finite_b).sum())
            a = torch.where(finite_a & finite_b, a, 0.0)
            change = torch.where(finite_a & finite_b, change, 0.0)
            part, moved_part = _dot(a.double()), _dot(change.double())
        squared, moved, changed = squared + part, moved + moved_part, changed + count
        if count:
            values = change.numpy()
            largest = max(largest, -float(values.min()), float(values.max()))
        if sketch is not None:
            # Where most of a piece changed, the rest is as likely to have been rounded back.
            weights = a if 2 * count > a.numel() else a * (change != 0)
            sketch.update(row, change.float(), weights.float(), moved_part)
            row += len(change)
    return Change(changed, math.sqrt(squared), math.sqrt(moved), largest, bad_before, bad_after, None)


def _pieces(before: Tensor, after: Tensor, *, by_row: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
    """The same elements of both, in order: whole rows of a matrix, or stretches of anything."""
    if not by_row:
        before, after = before.reshape(-1), after.reshape(-1)
    step = max(1, PIECE // before.shape[1]) if by_row else PIECE
    for start in range(0, len(before), step):
        yield before[start : start + step].contiguous(), after[start : start + step].contiguous()


def _bits(piece: Tensor) -> np.ndarray:
    return piece.view(_BITS[piece.element_size()]).numpy()  # numpy compares several times as fast


def _differs(a: Tensor, b: Tensor) -> Tensor:
    """Where values differ; NaN is NaN."""
    return (a != b) & ~(torch.isnan(a) & torch.isnan(b))


def _widened(piece: Tensor) -> Tensor:
    return piece.to(torch.float32 if piece.dtype in _NARROW else torch.float64)


def _dot(piece: Tensor) -> float:
    """Sum of squares, in short sums: of a million float32 squares some processors lose the fifth digit."""
    flat = piece.reshape(-1).numpy()
    parts = (flat[start : start + _SHORT] for start in range(0, len(flat), _SHORT))
    with np.errstate(over="ignore"):  # who calls looks for infinities
        return sum(float(np.dot(part, part)) for part in parts)


def _square(piece: Tensor) -> tuple[float, int]:
    """Sum of squares of the finite elements, and the number of the others."""
    total = _dot(piece)
    if math.isfinite(total):
        return total, 0
    finite = torch.isfinite(piece)  # all of them, if only the squares of large values do not fit into float32
    return _dot(torch.where(finite, piece, 0.0).double()), int((~finite).sum())
