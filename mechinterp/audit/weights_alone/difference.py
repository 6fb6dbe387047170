"""What differs between two checkpoints, as tables: by tensor, block and component."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from mechinterp.data.counting import many
from mechinterp.data.showing import one_line, shown
from mechinterp.data.storage.kept_tables import keep_tables, open_tables

_UNPAIRED = ("shape", "only A", "only B")


@dataclass(frozen=True)
class Difference:
    """What two checkpoints differ in.

    Attributes:
        a: what A was opened from.
        b: what B was opened from.
        tensors: a row per parameter: `parameter`, `block` (missing outside the blocks), `component`, `status` (`same`;
            the same values in another `type`; `rounded` to the other's type; within a `step` of the codes that one side
            is stored in, which may be rounding or a change smaller than that; `changed`; another `shape`; `only A`;
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
                    "relative_change": ratio(change, norm) if len(paired) else math.nan,
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
            same = f"{'the one tensor is' if total == 1 else f'all {total} tensors are'} the same, bit for bit"
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
        elif set(counts.index) <= {"same", "type", "rounded", "step"}:
            lines = [
                f"nothing beyond the rounding of codes ({_types(table)}): no element of {counts['step']} of {total} "
                "tensors is further from the other's than a step of its codes; a change smaller than a step cannot be "
                f"told from rounding; norm of it all {self._norm('change_norm'):.3g}, {self._relative()}"
            ]
        else:
            differing = table[table["status"] != "same"]
            lines = [
                f"{len(differing)} of {total} tensors differ, in {_places(differing)}: {int(table['changed'].sum()):,} "
                f"of {int(table['elements'].sum()):,} elements, norm of the change {self._norm('change_norm'):.3g}, "
                f"{self._relative()}"
            ]
            if (recast := int(table["dtype_a"].ne(table["dtype_b"])[~table["status"].isin(_UNPAIRED)].sum())) > 0:
                lines.append(f"{many(recast, 'tensor has', 'tensors have')} another type ({_types(table)})")
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

    def __repr__(self) -> str:
        return one_line(
            self,
            f"{self.a} and {self.b}",
            f"{int((self.tensors['status'] != 'same').sum())} of {len(self.tensors)} tensors differ",
        )

    def _repr_html_(self) -> str:
        title, headings, rows = self.largest()
        tables = [] if self.identical else [pd.DataFrame(rows, columns=headings)]
        return shown(f"{self.a} and {self.b}", {}, *tables, note=f"{self.summary()}\n{title if tables else ''}")

    def _norm(self, column: str) -> float:
        return _root_of_squares(self.tensors[column])

    def _relative(self) -> str:
        return f"{100 * ratio(self._norm('change_norm'), self._norm('norm_a')):.3g}% of A's norm"


def ratio(change: float, norm: float) -> float:
    """The norm of a change over that of what was changed: 0 where nothing changed, infinite where there was nothing."""
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
