"""What the figures are put together from: checks of tables, bars with intervals, labels of rows."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.lines import Line2D

from mechinterp.errors import InputError
from mechinterp.measures.intervals import ends, has_ends, with_ends
from mechinterp.report.plotting.style import (
    DOUBLE_COLUMN,
    FAINT,
    INK,
    SINGLE_COLUMN,
    STYLE,
    method_colours,
    method_label,
)

BANDS = 8
"""Curves in a panel, above which their bands would hide each other: their ends are in the tables."""


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of a size in inches, whose parts make room for each other."""
    return Figure(figsize=(width, height), layout="constrained")


def require(table: pd.DataFrame, name: str, columns: Iterable[str]) -> None:
    """Raise `InputError` unless the table has these columns and at least one row."""
    if missing := [column for column in columns if column not in table]:
        raise InputError(f"tables/{name}.csv lacks the columns {', '.join(missing)}; make the table again")
    if table.empty:
        raise InputError(f"tables/{name}.csv has no rows; make the table again")


def truths(column: pd.Series) -> list[bool]:
    """A column of a CSV as truth values."""
    return [str(value).lower() in ("true", "1", "1.0") for value in column]


def finite(column: pd.Series) -> np.ndarray:
    """A column as numbers, NaN for what is not finite: it is left out, not drawn at the edge."""
    values = column.to_numpy(float)
    return np.where(np.isfinite(values), values, np.nan)


def ordered(column: pd.Series, known: Iterable[str]) -> list[str]:
    """The names in a column, those known in their order and the others after them."""
    present = set(column)
    first = [name for name in known if name in present]
    return first + sorted(present - set(first))


def percent(rate: float, *, signed: bool = True) -> str:
    """A rate as figures print it."""
    if not np.isfinite(rate):
        return "no value"
    if rate == 0:
        return "0% exactly"
    text = f"{100 * rate:+.3g}%" if signed else f"{100 * rate:.3g}%"
    return text.replace("-", "−")


def tint(colour: str, strength: float) -> tuple[float, ...]:
    """A lighter shade of a colour, 0 for white."""
    return tuple(1 - strength * (1 - part) for part in to_rgb(colour))


def key_marker(label: str, marker: str, colour: str) -> Line2D:
    """A marker for the key of a figure."""
    return Line2D([], [], linestyle="", marker=marker, markersize=5, color=colour, mec=INK, mew=0.5, label=label)


def short(label: str) -> str:
    """A label of at most 34 letters."""
    # The middle goes: checkpoints of one series share their beginning.
    return label if len(label) <= 34 else f"{label[:16]}…{label[-17:]}"


def label_rows(axes: Axes, labels: list[str]) -> None:
    """Name the rows of a panel, the first on top."""
    axes.set_yticks(range(len(labels)), [textwrap.fill(short(label), 18) for label in labels])
    axes.set_ylim(len(labels) - 0.5, -0.5)


def annotate_rows(axes: Axes, notes: list[str]) -> None:
    """Write a note to the right of each row."""
    for row, note in enumerate(notes):
        axes.text(1.02, row, note, transform=axes.get_yaxis_transform(), va="center", fontsize=7, color=INK)


def draw_bars(axes: Axes, table: pd.DataFrame, rate: str, *, hatched: list[bool]) -> None:
    """Draw a horizontal bar in per cent per row of the table, with its interval."""
    colours = method_colours(table["method"])
    values, low, high = (100 * finite(table[name]) for name in with_ends(rate))
    rows = np.arange(len(table))
    bars = axes.barh(rows, values, height=0.6, color=[colours[method] for method in table["method"]])
    for bar, method, hatch in zip(bars, table["method"], hatched, strict=True):
        if hatch:
            bar.set(facecolor=tint(colours[method], 0.35), edgecolor=colours[method], hatch="////")
    for row, left, right in zip(rows, low, high, strict=True):
        axes.plot((left, right), (row, row), color=INK, linewidth=1.0, marker="|", markersize=4, gid="interval")


def wide(panels: int) -> float:
    """Width in inches of a figure with so many panels beside each other, of which three fill both columns."""
    return min(DOUBLE_COLUMN, max(SINGLE_COLUMN, DOUBLE_COLUMN * panels / 3))


def tuned_only(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows of tuned checkpoints; `InputError` if there are none."""
    rows = table[table["method"].notna() & (table["method"] != "base")]
    if rows.empty:
        raise InputError(f"tables/{name}.csv has no tuned checkpoint; compare at least one with its base")
    return rows


def records(table: pd.DataFrame) -> list[Any]:
    """The rows as named tuples, `Index` and the columns."""
    return list(table.itertuples())


def only(table: pd.DataFrame, name: str, column: str, value: str) -> pd.DataFrame:
    """The rows with a value in a column; `InputError` that lists the values there if it has none."""
    rows = table[table[column] == value]
    if rows.empty:
        there = ", ".join(sorted(set(table[column].astype(str))))
        raise InputError(f"tables/{name}.csv has no {column} {value!r}, it has {there}")
    return rows


def draw_curve(
    axes: Axes, x: np.ndarray, rows: pd.DataFrame, value: str, colour: str, line: str = "-", *, beside: int = 1
) -> None:
    """Draw a column over x, with its interval as a band where the table has one, and no more than `BANDS` lie there."""
    axes.plot(x, finite(rows[value]), color=colour, linestyle=line, marker="o", markersize=2)
    if beside <= BANDS and has_ends(value, rows):
        low, high = (finite(rows[end]) for end in ends(value))
        axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0, gid="interval")


def method_lines(methods: Iterable[str], *, base: bool = False) -> list[Line2D]:
    """The key of lines by method, the base dashed."""
    names = list(dict.fromkeys(methods))
    colours = method_colours(names)
    lines = [Line2D([], [], color=FAINT, linestyle="--", label="Base")] if base else []
    return [*lines, *(Line2D([], [], color=colours[name], label=short(method_label(name))) for name in names)]


def drawable(text: str) -> str:
    """A text with a box for every letter that the font lacks: a vocabulary has letters of all scripts."""
    return "".join(letter if _in_font(letter) else "\N{WHITE SQUARE}" for letter in text)


@cache
def _in_font(letter: str) -> bool:
    return letter.isprintable() and get_font(findfont(str(STYLE["font.family"]))).get_char_index(ord(letter)) != 0


def first_tokens(tokens: object, n: int = 2) -> str:
    """The first tokens of a JSON list, quoted, as a label prints them; nothing where there are none."""
    try:
        found = json.loads(str(tokens))
    except ValueError:
        return ""
    return " ".join(drawable(json.dumps(str(token), ensure_ascii=False)[:14]) for token in found[:n])
