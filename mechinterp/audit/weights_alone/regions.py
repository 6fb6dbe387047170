"""Regions from weights alone, as tables: toxicity of every block, the most toxic value vectors, and erasure.

Base and tuned checkpoints are read one block at a time, see `erasure` for what is measured and what it does not
show. The list of value vectors is kept as it grows, so memory is that of one block however many there are; the pages of
a file that was read stay mapped, and are the system's to take back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.audit.weights_alone.erasure import (
    ErasureAtBase,
    check_shape,
    erasure_at_base,
    finite_cosines,
    group_means,
)
from mechinterp.data.showing import one_line, shown
from mechinterp.data.storage.tables import read_table, write_table
from mechinterp.errors import InputError
from mechinterp.measures.region import compare_toxicity, random_toxicity, summarise_toxicity
from mechinterp.measures.statistics import random_directions
from mechinterp.measures.value_vectors import TopNeurons
from mechinterp.models.files.weights import LazyWeights
from mechinterp.models.passes.recorded import Recording

Progress = Callable[[int, int], None]

BASE = "base"
"""Label of the base in the tables."""


@dataclass(frozen=True)
class RegionTables:
    """Tidy tables of what the weights tell.

    Attributes:
        region: a row for each checkpoint and block.
        region_vectors: the base's most toxic value vectors over all blocks, and their cosines in each checkpoint.
        erasure: a row for each tuned checkpoint, direction and block; None without a recording.
    """

    region: pd.DataFrame
    region_vectors: pd.DataFrame
    erasure: pd.DataFrame | None

    @staticmethod
    def places(folder: Path) -> list[Path]:
        """Where `save` writes."""
        return [folder / f"{name}.csv" for name in ("region", "region_vectors", "erasure")]

    def save(self, folder: str | Path) -> None:
        """Write `region.csv`, `region_vectors.csv` and, where there is one, `erasure.csv`."""
        for path in self.places(Path(folder)):
            if (table := getattr(self, path.stem)) is not None:
                write_table(path, table)

    @classmethod
    def load(cls, folder: str | Path) -> RegionTables:
        """Open what `save` wrote.

        Raises:
            InputError: if it is not there or damaged.
        """
        try:
            read = {path.stem: read_table(path) for path in cls.places(Path(folder)) if path.exists()}
            return cls(read["region"], read["region_vectors"], read.get("erasure"))
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{folder}: holds no tables of regions ({error})") from error

    @property
    def table(self) -> pd.DataFrame:
        """T of every block and checkpoint, `region`."""
        return self.region

    def __repr__(self) -> str:
        return one_line(
            self,
            f"of {', '.join(map(str, self.region['checkpoint'].unique()))}",
            f"{self.region['layer'].nunique()} blocks",
        )

    def _repr_html_(self) -> str:
        wide = self.region.pivot(index="layer", columns="checkpoint", values=["toxicity", "toxicity_z"])
        return shown("toxicity T of every block", {}, wide.rename_axis("block"), rows=100)

    def summary(self, value_vectors: int = 5) -> str:
        """What to show on a terminal: T of every checkpoint by block, the most toxic value vectors, summed erasure."""
        toxicity = self.region.pivot(index="layer", columns="checkpoint", values="toxicity")
        toxicity = toxicity[self.region["checkpoint"].unique()]
        toxicity.columns.name = None
        toxicity["z of base"] = self.region[self.region["checkpoint"] == BASE].set_index("layer")["toxicity_z"]
        toxicity.index = [f"layer {block + 1} (block {block})" for block in toxicity.index]
        vectors = self.region_vectors[self.region_vectors["rank"] <= value_vectors]
        vectors = vectors.pivot(index=["block", "neuron"], columns="checkpoint", values="cosine")
        vectors = vectors[self.region["checkpoint"].unique()].sort_values(BASE, ascending=False)
        parts = ["toxicity T", toxicity.to_string(float_format="{:.5f}".format)]
        parts += ["", "most toxic value vectors, cosine", vectors.reset_index().to_string(index=False)]
        if self.erasure is not None:
            total = self.erasure.groupby(["checkpoint", "direction"], sort=False)[["write_base", "erasure"]].sum()
            parts += ["", "erasure at the base's activations, summed over blocks", total.to_string()]
        return "\n".join(parts)


def measure_regions(
    base: LazyWeights,
    direction: Float[Tensor, " d_model"],
    *,
    tuned: Mapping[str, LazyWeights] | None = None,
    blocks: Sequence[int] | None = None,
    top: int = 20,
    recording: Recording | None = None,
    directions: Mapping[str, Float[Tensor, " d_model"]] | None = None,
    seed: int = 0,
    draws: int = 1000,
    progress: Progress | None = None,
) -> RegionTables:
    """Toxicity of regions, most toxic value vectors and erasure at the base's activations, block after block.

    Every T comes with a bootstrap interval over value vectors and is set against T along random directions with the
    covariance of the base's value vectors, the same ones for every checkpoint; they take most of the time.

    Args:
        base: weights of the base.
        direction: the toxic direction w.
        tuned: label -> weights to compare with the base.
        blocks: all if not given.
        top: value vectors listed.
        recording: of the base, for the erasure.
        directions: label -> direction, for the erasure; w alone, as `probe`, if not given.
        seed: of bootstrap and random directions.
        draws: number of random directions.
        progress: called with (blocks done, blocks in all).

    Raises:
        InputError: for checkpoints of other sizes than the base, a block that is out of range or has no single W_V, a
            direction of another width, a recording that lacks a block, or weights that are not finite.
    """
    tuned = tuned or {}
    if BASE in tuned:
        raise InputError(f"{tuned[BASE].source}: give it another name than {BASE!r}, which is the base's own")
    blocks = range(base.names.n_blocks) if blocks is None else blocks
    for weights in (base, *tuned.values()):  # before anything is read
        for block in blocks:
            check_shape(weights, base, block, len(direction))
    if recording is not None:
        for block in blocks:
            group_means(recording, block)
    named = {"probe": direction} if directions is None else dict(directions)
    rows: list[dict[str, object]] = []
    erasures: list[dict[str, object]] = []
    most_toxic = TopNeurons(top)
    for done, block in enumerate(blocks):
        random = random_directions(base.value_matrix(block), draws, seed=seed)
        found = {}
        for name, weights in {BASE: base, **tuned}.items():
            values = weights.value_matrix(block)
            found[name] = finite_cosines(weights, block, values, direction), random_toxicity(values, random)
        rows += [_region_row(name, block, found, seed) for name in found]
        most_toxic.add(block, found[BASE][0], {name: of_all for name, (of_all, _) in found.items()})
        if recording is not None:
            for name, weights in tuned.items():
                term = erasure_at_base(base, weights, block, recording, torch.stack(list(named.values())), seed=seed)
                erasures += _erasure_rows(name, block, recording, list(named), term)
        if progress is not None:
            progress(done + 1, len(blocks))
    return RegionTables(
        pd.DataFrame(rows),
        _region_vectors(most_toxic),
        None if recording is None else pd.DataFrame(erasures),
    )


def _region_row(name: str, block: int, found: Mapping[str, tuple[Tensor, Tensor]], seed: int) -> dict[str, object]:
    """T of one checkpoint with interval and null, and its change from the base where it is not the base."""
    (before, null_before), (after, null_after) = found[BASE], found[name]
    own = summarise_toxicity(after, null_after, seed=seed)
    null: Any = own.null
    row = {
        "checkpoint": name,
        "layer": block,
        **own.mean.columns("toxicity"),
        "toxicity_z": null.z,
        "toxicity_p": null.p,
        **{f"top{k}_toxicity": value for k, value in own.top.items()},
        "n_value_vectors": len(after),
    }
    if name == BASE:
        return row
    change = compare_toxicity(before, after, null_before, null_after, seed=seed)
    return {
        **row,
        "toxicity_base": change.base,
        **change.reduction_rate.columns("toxicity_reduction_rate"),
        "change_z": change.null.z,
        "change_p": change.null.p,
        "ill_conditioned": change.ill_conditioned,
        # of the base's most toxic value vectors, not of the tuned checkpoint's own
        **{f"base_top{k}_toxicity": value for k, (_, value) in change.top.items()},
    }


def _region_vectors(listed: TopNeurons) -> pd.DataFrame:
    """One row for each listed value vector and checkpoint."""
    rows = [
        {"rank": i + 1, "block": int(listed.block[i]), "neuron": int(listed.neuron[i]), "checkpoint": name}
        | {"cosine": float(cosines[i])}
        for i in range(len(listed.block))
        for name, cosines in listed.columns.items()
    ]
    return pd.DataFrame(rows)


def _erasure_rows(
    name: str, block: int, recording: Recording, directions: Sequence[str], term: ErasureAtBase
) -> list[dict[str, object]]:
    return [
        {
            "checkpoint": name,
            "direction": direction,
            "position": recording.position,
            "block": block,
            "write_base": float(term.write_base[i]),
            **term.erasure[i].columns("erasure"),
            "bias": float(term.bias[i]),
            "n_inputs": recording.n_inputs,
        }
        for i, direction in enumerate(directions)
    ]
