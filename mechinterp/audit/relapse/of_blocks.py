"""The base's MLPs put back block by block: what their neurons do, what they write, or both.

    activations   the base's h_down on the same tokens, patched in at growing sets of blocks: the toxic layer, then the
                  nearest ones (the lower first), to all of them
    values        the base's W_V, and its bias, transplanted at the same blocks
    both          the two together, so that the MLPs' parts after the nonlinearity are the base's

A control of `values` is of rows alone: a bias belongs to no neuron.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from math import ceil
from typing import TYPE_CHECKING

from mechinterp.audit.relapse.treatment import Known, Neurons, Treatment, patched

if TYPE_CHECKING:
    from mechinterp.audit.relapse.treatments import RelapseSettings
    from mechinterp.models.checkpoints import Checkpoint


def _sizes(settings: RelapseSettings, n_blocks: int) -> Sequence[float]:
    if settings.blocks == "all":
        return [n_blocks]
    return sorted({1, min(2, n_blocks), ceil(n_blocks / 2), n_blocks})


def nearest_blocks(block: int, n_blocks: int, wanted: int) -> list[int]:
    """A block and those nearest to it, the lower first."""
    nearest = sorted(range(n_blocks), key=lambda other: (abs(other - block), other))
    return sorted(nearest[:wanted])


def _nearest(known: Known) -> Callable[[float], Neurons]:
    return lambda dose: dict.fromkeys(nearest_blocks(known.block, known.base.n_blocks, int(dose)))


def _transplanted(tuned: Checkpoint, base: Checkpoint, neurons: Neurons, dose: float) -> AbstractContextManager[object]:
    from mechinterp.models.interventions.contexts import transplant

    return transplant(tuned, base, neurons)


@contextmanager
def _both(tuned: Checkpoint, base: Checkpoint, neurons: Neurons, dose: float) -> Iterator[None]:
    with _transplanted(tuned, base, neurons, dose), patched(tuned, base, neurons, dose):
        yield


ACTIVATIONS = Treatment("activations", "base's activations\n(blocks)", "blocks", "", _sizes, _nearest, patched)
VALUES = Treatment(
    "values", "base's value vectors\n(blocks)", "blocks", "", _sizes, _nearest, _transplanted, beside=False
)
BOTH = Treatment("both", "both\n(blocks)", "blocks", "", _sizes, _nearest, _both, controlled=False)
