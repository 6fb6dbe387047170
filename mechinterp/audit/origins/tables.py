"""What came out of a game or a path, as rows of tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.audit.origins.asking import Asked
from mechinterp.audit.origins.game import Game
from mechinterp.audit.origins.path import Path
from mechinterp.audit.origins.shares import Shares
from mechinterp.audit.origins.units import Units
from mechinterp.measures.intervals import with_ends

Row = dict[str, Any]

_PARTS = (*with_ends("phi"), *with_ends("share"), "share_of_change")
COLUMNS = {
    "origins": (
        *("method", "readout", "way", "group", "n", "own_answers", *with_ends("change"), *_PARTS),
        *("completeness", "note", "alone", "last", "standard_error", "models"),
    ),
    "origins_blocks": ("method", "readout", "block", "group", *_PARTS),
    "origins_neurons": ("method", "readout", "part", "block", "number", *_PARTS),
    "origins_controls": (
        *("method", "readout", "control", "quantity", "n", *with_ends("found"), "expected", "spread", "note"),
    ),
}
"""Of every table, in their order."""


def table_of(name: str, rows: Sequence[Row] | pd.DataFrame) -> pd.DataFrame:
    """A table of rows; it may have none."""
    table = pd.DataFrame(rows, columns=list(COLUMNS[name]))
    return table.astype({column: "Int64" for column in ("block", "number") if column in table})


def game_rows(game: Game, units: Units, asked: Asked, readout: str, seed: int) -> list[Row]:
    """A row for every group."""
    shares, weights = Shares(units, game.change, game.phi, seed), units.sizes / units.sizes.sum()
    way = "exact game" if game.error is None else "sampled game"
    rows = []
    for place, group in enumerate(game.groups):
        beside = {name: float(weights @ getattr(game, name)[:, place]) for name in ("alone", "last")}
        error = 0.0 if game.error is None else float(game.error[place])
        steps = {"standard_error": error, "models": game.hybrids}
        rows.append(_row(way, readout, group, shares, game.phi[:, place], asked) | beside | steps)
    return rows


def path_rows(path: Path, units: Units, asked: Asked, readout: str, seed: int) -> list[Row]:
    """A row for every group."""
    shares = Shares(units, path.change, path.phi, seed)
    steps = {"alone": math.nan, "last": math.nan, "standard_error": math.nan, "models": path.nodes}
    return [
        _row("path", readout, group, shares, path.phi[:, place], asked) | steps
        for place, group in enumerate(path.groups)
    ]


def block_rows(path: Path, units: Units, readout: str, seed: int) -> list[Row]:
    """A row for every block and group of which the model has weights there; those outside the blocks last."""
    shares, last = Shares(units, path.change, path.phi, seed), path.places.shape[1] - 1
    rows = []
    for block in range(last + 1):
        for place, group in enumerate(path.groups):
            if (block, group) in path.present:
                own = path.places[:, block, place]
                where = {"block": None if block == last else block, "group": group}
                rows.append({"readout": readout, **where, **shares.columns(own)})
    return rows


def part_rows(path: Path, units: Units, readout: str, seed: int, top: int) -> list[Row]:
    """The neurons' value vectors, and the heads, that contribute most, whichever way."""
    shares, weights = Shares(units, path.change, path.phi, seed), units.sizes / units.sizes.sum()
    parts: dict[str, Float[Tensor, "unit block part"] | None] = {"neuron": path.neurons, "head": path.heads}
    rows = []
    for part, values in parts.items():
        if values is None:
            continue
        means = torch.einsum("u,ubp->bp", weights, values)
        for flat in means.flatten().abs().argsort(descending=True, stable=True)[:top].tolist():
            block, number = divmod(flat, means.shape[1])
            if means[block, number] != 0:
                where = {"part": part, "block": block, "number": number}
                rows.append({"readout": readout, **where, **shares.columns(values[:, block, number])})
    return rows


def _row(way: str, readout: str, group: str, shares: Shares, phi: Float[Tensor, " unit"], asked: Asked) -> Row:
    change, total = shares.of_change, float(shares.interval(shares.phi.sum(1)).value)
    return {
        "readout": readout,
        "way": way,
        "group": group,
        "n": len(asked.texts),
        "own_answers": asked.own,
        **change.columns("change"),
        **shares.columns(phi),
        "completeness": total / change.value if change.value else math.nan,
        "note": shares.undefined or "",
    }
