"""A model that is edited again and again, read at every stage; then its weights are what they were, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import WeightDelta

Edit = WeightDelta | Callable[[Checkpoint], WeightDelta]
"""A change that is there, or what makes one of the model as it then is.

One that is there may belong to the model as it then is, or to the unedited one: then its change comes on top.
"""

Read = TypeVar("Read")


@dataclass(frozen=True)
class Stages(Generic[Read]):
    """What was read of a model before, and after each of some edits.

    Attributes:
        read: n + 1 readings, the first of the unedited model.
        deltas: the n changes, each of the model that the ones before it left.
    """

    read: tuple[Read, ...]
    deltas: tuple[WeightDelta, ...]


def read_in_turn(base: Checkpoint, edits: Sequence[Edit], read: Callable[[Checkpoint], Read]) -> Stages[Read]:
    """Edit a model, edit on top of edit, and read it each time.

    Args:
        base: the unedited model; left as it was.
        edits: in their order.
        read: of the model as it stands.

    Raises:
        InputError: for an edit that belongs to other weights.
    """
    found, deltas, current = [read(base)], list[WeightDelta](), base
    with ExitStack() as stack:
        for edit in edits:
            delta = edit if isinstance(edit, WeightDelta) else edit(current)
            if current is not base and delta.fingerprint == base.fingerprint:
                delta = replace(delta, fingerprint=current.fingerprint)
            current = stack.enter_context(delta.applied(current))
            found.append(read(current))
            deltas.append(delta)
    return Stages(tuple(found), tuple(deltas))
