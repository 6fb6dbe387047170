"""`quantise`: the matrices of the blocks rounded to few bits, in memory (2410.16454).

Unlearning that moves weights by less than half a step leaves a model that is its own base again once it is rounded. The
base rounded likewise stands beside it: what rounding alone does to the behaviour.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence

import pandas as pd
import torch
from pydantic import ConfigDict, Field, field_validator
from torch import Tensor

from mechinterp.audit.attacks.attack import Attack, Attacked, Further, Known, Point
from mechinterp.audit.attacks.block_matrices import block_matrices, by_output
from mechinterp.audit.attacks.rounded_difference import rounded_difference
from mechinterp.data.validation import UsersSettings
from mechinterp.errors import near
from mechinterp.measures.quantised import IN_NF4, Scheme
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.files.weights import LazyWeights
from mechinterp.models.passes.watching import Progress

SCHEMES = ("row", "128", "32", "nf4")
"""What shares a scale: a row of a matrix, 128 or 32 neighbours in it, or with NF4's values 64 of the whole matrix."""


class QuantiseOptions(UsersSettings):
    """How weights are rounded."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bits: tuple[int, ...] = Field((8, 4, 3), min_length=1, description="of whole numbers; NF4 has 4")
    schemes: tuple[str, ...] = Field(SCHEMES, min_length=1, description="what shares a scale: row, 128, 32, nf4")

    @field_validator("bits")
    @classmethod
    def _check_bits(cls, given: tuple[int, ...]) -> tuple[int, ...]:
        if not all(2 <= bits <= 8 for bits in given):
            raise ValueError(f"weights are rounded to 2 to 8 bits, got {list(given)}")
        return tuple(sorted(set(given), reverse=True))

    @field_validator("schemes")
    @classmethod
    def _check_schemes(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [name for name in given if name not in SCHEMES]:
            raise ValueError(
                f"unknown scheme {unknown[0]!r}; known are {', '.join(SCHEMES)}{near(unknown[0], SCHEMES)}"
            )
        return tuple(dict.fromkeys(given))


def scheme_of(point: Point) -> Scheme:
    """The rounding at a point."""
    if point.setting == "nf4":
        return IN_NF4
    return Scheme(int(point.dose), None if point.setting == "row" else int(point.setting))


def _points(options: QuantiseOptions, n_blocks: int) -> list[Point]:
    return [
        Point(scheme, float(bits)) for scheme in options.schemes for bits in ((4,) if scheme == "nf4" else options.bits)
    ]


def left_by_rounding(
    base: LazyWeights, tuned: LazyWeights, options: QuantiseOptions | None = None, *, progress: Progress | None = None
) -> pd.DataFrame:
    """The rows of one tuned checkpoint in `attack_quantise.csv`, without its name; from files alone.

    Args:
        base, tuned: weights of one architecture.
        options: the ways of rounding; all of them if not given.
        progress: called with (matrices done, matrices in all).
    """
    schemes = {point: scheme_of(point) for point in _points(options or QuantiseOptions(), 0)}
    return rounded_difference(base, tuned, schemes, progress=progress)


@torch.no_grad()
def round_blocks(checkpoint: Checkpoint, scheme: Scheme) -> None:
    """Round the matrices of all blocks, in place."""
    for name, _, inputs_first in block_matrices(checkpoint.names):
        own = checkpoint.parameter(name)
        own.copy_(by_output(scheme.rounded(by_output(own.detach(), inputs_first)), inputs_first))


def _run(
    target: Checkpoint, known: Known, options: QuantiseOptions, points: Sequence[Point]
) -> Generator[Attacked, None, None]:
    saved: dict[str, Tensor] = {}
    try:
        for name, _, _ in block_matrices(target.names):
            saved[name] = target.parameter(name).detach().to("cpu", copy=True)
        for place, point in enumerate(points):
            if place:
                _put_back(target, saved)
            round_blocks(target, scheme_of(point))
            yield Attacked(point, target)
    finally:
        _put_back(target, saved)


@torch.no_grad()
def _put_back(target: Checkpoint, saved: Mapping[str, Tensor]) -> None:
    for name, weight in saved.items():
        target.parameter(name).copy_(weight)


QUANTISE = Attack(
    name="quantise",
    label="quantisation",
    unit="bits",
    options=QuantiseOptions,
    points=_points,
    run=_run,
    line="the matrices of all blocks rounded to few bits",
    further=(
        Further(
            "attack_quantise",
            lambda target, known, options: left_by_rounding(known.base.weights, target.weights, options),
        ),
    ),
)
