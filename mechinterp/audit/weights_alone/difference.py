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
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from mechinterp.data.showing import shown
from mechinterp.data.storage.kept_tables import keep_tables, open_tables
from mechinterp.errors import InputError
from mechinterp.measures.change import Change, Screening, measure, screen
from mechinterp.models.files.configs import unlike_configs
from mechinterp.models.files.weights import LazyWeights

_UNPAIRED = ("shape", "only A", "only B")


@dataclass(frozen=True)
class Difference:
    """What two checkpoints differ in.

    Attributes:
        a: what A was opened from.
        b: what B was opened from.
        tensors: a row per parameter: `parameter`, `block` (missing outside the blocks), `component`, `status` (`same`;
            the same values in another `type`; `rounded` to the other's type; `changed`; another `shape`; `only A`;
            `only B`), `shape_a`, `shape_b`, `dtype_a`, `dtype_b`, `elements`, `changed` (elements), `norm_a`,
            `change_norm`, `relative_change` (of `norm_a`), `largest_change`, `rank`, `rank_at_least` (the rank is a
            lower bound), `stable_rank` (see `measures.rank`), `nonfinite_a`, `nonfinite_b`. Tied parameters have one
            row.
        seed: of the rank's sketches.
        configs: settings in which the configs differ, so that equal weights would not compute the same; None if none.
    """

    a: str
    b: str
    tensors: pd.DataFrame = field(repr=False)
    seed: int = 0
    configs: str | None = None

    @property
    def identical(self) -> bool:
        """Whether every tensor is the same, bit for bit, on both sides."""
        return bool((self.tensors["status"] == "same").all())

    @cached_property
    def blocks(self) -> pd.DataFrame:
        """A row per block and component, over its tensors: counts, norms, and the largest rank of a matrix.

        `norm_a`, `change_norm` and `relative_change` cover the tensors with a counterpart of the same shape.
        """
        keys = ["block", "component"]
        rows = []
        for (block, component), group in self.tensors.groupby(keys, sort=False, dropna=False):
            paired = group[~group["status"].isin(_UNPAIRED)]
            norm, change = (_root_of_squares(paired[name]) for name in ("norm_a", "change_norm"))
            rank = group["rank"].max()
            rows.append(
                {
                    "block": block,
                    "component": component,
                    "tensors": len(group),
                    "differing": int((group["status"] != "same").sum()),
                    "unpaired": int(group["status"].isin(_UNPAIRED).sum()),
                    "elements": int(group["elements"].sum()),
                    "changed": int(group["changed"].sum()),
                    "norm_a": norm,
                    "change_norm": change,
                    "relative_change": _ratio(change, norm) if len(paired) else math.nan,
                    "largest_change": group["largest_change"].max(),
                    "rank": rank,
                    "rank_at_least": bool(group.loc[group["rank"] == rank, "rank_at_least"].any()),
                    "nonfinite_a": int(group["nonfinite_a"].sum()),
                    "nonfinite_b": int(group["nonfinite_b"].sum()),
                }
            )
        return pd.DataFrame(rows).astype({"block": "Int64", "rank": "Int64"})

    def summary(self) -> str:
        """What differs, in plain words: one line, and one more per warning."""
        table, total = self.tensors, len(self.tensors)
        counts = table["status"].value_counts()
        if self.identical:
            same = f"all {total} tensors are the same, bit for bit"
            lines = [f"identical: {same} (if an edit should be in one of them, it was not saved)"]
            if self.configs is not None:
                lines = [f"the weights are identical, the models are not: {same}"]
        elif set(counts.index) <= {"same", "type"}:
            lines = [f"same values, stored in other types ({_types(table)}): {counts['type']} of {total} tensors"]
        elif set(counts.index) <= {"same", "type", "rounded"}:
            lines = [
                f"nothing but rounding: {counts['rounded']} of {total} tensors are the other's, rounded to the coarser "
                f"type ({_types(table)}); norm of that {self._norm('change_norm'):.3g}, {self._relative()}"
            ]
        else:
            differing = table[table["status"] != "same"]
            lines = [
                f"{len(differing)} of {total} tensors differ, in {_places(differing)}: {int(table['changed'].sum()):,} "
                f"of {int(table['elements'].sum()):,} elements, norm of the change {self._norm('change_norm'):.3g}, "
                f"{self._relative()}"
            ]
            if (recast := int(table["dtype_a"].ne(table["dtype_b"])[~table["status"].isin(_UNPAIRED)].sum())) > 0:
                lines.append(f"{recast} tensors have another type ({_types(table)})")
        for status, words in (
            ("shape", "have another shape"),
            ("only A", "are only in A"),
            ("only B", "are only in B"),
        ):
            if counts.get(status, 0):
                first = table.loc[table["status"] == status, "parameter"].iloc[0]
                lines.append(f"{counts[status]} of {total} tensors {words}, the first is {first}")
        for side in ("a", "b"):
            bad = table[table[f"nonfinite_{side}"] > 0]
            if len(bad):
                lines.append(
                    f"{side.upper()} holds {int(bad[f'nonfinite_{side}'].sum()):,} values that are not finite, "
                    f"the first in {bad['parameter'].iloc[0]}; norms leave them out"
                )
        if self.configs is not None:
            lines.append(f"the configs differ in {self.configs}")
        return "\n".join(lines)

    def largest(self, n: int = 12) -> tuple[str, list[str], list[list[str]]]:
        """The groups with the largest relative change, as a title, headings and rows of text for a terminal."""
        table = self.blocks
        table = table[table["differing"] > 0].sort_values("relative_change", ascending=False, na_position="last")
        rows = [
            [
                row["component"] if pd.isna(row["block"]) else f"blocks.{row['block']}.{row['component']}",
                f"{row['differing']} of {row['tensors']}",
                f"{row['changed']:,}",
                f"{row['change_norm']:.3g}",
                "" if pd.isna(row["relative_change"]) else f"{100 * row['relative_change']:.3g}%",
                "" if pd.isna(row["largest_change"]) else f"{row['largest_change']:.3g}",
                "" if pd.isna(row["rank"]) else f"{'≥ ' if row['rank_at_least'] else ''}{row['rank']}",
            ]
            for row in table.head(n).to_dict("records")
        ]
        title = f"largest relative changes ({len(rows)} of {len(table)} groups that differ)"
        return title, ["where", "tensors", "elements", "norm", "relative", "largest", "rank"], rows

    @property
    def table(self) -> pd.DataFrame:
        """The tensors, a row each."""
        return self.tensors

    def save(self, folder: str | Path) -> Path:
        """Keep it in a folder."""
        labels = {"a": self.a, "b": self.b, "seed": self.seed, "configs": self.configs}
        return keep_tables(folder, "difference", {"tensors": self.tensors}, labels)

    @classmethod
    def load(cls, folder: str | Path) -> Difference:
        """Open what `save` kept.

        Raises:
            InputError: if it is not there or damaged.
        """
        tables, labels = open_tables(folder, "difference")
        return cls(tensors=tables["tensors"].astype({"block": "Int64", "rank": "Int64"}), **labels)

    def _repr_html_(self) -> str:
        title, headings, rows = self.largest()
        tables = [] if self.identical else [pd.DataFrame(rows, columns=headings)]
        return shown(f"{self.a} and {self.b}", {}, *tables, note=f"{self.summary()}\n{title if tables else ''}")

    def _norm(self, column: str) -> float:
        return _root_of_squares(self.tensors[column])

    def _relative(self) -> str:
        return f"{100 * _ratio(self._norm('change_norm'), self._norm('norm_a')):.3g}% of A's norm"


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
        for name, found in zip(paired, pool.map(lambda n: screen(a.tensor(n), b.tensor(n)), paired), strict=True):
            screened[name] = found
            tell(len(screened), 2 * len(paired))
        differing = [name for name in paired if screened[name].status in ("changed", "rounded")]
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
        "dtype_a": str(a.dtype(name)).removeprefix("torch.") if name in in_a else None,
        "dtype_b": str(b.dtype(name)).removeprefix("torch.") if name in in_b else None,
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
        "relative_change": _ratio(change.change_norm, change.norm),
        "largest_change": change.largest,
        "rank": None if estimate is None else estimate.rank,
        "rank_at_least": estimate is not None and estimate.at_least,
        "stable_rank": math.nan if estimate is None else estimate.stable_rank,
        "nonfinite_a": change.nonfinite_before,
        "nonfinite_b": change.nonfinite_after,
    }


def _ratio(change: float, norm: float) -> float:
    if change == 0:
        return 0.0
    return change / norm if norm else math.inf


def _root_of_squares(norms: pd.Series) -> float:
    return float(np.sqrt(np.square(norms.dropna().to_numpy(float)).sum()))


def _types(table: pd.DataFrame) -> str:
    pairs = table.loc[table["dtype_a"] != table["dtype_b"], ["dtype_a", "dtype_b"]].dropna().drop_duplicates()
    return ", ".join(f"{row.dtype_a} in A, {row.dtype_b} in B" for row in pairs.itertuples())


def _places(differing: pd.DataFrame) -> str:
    """`blocks 0, 2-5, embed`: runs of blocks, then what is outside them."""
    blocks = sorted(int(block) for block in differing["block"].dropna().unique())
    runs: list[list[int]] = []
    for block in blocks:
        if runs and block == runs[-1][1] + 1:
            runs[-1][1] = block
        else:
            runs.append([block, block])
    spans = [str(first) if first == last else f"{first}-{last}" for first, last in runs]
    words = [f"block{'s' if len(blocks) > 1 else ''} {', '.join(spans)}"] if blocks else []
    return ", ".join([*words, *differing.loc[differing["block"].isna(), "component"].unique()])
