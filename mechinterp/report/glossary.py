"""The glossary of the page: what every column means, in the words of the tables' own descriptions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mechinterp.audit.tables.table import KEYS, Table


@dataclass(frozen=True)
class Definition:
    """What one column, or a few together, hold.

    Attributes:
        anchor: the place on the page that headings link to.
        name: the columns, without underscores.
        text: what they hold.
    """

    anchor: str
    name: str
    text: str


@dataclass(frozen=True)
class Section:
    """The definitions of one table, or of the columns that mean the same in every one."""

    anchor: str
    title: str
    row: str
    definitions: list[Definition]

    @property
    def anchors(self) -> list[str]:
        """Every place in it that something may link to."""
        return [self.anchor, *(definition.anchor for definition in self.definitions)]


def anchor_of(table: Table, column: str) -> str | None:
    """Where the page defines a column of a table; None for a column that the table should not have."""
    if column in table.keys:
        return f"column.{column}"
    entry = table.entry(column)
    return None if entry is None else _anchor(table, entry)


def glossary(tables: Iterable[Table]) -> Iterator[Section]:
    """The definitions of every column of some tables, those that mean the same everywhere first and once."""
    tables = list(tables)
    used = {key for table in tables for key in table.keys}
    shared = [Definition(f"column.{key}", words_of(key), text) for key, text in KEYS.items() if key in used]
    if shared:
        yield Section("columns", "In every table", "", shared)
    for table in tables:
        own = [Definition(_anchor(table, names), words_of(names), text) for names, text in table.columns.items()]
        yield Section(f"columns.{table.name}", table.title, table.row, own)


def words_of(names: str) -> str:
    """The names of columns as headings: without underscores, what a pattern leaves open as dots."""
    return names.replace("_*", " …").replace("*", "…").replace("_", " ")


def _anchor(table: Table, entry: str) -> str:
    return f"{table.name}.{entry.split(', ')[0]}"
