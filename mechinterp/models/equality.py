"""Whether checkpoints have equal weights, and the one note that says so: where they are equal, nothing is measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.files.weights import LazyWeights

Weights = Checkpoint | LazyWeights


@torch.no_grad()
def equal_weights(a: Weights, b: Weights) -> bool:
    """Whether all parameters are the same, bit for bit and in the same types; reading ends at the first that is not.

    Value matrices come first: they are what is mostly changed, and what was mostly read already.
    """
    shapes = [_shapes(each) for each in (a, b)]
    if shapes[0] != shapes[1]:
        return False
    names = sorted(shapes[0], key=lambda name: (a.names.component(name)[1] != "mlp.out", name))
    return all(_same(_tensor(a, name), _tensor(b, name)) for name in names)


def notes_of_equal(base: str, tuned: Sequence[str], equal: Callable[[str, str], bool]) -> list[str]:
    """A note for every tuned checkpoint whose weights are the base's, or else those of one before it.

    Args:
        base: name of the base.
        tuned: names of the others.
        equal: tells whether the weights of two, by their names, are equal.
    """
    notes = []
    for i, name in enumerate(tuned):
        twin = next((other for other in (base, *tuned[:i]) if equal(other, name)), None)
        if twin == base:
            notes.append(f"the weights are equal: {name} has the very weights of the base: was the edit never saved?")
        elif twin is not None:
            notes.append(f"the weights are equal: {name} has the very weights of {twin}")
    return notes


def _shapes(weights: Weights) -> dict[str, tuple[int, ...]]:
    if isinstance(weights, Checkpoint):
        return weights.shapes
    return {name: weights.shape(name) for name in weights.parameters}


def _tensor(weights: Weights, name: str) -> Tensor:
    return weights.parameter(name) if isinstance(weights, Checkpoint) else weights.tensor(name)


def _same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a, b.to(a.device))
