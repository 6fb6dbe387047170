"""A table of a run with all that is said of it: whoever makes, checks, shows or documents a table asks it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from mechinterp.measures.intervals import ends

if TYPE_CHECKING:
    import pandas as pd

    from mechinterp.audit.tables.contrast import Contrast

KEYS: Mapping[str, str] = {
    "method": "label of the checkpoint: a method of the study, or the name it was given",
    "checkpoint": "label of the checkpoint",
    "direction": "measured along: probe, answer, class_means, per_prompt (each prompt’s own), or one added",
    "position": "where in the text: prompt_last (last prompt token), response (mean over the unsafe one), generated:…",
    "layer": "the block, counted from 0",
    "block": "of the model, counted from 0; empty outside the blocks",
    "neuron": "of the block, counted from 0",
    "instance": "number of the instance in the test file",
    "fact": "number of the fact in its file, from 1",
    "record": "number of the record in its file, from 1",
    "category": "of unsafe content, as the data name it",
    "quantity": "what the row's value is of",
    "n": "what the row's shares are of: prompts, instances or answers",
}
"""Columns that mean the same in every table that has them."""


@dataclass(frozen=True)
class Table:
    """A table of a run, `tables/NAME.csv`.

    Attributes:
        name: of the file, without its ending; `NAME_*` for one of each method.
        title: its heading, one line.
        row: what a row is.
        keys: columns that tell the rows apart, or say what they are of; each one of `KEYS`.
        columns: what its other columns hold, with unit or range; one text may be of several (`erasure, bypass`), and of
            all that a pattern matches (`cosine_*`).
        intervals: columns that have the ends of their 95% interval beside them, `NAME_low` and `NAME_high`.
        decides: columns that a reader wants to see first.
        optional: of some runs only: where there is something to fill it with.
        printed: the page prints its first rows.
        reported: the report reads it, to print it or to draw a figure from it.
        stage: the study's stage that writes it; none for what only other commands write.
        make: of a comparison's tables: the rows of one checkpoint against its base, None where it has none.
        once: the same whichever checkpoint is compared: it is of the base alone.
        of_base: the base has rows of its own, the first.
    """

    name: str
    title: str
    row: str
    keys: tuple[str, ...]
    columns: Mapping[str, str]
    intervals: tuple[str, ...] = ()
    decides: tuple[str, ...] = ()
    optional: bool = False
    printed: bool = True
    reported: bool = True
    stage: str | None = None
    make: Callable[[Contrast], pd.DataFrame | None] | None = field(default=None, repr=False)
    once: bool = False
    of_base: bool = False

    @property
    def path(self) -> str:
        """Its place in a run folder."""
        return f"tables/{self.name}.csv"

    def missing(self, columns: Iterable[str]) -> list[str]:
        """What it should have and these columns lack; of a pattern nothing is asked."""
        there = set(columns)
        named = [name for name in (*self.keys, *self._names()) if "*" not in name]
        bounds = [end for name in self.intervals for end in ends(name)]
        return [name for name in (*named, *bounds) if name not in there]

    def reading_order(self, columns: Iterable[str]) -> list[str]:
        """Columns with the keys first and what decides last: pandas leaves out the middle where a line is short."""
        there = list(columns)
        ends_with = [name for name in self.decides if name in there]
        starts_with = [name for name in self.keys if name in there]
        return [*starts_with, *(name for name in there if name not in {*starts_with, *ends_with}), *ends_with]

    def meaning(self, column: str) -> str | None:
        """What a column holds; None for one that the table should not have."""
        if column in self.keys:
            return KEYS[column]
        for estimate in self.intervals:
            if column in ends(estimate):
                return f"{'lower' if column == ends(estimate)[0] else 'upper'} end of the 95% interval of {estimate}"
        entry = self.entry(column)
        return None if entry is None else self.columns[entry]

    def entry(self, column: str) -> str | None:
        """The key of `columns` whose text tells what a column holds; None where none does."""
        return next((names for names in self.columns if any(fnmatchcase(column, n) for n in _split(names))), None)

    def markdown(self) -> str:
        """What there is to know of it, as a section of a document."""
        title = self.title if self.title.endswith("?") else f"{self.title}."
        lines = [f"## `{self.name}.csv`{' (optional)' if self.optional else ''}", "", f"{title} A row: {self.row}.", ""]
        lines += [f"- {', '.join(f'`{key}`' for key in self.keys)}"] if self.keys else []
        for names, text in self.columns.items():
            marked = [f"`{name}`{' (95% interval)' if name in self.intervals else ''}" for name in _split(names)]
            lines.append(f"- {', '.join(marked)}: {text}")
        return "\n".join(lines)

    def _names(self) -> list[str]:
        return [name for names in self.columns for name in _split(names)]


def _split(names: str) -> list[str]:
    return names.split(", ")
