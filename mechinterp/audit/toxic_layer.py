"""The toxic layer to be edited, from the table of `location.locate`."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from mechinterp.data.pairs import AnyPair
from mechinterp.errors import InputError
from mechinterp.measures.distances import Distance


def toxic_block(located: pd.DataFrame, distance: Distance = "released", instance: int | None = None) -> int:
    """The toxic layer of one instance, or the most frequent one (the earliest of equals)."""
    chosen = located[located["distance"] == distance]
    if instance is not None:
        chosen = chosen[chosen["instance"] == instance]
    if chosen.empty:
        raise InputError(f"nothing was located by {distance!r} for instance {instance}")
    return int(chosen["block"].mode().min())


def blocks_for(
    located: pd.DataFrame,
    instances: Sequence[AnyPair | int],
    distance: Distance = "released",
    *,
    reuse_first_layer: bool = False,
) -> dict[int, int]:
    """The block at which each instance is edited.

    Args:
        located: the table of `locate`; with `reuse_first_layer` the first instance alone need be in it.
        instances: to be edited, or their ids, in the order in which they are.
        distance: by which they were located.
        reuse_first_layer: the first one's block for all, as the released scripts do.

    Returns:
        The block by the instance's id, in the order given.

    Raises:
        InputError: if one was not located by this distance.
    """
    ids = [instance if isinstance(instance, int) else instance.id for instance in instances]
    if reuse_first_layer and ids:
        return dict.fromkeys(ids, toxic_block(located, distance, ids[0]))
    chosen = located[located["distance"] == distance]
    blocks = dict(zip(chosen["instance"].tolist(), chosen["block"].tolist(), strict=True))
    if missing := [number for number in ids if number not in blocks]:
        raise InputError(f"nothing was located by {distance!r} for instance {missing[0]}")
    return {number: int(blocks[number]) for number in ids}
