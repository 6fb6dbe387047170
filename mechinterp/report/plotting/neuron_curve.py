"""How many neurons make up the change of the toxic write."""

from __future__ import annotations

import matplotlib
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from mechinterp.audit.tables.reading import where
from mechinterp.measures.intervals import ends
from mechinterp.report.plotting.drawing import (
    finite,
    method_lines,
    new_figure,
    ordered,
    require,
    tuned_only,
    wide,
)
from mechinterp.report.plotting.plate import Plate
from mechinterp.report.plotting.style import DIRECTIONS, FAINT, INK, POSITIONS, STYLE, method_colours, position_label

_PARTS = {"cumulative_change": "-", "cumulative_erasure": ":", "cumulative_bypass": "--"}


def plot_neuron_curve(neuron_curve: pd.DataFrame) -> Figure:
    """Draw the change of the toxic write summed over more and more neurons, those that lower it most first.

    Solid the sum, dotted its erasure, dashed its bypass; the band is the 95% range of the sum along random directions.

    Args:
        neuron_curve: `neuron_curve.csv`.

    Returns:
        A row of panels for each position, a column for each direction.

    Raises:
        InputError: the table is empty or lacks a column.
    """
    columns = ("method", "direction", "position", "share_of_neurons", *_PARTS, *ends("null"))
    require(neuron_curve, "neuron_curve", columns)
    rows = tuned_only(neuron_curve, "neuron_curve")
    directions, positions = ordered(rows["direction"], DIRECTIONS), ordered(rows["position"], POSITIONS)
    colours = method_colours(rows["method"])
    with matplotlib.rc_context(STYLE):
        figure = new_figure(wide(len(directions)), 0.75 + 1.7 * len(positions))
        grid = figure.subplots(len(positions), len(directions), squeeze=False, sharex=True)
        for panels, position in zip(grid, positions, strict=True):
            for axes, direction in zip(panels, directions, strict=True):
                for method, curve in where(rows, position=position, direction=direction).groupby("method", sort=False):
                    curve = curve.sort_values("share_of_neurons")
                    x, colour = 100 * finite(curve["share_of_neurons"]), colours[str(method)]
                    band = (finite(curve[end]) for end in ends("null"))
                    axes.fill_between(x, *band, color=colour, alpha=0.15, linewidth=0, gid="null")
                    for part, line in _PARTS.items():
                        axes.plot(
                            x, finite(curve[part]), color=colour, linestyle=line, linewidth=1.2 if line == "-" else 0.8
                        )
                axes.axhline(0, color=INK, linewidth=0.6)
                axes.yaxis.set_major_locator(MaxNLocator(4))
                axes.set_title(f"{DIRECTIONS.get(direction, direction)}\n{position_label(position)}")
            panels[0].set_ylabel("summed change of write")
        grid[0, 0].set_xlim(0, 100)
        names = [part.removeprefix("cumulative_") for part in _PARTS]
        lines = [
            Line2D([], [], color=INK, linestyle=line, label=n) for n, line in zip(names, _PARTS.values(), strict=True)
        ]
        lines.append(Patch(color=FAINT, alpha=0.3, linewidth=0, label="random directions, 95%"))  # type: ignore[arg-type]
        handles = [*method_lines(rows["method"]), *lines]
        figure.legend(handles=handles, loc="outside upper center", ncols=min(4, len(handles)))
        figure.supxlabel(
            "neurons (% of all), from the one that lowers the write most to the one that raises it most", fontsize=8
        )
    return figure


NEURON_CURVE = Plate(
    name="neuron_curve",
    title="How many neurons carry it",
    caption=(
        "The change of the write, added up neuron by neuron from the one that lowers it most to the one that raises "
        "it most. A curve that drops at once and stays there: few neurons. A slow descent and a long climb back: very "
        "many, against one another. The band is the same along random directions."
    ),
    alt="Cumulative curves, a line per checkpoint. The points are in the table neuron_curve.",
    tables=("neuron_curve",),
    draw=plot_neuron_curve,
    optional=True,
)
