"""Which weights two checkpoints differ in, by how much and of what rank: read tensor by tensor, no model is built.

For every parameter A and its counterpart B: |B - A| (Frobenius), |B - A| / |A|, the largest change of an element, and
the numerical rank of a matrix's change (`measures.rank`). Rows are grouped by block and TransformerLens component.
Bits are compared first, and arithmetic is done only where they differ: an edit that was never saved is known as soon as
both files have been read.

A small change of weights is not a small change of behaviour, nor the other way round.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pandas as pd
import torch

from mechinterp.audit.weights_alone.difference import Difference, ratio
from mechinterp.errors import InputError
from mechinterp.measures.change import Change, Screening, measure, screen
from mechinterp.measures.codes import is_coded, rounding
from mechinterp.models.files.configs import unlike_configs
from mechinterp.models.files.weights import LazyWeights


def diff(
    a: LazyWeights,
    b: LazyWeights,
    *,
    rank: bool = True,
    seed: int = 0,
    progress: Callable[..., None] | None = None,
) -> Difference:
    """Compare two checkpoints tensor by tensor.

    Args:
        a: the checkpoint before.
        b: the one after.
        rank: estimate numerical ranks of the changes of matrices.
        seed: of the sketches behind the ranks of large matrices.
        progress: called with (tensors done, tensors in all); a tensor that differs is done twice.

    Returns:
        The difference. Memory holds, besides what the files map, a few megabytes per thread and large tensor.

    Raises:
        InputError: the architectures differ, or no parameter has the same name and shape in both.
    """
    shapes = [{name: weights.shape(name) for name in weights.parameters} for weights in (a, b)]
    _check_comparable(a, b, *shapes)
    paired = [name for name, shape in shapes[0].items() if shapes[1].get(name) == shape]
    paired.sort(key=lambda name: -math.prod(shapes[0][name]))  # the largest first keep every thread busy to the end
    tell = progress or (lambda done, total: None)
    with _threads() as pool:
        screened = {}
        for name, found in zip(paired, pool.map(lambda n: _screened(n, a, b), paired), strict=True):
            screened[name] = found
            tell(len(screened), 2 * len(paired))
        differing = [name for name in paired if screened[name].status not in ("same", "type")]
        measured = {}
        changes = pool.map(lambda n: measure(a.tensor(n), b.tensor(n), rank=rank, seed=seed), differing)
        for name, change in zip(differing, changes, strict=True):
            measured[name] = change
            tell(2 * len(paired) - len(differing) + len(measured), 2 * len(paired))
    tell(2 * len(paired), 2 * len(paired))
    rows = []
    order = {name: place for place, name in enumerate(a.names.skeleton.state_dict())}
    for name in sorted({*shapes[0], *shapes[1]}, key=lambda name: (order.get(name, len(order)), name)):
        block, component = (a if name in shapes[0] else b).names.component(name)
        rows.append(
            {
                "parameter": name,
                "block": block,
                "component": component,
                **_stored(name, a, b, *shapes),
                **_row(screened.get(name), measured.get(name)),
            }
        )
    table = pd.DataFrame(rows).astype({"block": "Int64", "rank": "Int64"})
    configs = unlike_configs(a.names.config, b.names.config)
    return Difference(a.source, b.source, table, seed, configs)


def _screened(name: str, a: LazyWeights, b: LazyWeights) -> Screening:
    """What comparing the bits says, and where one side is stored in codes, whether these explain the difference."""
    in_a, in_b = a.tensor(name), b.tensor(name)
    found, types = screen(in_a, in_b), (a.stored_type(name), b.stored_type(name))
    if found.status == "same" and types[0] != types[1]:
        return replace(found, status="type")
    if found.status == "changed":
        sides = ((in_a, in_b, types[0]), (in_b, in_a, types[1]))
        ways = {rounding(read, other, kind) for read, other, kind in sides if is_coded(kind)}
        status = next((way for way in ("rounded", "step") if way in ways), found.status)
        return replace(found, status=status)
    return found


@contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    """As many threads as torch may use, each working alone: reading one tensor overlaps with arithmetic on another."""
    allowed = torch.get_num_threads()
    pool = ThreadPoolExecutor(allowed, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(allowed)


def _check_comparable(a: LazyWeights, b: LazyWeights, in_a: dict[str, Any], in_b: dict[str, Any]) -> None:
    kinds = [weights.names.config.model_type for weights in (a, b)]
    if kinds[0] != kinds[1]:
        raise InputError(f"{a.source} and {b.source} have different architectures ({kinds[0]}, {kinds[1]})")
    if not any(in_b.get(name) == shape for name, shape in in_a.items()):
        name = next(iter(in_a))
        raise InputError(
            f"{a.source} and {b.source} have no tensor of the same name and shape in common "
            f"({name} is {in_a[name]} in the first, {in_b.get(name, 'missing')} in the second)"
        )


def _stored(name: str, a: LazyWeights, b: LazyWeights, in_a: dict[str, Any], in_b: dict[str, Any]) -> dict[str, Any]:
    """Shapes and types on both sides, and what follows from them alone."""
    status = "only A" if name not in in_b else "only B" if name not in in_a else "shape"
    return {
        "status": status,  # replaced where both have the same shape
        "shape_a": "x".join(map(str, in_a[name])) if name in in_a else None,
        "shape_b": "x".join(map(str, in_b[name])) if name in in_b else None,
        "dtype_a": a.stored_type(name) if name in in_a else None,
        "dtype_b": b.stored_type(name) if name in in_b else None,
        "elements": math.prod(in_a.get(name, in_b.get(name, ()))),
    }


def _row(screened: Screening | None, change: Change | None) -> dict[str, Any]:
    """The measured columns; empty without a counterpart of the same shape."""
    if screened is None:
        zero, none = {"changed": 0, "nonfinite_a": 0, "nonfinite_b": 0}, math.nan
        norms = dict.fromkeys(("norm_a", "change_norm", "relative_change", "largest_change", "stable_rank"), none)
        return {**zero, **norms, "rank": None, "rank_at_least": False}
    if change is None:
        bad = screened.nonfinite
        change = Change(0, screened.norm, 0.0, 0.0, bad, bad, None)
    estimate = change.rank
    return {
        "status": screened.status,
        "changed": change.changed,
        "norm_a": change.norm,
        "change_norm": change.change_norm,
        "relative_change": ratio(change.change_norm, change.norm),
        "largest_change": change.largest,
        "rank": None if estimate is None else estimate.rank,
        "rank_at_least": estimate is not None and estimate.at_least,
        "stable_rank": math.nan if estimate is None else estimate.stable_rank,
        "nonfinite_a": change.nonfinite_before,
        "nonfinite_b": change.nonfinite_after,
    }
