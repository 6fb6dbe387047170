"""Who writes along a direction: embedding, attention and MLP over depth, base against tuned."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from mechinterp.audit.tables.reading import where
from mechinterp.measures.intervals import ends
from mechinterp.report.plotting.drawing import (
    finite,
    method_lines,
    new_figure,
    only,
    ordered,
    require,
    tuned_only,
)
from mechinterp.report.plotting.plate import Plate
from mechinterp.report.plotting.style import (
    DIRECTIONS,
    DOUBLE_COLUMN,
    FAINT,
    INK,
    STYLE,
    method_colours,
    position_label,
)

_ATTENTION, _MLP = ("embed", "attention"), ("mlp", "mlp_norm")


def plot_stream(stream: pd.DataFrame, *, position: str = "prompt_last") -> Figure:
    """Draw what every component writes along a direction, before and after tuning, and the parts of the MLPs' change.

    Args:
        stream: `stream.csv`.
        position: the position to draw, one of the table's.

    Returns:
        A row of panels for each direction: embedding (at layer 0) and attention, MLP, and the MLP's erasure and bypass.
        The base is dashed grey; the band is the 95% interval of the change. Where an architecture normalises what its
        MLP wrote, that norm's part is dotted.

    Raises:
        InputError: the table is empty, lacks a column, or has no such position.
    """
    columns = (
        *("method", "direction", "position", "component", "block", "write_base", "write", "change"),
        *(*ends("change"), "erasure", "bypass"),
    )
    require(stream, "stream", columns)
    rows = tuned_only(only(stream, "stream", "position", position), "stream")
    directions = ordered(rows["direction"], DIRECTIONS)
    with matplotlib.rc_context(STYLE):
        figure = new_figure(DOUBLE_COLUMN, 0.8 + 1.55 * len(directions))
        grid = figure.subplots(len(directions), 3, squeeze=False, sharex="col")
        for panels, direction in zip(grid, directions, strict=True):
            here = where(rows, direction=direction)
            for axes, components in zip(panels, (_ATTENTION, _MLP), strict=False):
                _draw_writes(axes, here[here["component"].isin(components)])
            _draw_mlp_parts(panels[2], where(here, component="mlp"))
            for axes, title in zip(panels, ("embedding, attention", "MLP", "change of the MLP's write"), strict=True):
                axes.axhline(0, color=INK, linewidth=0.6)
                axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
                axes.yaxis.set_major_locator(MaxNLocator(4))
                axes.set_title(f"{DIRECTIONS.get(direction, direction)}\n{title}")
            panels[0].set_ylabel("write")
        lines = [
            Line2D([], [], color=INK, linestyle="-", label="erasure"),
            Line2D([], [], color=INK, linestyle="--", label="bypass"),
        ]
        if "mlp_norm" in set(rows["component"]):
            lines.append(Line2D([], [], color=INK, linestyle=":", label="norm after the MLP"))
        handles = [*method_lines(rows["method"], base=True), *lines]
        figure.legend(handles=handles, loc="outside upper center", ncols=min(7, len(handles)))
        figure.supxlabel(f"layer (= block + 1), 0 the embedding; at the {position_label(position)}", fontsize=8)
    return figure


def _layers(rows: pd.DataFrame) -> np.ndarray:
    return np.nan_to_num(rows["block"].to_numpy(float), nan=-1.0) + 1


def _draw_writes(axes: Axes, rows: pd.DataFrame) -> None:
    """Base and tuned writes of each component; a point where it stands alone."""
    colours = method_colours(rows["method"])
    for component, of_component in rows.groupby("component", sort=False):
        line = ":" if component == "mlp_norm" else "-"
        for turn, (method, own) in enumerate(of_component.groupby("method", sort=False)):
            own = own.sort_values("block")
            x, base = _layers(own), finite(own["write_base"])
            if turn == 0:
                axes.plot(x, base, color=FAINT, linestyle=":" if line == ":" else "--", marker="o", markersize=2)
            axes.plot(x, finite(own["write"]), color=colours[str(method)], linestyle=line, marker="o", markersize=2)
            low, high = (base + finite(own[end]) for end in ends("change"))
            if len(own) == 1:
                axes.vlines(x, low, high, color=colours[str(method)], linewidth=0.8, gid="interval")
            else:
                axes.fill_between(x, low, high, color=colours[str(method)], alpha=0.15, linewidth=0, gid="interval")


def _draw_mlp_parts(axes: Axes, rows: pd.DataFrame) -> None:
    colours = method_colours(rows["method"])
    for method, own in rows.groupby("method", sort=False):
        own = own.sort_values("block")
        for part, line in (("erasure", "-"), ("bypass", "--")):
            axes.plot(
                _layers(own), finite(own[part]), color=colours[str(method)], linestyle=line, marker="o", markersize=2
            )


STREAM = Plate(
    name="stream",
    title="The whole residual stream",
    caption=(
        "What embedding, attention and MLP of every block write along the direction, in the base and after tuning; "
        "together they are the stream before the final norm, without remainder. Attention’s part of a change is an "
        "inflow of its own: it is neither erasure nor bypass of the value matrices."
    ),
    alt=(
        "Lines over depth of what each kind of component writes, base against tuned. The numbers are in the table "
        "stream."
    ),
    tables=("stream",),
    draw=plot_stream,
    optional=True,
)
