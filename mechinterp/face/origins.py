"""Which changed weights carry the change: tables and figures of one checkpoint or several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from mechinterp.answers.behaviour import UNSAFE, Behaviour
from mechinterp.answers.choosing import Named
from mechinterp.audit.origins.settings import OriginsSettings
from mechinterp.audit.readouts import WritePosition
from mechinterp.data.showing import shown
from mechinterp.face.loading import CheckpointLike, DirectionLike, directions_of
from mechinterp.face.looked_up import Opening, Several, looked_up
from mechinterp.face.run_tables import RunTables
from mechinterp.report.origins_in_words import origins_in_words
from mechinterp.report.picture import Picture
from mechinterp.runs.origins import attribute_checkpoints


@dataclass(frozen=True, eq=False, repr=False)
class OriginTables(RunTables):
    """Which changed weights carry the change of behaviour.

    Attributes:
        run: the folder of it all.
    """

    @property
    def table(self) -> pd.DataFrame:
        """A row per checkpoint, read-out, way and group of weights."""
        return self.run.table("origins")

    @property
    def blocks(self) -> pd.DataFrame:
        """The same per block and group, along the path."""
        return self.run.table("origins_blocks")

    @property
    def neurons(self) -> pd.DataFrame:
        """The neurons and heads whose weights contribute most."""
        return self.run.table("origins_neurons")

    def plot(self, name: Literal["origins", "origins_blocks"] = "origins") -> Picture:
        """Draw it: a bar per checkpoint split over groups, or a map of groups by blocks."""
        return self.run.plot(name)

    def __str__(self) -> str:
        return "\n".join(map(self.run.wording.worded, origins_in_words(self.table)))

    def _repr_html_(self) -> str:
        wanted = ["method", "readout", "way", "group", "phi", "share", "share_low", "share_high", "note"]
        return shown("origins of the change", {}, self.table[wanted], note=str(self))


def origins(
    base: CheckpointLike,
    tuned: Several,
    data: Sequence[Any] | str | Path,
    *,
    behaviour: Behaviour | str = UNSAFE,
    judge: Named | Sequence[Named] | None = None,
    answers: Literal["base", "data"] = "base",
    directions: Mapping[str, DirectionLike] | None = None,
    position: WritePosition = "prompt_last",
    settings: OriginsSettings | None = None,
    out: str | Path | None = None,
    max_new_tokens: int = 32,
    truncate: bool = False,
    seed: int = 0,
    dtype: str = "auto",
    device: str = "auto",
    chat: str | None = None,
    progress: bool | None = None,
) -> OriginTables:
    """Which changed weights carry the change of behaviour: embeddings, attention, MLPs, value vectors, norms?

    Args:
        base: the unedited model: in memory, or a source that `mi.load` takes.
        tuned: one checkpoint or edit, or several by name.
        data: pairs (SafeEdit instances are some), or the file of them; of another behaviour its data.
        behaviour: as `mi.attack` takes it.
        judge: of the base's answers, as `mi.compare` takes it.
        answers: whose unsafe answers are read: the `base`'s own to prompts that it answers unsafely, or the `data`'s.
        directions: by name; the write along each is a read-out too.
        position: where that write is read.
        settings: how it is measured, see `mi.OriginsSettings`.
        out: folder of the run; a temporary one, that goes with the result, if not given.
        max_new_tokens: longest answer of the base that is judged.
        truncate: cut prompts that exceed the context from the left instead of raising.
        seed: of every random choice.
        dtype: of what is opened from folders, as `mi.load` takes it.
        device: likewise.
        chat: as `mi.compare` takes it.
        progress: whether bars are shown; None: in a notebook or on a terminal.

    Returns:
        `.table`, `.blocks`, `.neurons`, `.plot()`; printed, a sentence for each checkpoint.

    Raises:
        InputError: before anything long, for checkpoints that cannot be compared, or data that is not there.

    Example:
        >>> mi.origins("BASE", {"dpo": "runs/dpo"}, "SafeEdit_test.json").plot()
    """
    opening = Opening(seed=seed, dtype=dtype, device=device, chat=chat, progress=progress)
    with looked_up(base, tuned, data, opening, judge=judge, behaviour=behaviour) as work:
        run = attribute_checkpoints(
            work.base,
            work.tuned,
            work.instances,
            work.judge if answers == "base" else None,
            out=None if out is None else Path(out),
            settings=settings,
            behaviour=work.behaviour,
            directions=[] if directions is None else list(directions_of(directions, "the base").values()),
            position=position,
            max_new_tokens=max_new_tokens,
            seed=seed,
            truncate=truncate,
            chat=work.chat,
            reporter=work.reporter,
        )
    return OriginTables(run)
