"""Cells of the report: what a value of a run's table looks like, formatted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mechinterp.audit.tables.table import Table
from mechinterp.measures.intervals import ends
from mechinterp.report.glossary import anchor_of, words_of
from mechinterp.report.plotting import DIRECTIONS, layer_label, p_value_label, position_label

MAX_ROWS = 60
RATES = frozenset(
    (
        *("toxicity_reduction_rate", "activation_shift_rate", "activation_shift_rate_per_input"),
        *("ds", "dg_only_q", "dg_other_a", "dg_other_q", "dg_other_aq", "dg_avg", "empty", "unjudged", "kqa"),
        *("defense", "relapse", "by_activations", "by_values", "by_both", "outside", "share_by_values", "gain"),
        *("by_layer_activations", "by_random", "exceeds_random"),
        *("by_layer_values", "by_random_values", "exceeds_random_values"),
        *("share_of_neurons", "share_of_reduction", "value_share", "recovery", "excess"),
    )
)
UNDEFINED = "–"
BLOCKS = frozenset(("layer", "block", "peak_block"))


@dataclass(frozen=True)
class ShownTable:
    """A table as the page prints it: formatted cells, a bound's columns folded into their estimate's."""

    table: Table
    columns: list[str]
    rows: list[list[str]]
    n_rows: int

    @classmethod
    def of(cls, table: Table, content: pd.DataFrame) -> ShownTable:
        """The first rows of a table."""
        bounds = {end for column in content for end in ends(str(column))}
        columns = [str(column) for column in content if column not in bounds]
        rows = [[estimate(row, column) for column in columns] for row in content.head(MAX_ROWS).to_dict("records")]
        return cls(table, columns, rows, n_rows=len(content))

    @property
    def headings(self) -> list[tuple[str, str | None]]:
        """The columns' names without underscores, and where each is defined."""
        return [(words_of(column), anchor_of(self.table, column)) for column in self.columns]


def estimate(row: Mapping[Any, Any], column: str) -> str:
    """A cell with its interval, where the row has one."""
    value = cell(column, row.get(column))
    bounds = [row.get(end) for end in ends(column)]
    if None in bounds or value == UNDEFINED:
        return value
    return with_interval(value, *(cell(column, bound) for bound in bounds))


def with_interval(value: str, low: str, high: str) -> str:
    """An estimate with the ends of its interval; an exact zero needs none."""
    return value if low == high == value == "0%" else f"{value} [{low}, {high}]"


def cell(column: str, value: object) -> str:
    """A value as the page prints it: percentages, layers, yes and no, and a dash where there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return UNDEFINED
    if str(value) in ("True", "False"):
        return "yes" if str(value) == "True" else "no"
    if not isinstance(value, int | float):
        return str(value)
    if column in BLOCKS:
        return layer_label(value)
    if column in RATES:
        return number(100 * value) + "%"
    return p_value_label(value).removeprefix("p = ") if column == "null_p" else number(value)


def number(value: float) -> str:
    """Three digits, with a true minus sign."""
    if math.isnan(value):
        return UNDEFINED
    text = f"{value:.0f}" if float(value).is_integer() and abs(value) < 1e6 else f"{value:.3g}"
    return text.replace("-", "−")


def direction_label(name: object) -> str:
    """A direction's name, as prose."""
    return DIRECTIONS.get(str(name), f"{name} direction")


def place_label(name: object) -> str:
    """A position's name, as prose."""
    return position_label(str(name))
