"""The partition of a model's parameters: every one is in exactly one group, tied ones once.

    embed       embeddings of tokens and positions, and the unembedding
    attention   all matrices and biases of attention; split, attention.qk and attention.vo
    mlp.in      what flows into the MLP's nonlinearity, with the gate where there is one
    mlp.out     W_V and its bias: the toxic regions
    norm        gains and biases of every norm, those inside attention too

Names are translated by `HookNames.component`; no architecture has rules of its own here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from mechinterp.errors import InputError, near
from mechinterp.models.names import HookNames

Grouping = Literal["kinds", "split", "blocks"]
"""The five groups; attention split in two; or a group for each block, and those outside the blocks by kind."""

KINDS = ("embed", "attention", "attention.qk", "attention.vo", "mlp.in", "mlp.out", "norm")
"""Names of groups, in the order of tables."""


@dataclass(frozen=True)
class Place:
    """Where a parameter belongs.

    Attributes:
        group: of the partition.
        block: from 0; None outside the blocks.
        kind: the group that it has among the five.
    """

    group: str
    block: int | None
    kind: str


def places(names: HookNames, parameters: Iterable[str], grouping: Grouping = "kinds") -> dict[str, Place]:
    """The place of every parameter.

    Args:
        names: of the architecture.
        parameters: the model's own names, tied ones once.
        grouping: how fine the partition is.

    Raises:
        InputError: for an unknown grouping; blocks without a single W_V; or queries, keys and values packed into one
            matrix where they are to be split.
    """
    if grouping not in get_args(Grouping):
        meant = near(grouping, get_args(Grouping))
        raise InputError(f"groups must be one of {get_args(Grouping)}, got {grouping!r}{meant}")
    for block in range(names.n_blocks):
        names.value_parameter(block)
    return {parameter: _place(names, parameter, grouping) for parameter in parameters}


def _place(names: HookNames, parameter: str, grouping: Grouping) -> Place:
    block, component = names.component(parameter)
    part, _, inside = component.partition(".")
    if "norm" in _module_class(names, parameter):
        kind = "norm"
    elif block is None:
        kind = "embed"
    elif part == "attn":
        kind = "attention"
    elif part == "mlp":
        kind = "mlp.out" if inside == "out" else "mlp.in"
    else:
        raise InputError(f"{names.source}: the parameter {parameter} belongs to no group ({component})")
    if grouping == "blocks":
        return Place(kind if block is None else f"block {block}", block, kind)
    if grouping == "split" and kind == "attention":
        if inside not in ("q", "k", "v", "o"):
            raise InputError(
                f"{names.source} packs queries, keys and values into one matrix ({parameter}): attention cannot be "
                "split; take the groups 'kinds'"
            )
        return Place(f"attention.{'qk' if inside in 'qk' else 'vo'}", block, kind)
    return Place(kind, block, kind)


def _module_class(names: HookNames, parameter: str) -> str:
    return type(names.skeleton.get_submodule(parameter.rpartition(".")[0])).__name__.lower()


def in_order(groups: Iterable[str]) -> tuple[str, ...]:
    """Distinct groups in the order of tables: by kind, then blocks by number."""
    known = {kind: place for place, kind in enumerate(KINDS)}
    numbers = {group: int(group.removeprefix("block ")) for group in groups if group.startswith("block ")}
    return tuple(sorted(set(groups), key=lambda group: (known.get(group, len(known)), numbers.get(group, 0))))
