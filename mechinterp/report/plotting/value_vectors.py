"""The most toxic value vectors: how they lie to the direction in base and tuned, and how far they drifted."""

from __future__ import annotations

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mechinterp.audit.tables.reading import where
from mechinterp.report.plotting.drawing import (
    finite,
    first_tokens,
    key_marker,
    new_figure,
    ordered,
    records,
    require,
    short,
    tuned_only,
)
from mechinterp.report.plotting.plate import Plate
from mechinterp.report.plotting.style import DIRECTIONS, DOUBLE_COLUMN, INK, STYLE, method_colours, method_label

_SHOWN = 10


def plot_value_vectors(value_vectors: pd.DataFrame) -> Figure:
    """Draw the value vectors of the base with the largest cosine with each direction, before and after tuning.

    Args:
        value_vectors: `value_vectors.csv`; the ranking by cosine is drawn, else the table's only one.

    Returns:
        A row of two panels for each direction: the cosine of the first ten vectors in base and tuned, and the length of
        their change in per cent of their own. A row is a vector, with the tokens it promotes most.

    Raises:
        InputError: the table is empty, lacks a column or has no tuned checkpoint.
    """
    columns = ("method", "direction", "ranking", "rank", "block", "neuron", "cosine", "cosine_tuned", "drift_relative")
    require(value_vectors, "value_vectors", columns)
    rows = tuned_only(value_vectors, "value_vectors")
    by_cosine = "cosine" in set(rows["ranking"])
    rows = rows[rows["ranking"] == ("cosine" if by_cosine else rows["ranking"].iloc[0])]
    rows = rows[rows["rank"] <= _SHOWN]
    directions = ordered(rows["direction"], DIRECTIONS)
    methods = list(dict.fromkeys(rows["method"]))
    with matplotlib.rc_context(STYLE):
        n_rows = sum(where(rows, direction=direction)["rank"].nunique() for direction in directions)
        figure = new_figure(DOUBLE_COLUMN, 0.95 + 0.45 * len(directions) + 0.19 * n_rows)
        heights = [where(rows, direction=direction)["rank"].nunique() for direction in directions]
        grid = figure.subplots(len(directions), 2, squeeze=False, height_ratios=heights, sharex="col")
        for panels, direction in zip(grid, directions, strict=True):
            _draw_vectors(panels[0], panels[1], where(rows, direction=direction))
            panels[0].set_title(DIRECTIONS.get(direction, direction))
        grid[-1, 0].set_xlabel("cosine with the direction")
        grid[-1, 1].set_xlabel("length of the change (% of the vector's)")
        handles = [key_marker("base", "o", "white")]
        handles += [key_marker(short(method_label(m)), "^", colour) for m, colour in _colours(methods).items()]
        figure.legend(handles=handles, loc="outside upper center", ncols=min(4, len(handles)), handletextpad=0.1)
        note = "a row is a vector: the tokens that it promotes most, its layer (= block + 1) and neuron"
        figure.supxlabel(note, fontsize=7)
    return figure


def _colours(methods: list[str]) -> dict[str, str]:
    colours = method_colours(methods)
    return {method: colours[method] for method in methods}


def _draw_vectors(cosines: Axes, drifts: Axes, rows: pd.DataFrame) -> None:
    first = rows.drop_duplicates("rank").sort_values("rank")
    places = {rank: place for place, rank in enumerate(first["rank"])}
    cosines.scatter(
        finite(first["cosine"]), range(len(first)), s=26, facecolors="white", edgecolors=INK, linewidths=0.6
    )
    colours = _colours(list(dict.fromkeys(rows["method"])))
    for turn, (method, colour) in enumerate(colours.items()):
        own = where(rows, method=method)
        apart = 0.6 * ((turn + 0.5) / len(colours) - 0.5)  # methods that leave a vector as it was would hide each other
        at = [places[rank] + apart for rank in own["rank"]]
        cosines.scatter(finite(own["cosine_tuned"]), at, s=12, marker="^", color=colour, zorder=3)
        drifts.scatter(100 * finite(own["drift_relative"]), at, s=12, marker="^", color=colour)
    labels = [
        f"{first_tokens(getattr(row, 'tokens', ''))} {row.block + 1:.0f}.{row.neuron:.0f}" for row in records(first)
    ]
    cosines.set_yticks(range(len(first)), labels, fontsize=7)
    drifts.set_yticks(range(len(first)), [])
    for axes in (cosines, drifts):
        axes.set_ylim(len(first) - 0.4, -0.6)
        axes.grid(axis="y", color="#eeeeee", linewidth=0.6)
        axes.margins(x=0.08)
    drifts.set_xlim(left=min(0.0, drifts.get_xlim()[0]))


VALUE_VECTORS = Plate(
    name="value_vectors",
    title="The most toxic value vectors",
    caption=(
        "The value vectors of the base that lie closest to the toxic direction, over all blocks, and what tuning did "
        "to each: its cosine with the direction before and after, and how far the vector itself moved, in per cent of "
        "its length. Vectors that stay where they were are still there to be activated."
    ),
    alt=(
        "Dot plots of value vectors by checkpoint: cosine with the direction before and after, and drift. The numbers "
        "are in the table value_vectors."
    ),
    tables=("value_vectors",),
    draw=plot_value_vectors,
    optional=True,
)
