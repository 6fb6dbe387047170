"""The origins of one checkpoint's change: every read-out by the path, and by the exact game where that is cheap."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path as Folder

import pandas as pd
import torch

from mechinterp.audit.origins.asking import Asked
from mechinterp.audit.origins.change import Change
from mechinterp.audit.origins.controls import controls
from mechinterp.audit.origins.game import EXACT, Ends, play
from mechinterp.audit.origins.path import COMPLETE, attribute
from mechinterp.audit.origins.settings import OriginsSettings
from mechinterp.audit.origins.shares import Shares
from mechinterp.audit.origins.tables import (
    COLUMNS,
    Row,
    block_rows,
    game_rows,
    part_rows,
    path_rows,
    table_of,
)
from mechinterp.audit.origins.units import GROUPS_OF_PROMPTS, Units
from mechinterp.audit.readouts import READOUTS, Readout, read
from mechinterp.data.storage.kept_tables import keep_tables, open_tables
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import WeightDelta
from mechinterp.models.passes.watching import Progress

logger = logging.getLogger(__name__)

_CHEAP = 1e12
"""Multiplications and additions of all hybrids of a game: about a minute of one core."""


@dataclass(frozen=True)
class Origins:
    """What came out of one checkpoint: tables `origins`, `origins_blocks`, `origins_neurons`, `origins_controls`."""

    tables: Mapping[str, pd.DataFrame] = field(repr=False)

    def save(self, folder: Folder) -> Folder:
        """Keep it in a folder."""
        return keep_tables(folder, "origins", self.tables, {})

    @classmethod
    def load(cls, folder: Folder) -> Origins:
        """Open what `save` kept."""
        tables, _ = open_tables(folder, "origins")
        for name in ("origins", "origins_controls"):
            notes = tables[name]["note"].astype(object)  # of no notes at all a column without a value is read
            tables[name] = tables[name].assign(note=notes.where(notes.notna(), ""))
        return cls({name: table_of(name, tables[name]) for name in COLUMNS})

    def named(self, method: str) -> Origins:
        """The same of a checkpoint of another label."""
        return Origins({name: table.assign(method=method) for name, table in self.tables.items()})


def origins_of(
    base: Checkpoint,
    tuned: Checkpoint | WeightDelta,
    asked: Asked,
    *,
    method: str,
    settings: OriginsSettings | None = None,
    more: Mapping[str, Readout] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Origins:
    """Share out a checkpoint's change of behaviour among its changed weights.

    Args:
        base: the model before; left as it was, and so is the tuned one.
        tuned: of the same shape, or an edit of the base.
        asked: what both are read on.
        method: what it is called in tables and warnings.
        settings: see `OriginsSettings`.
        more: further read-outs, by name.
        seed: of draws and permutations.
        progress: called with (steps done, steps in all), for every game and path anew.

    Raises:
        InputError: for models that do not fit each other.
    """
    settings = settings or OriginsSettings()
    change, texts = Change.of(base, tuned, settings.groups), asked.texts
    units, few = Units.of(asked.questions), Units.of(asked.questions, GROUPS_OF_PROMPTS)
    rows: dict[str, list[Row]] = {name: [] for name in COLUMNS}
    for name, readout in {**{name: READOUTS[name] for name in settings.readouts}, **(more or {})}.items():
        ends = _ends(change, asked, readout)
        if settings.game == "always" or (settings.game == "auto" and _is_cheap(change, asked)):
            sampling = {"permutations": settings.permutations, "seed": seed}
            game = play(change, texts, readout, units, ends=ends, progress=progress, **sampling)
            rows["origins"] += game_rows(game, units, asked, name, seed)
        known = ends if change.nodes_as_hybrids else None
        shared_out = Shares(few, few.means(ends[1] - ends[0]), torch.zeros(len(few), 0), seed).undefined is None
        spent = {"nodes": settings.nodes, "at_most": settings.most_nodes if shared_out else 0}
        along = attribute(change, texts, readout, few, **spent, ends=known, progress=progress)
        of_groups = path_rows(along, few, asked, name, seed)
        _warn_of_incompleteness(method, name, of_groups[0]["completeness"])
        rows["origins"] += of_groups
        rows["origins_blocks"] += block_rows(along, few, name, seed)
        rows["origins_neurons"] += part_rows(along, few, name, seed, settings.top)
        with change.hybrid(()) as again:
            itself = ends[0], read(again, texts, readout)
        known_beforehand = controls(change, readout, units, few, ends, itself, along, seed=seed)
        rows["origins_controls"] += [{"readout": name, **row} for row in known_beforehand]
    return Origins({name: table_of(name, [{"method": method, **row} for row in own]) for name, own in rows.items()})


def exact_shares(base: Checkpoint, tuned: Checkpoint | WeightDelta, asked: Asked, *, seed: int = 0) -> pd.DataFrame:
    """The game of the log odds alone, without the path: the rows of `origins`, but for the method.

    Args:
        base, tuned, asked, seed: as `origins_of` takes them.
    """
    change, units, readout = Change.of(base, tuned), Units.of(asked.questions), READOUTS["log_odds"]
    game = play(change, asked.texts, readout, units, ends=_ends(change, asked, readout), seed=seed)
    return pd.DataFrame(game_rows(game, units, asked, "log_odds", seed))


def _warn_of_incompleteness(method: str, readout: str, complete: float) -> None:
    if complete < COMPLETE[0] or complete > COMPLETE[1]:  # neither where there is no change to make up
        logger.warning(
            "%s: the contributions along the path add up to %.1f%% of the change of %s; more `nodes` and `most_nodes` "
            "bring them nearer",
            method,
            100 * complete,
            readout,
        )


def origins_tables(found: Sequence[Origins]) -> dict[str, pd.DataFrame]:
    """The tables of several checkpoints, one below the other."""
    return {name: pd.concat([each.tables[name] for each in found], ignore_index=True) for name in COLUMNS}


def _ends(change: Change, asked: Asked, readout: Readout) -> Ends:
    with change.hybrid(()) as before:
        first = read(before, asked.texts, readout)
    with change.hybrid(change.changed) as after:
        return first, read(after, asked.texts, readout)


def _is_cheap(change: Change, asked: Asked) -> bool:
    """Whether all hybrids are read in about a minute of one core."""
    tokens = sum(len(text.ids) for text in (*asked.texts.unsafe, *asked.texts.safe))
    weights = sum(parameter.numel() for parameter in change.base.model.parameters())
    return len(change.changed) <= EXACT and 2.0 * weights * tokens * 2 ** len(change.changed) <= _CHEAP
