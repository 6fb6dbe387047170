"""A training run over its steps."""

from __future__ import annotations

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from mechinterp.report.plotting.drawing import finite, new_figure, ordered, require, short
from mechinterp.report.plotting.plate import Plate
from mechinterp.report.plotting.style import (
    DIRECTIONS,
    DOUBLE_COLUMN,
    INK,
    POSITIONS,
    SINGLE_COLUMN,
    STYLE,
    method_colours,
    position_label,
)

_PARTS = {"erasure": "-", "bypass": "--"}


def plot_trajectory(trajectory: pd.DataFrame) -> Figure:
    """Draw a training run over its steps: toxicity and shift of the region above, erasure and bypass below.

    Step 0 is the base. Erasure is solid, bypass dashed, both summed over blocks, with their 95% intervals as bands.

    Args:
        trajectory: `trajectory.csv`, a row per step, quantity, direction and position.

    Returns:
        Two panels of the region, then a row per position and a column per direction.

    Raises:
        InputError: the table is empty or lacks a column.
    """
    columns = ("trajectory", "step", "quantity", "direction", "position", "value", "low", "high")
    require(trajectory, "trajectory", columns)
    parts = trajectory[trajectory["quantity"].isin(["erasure", "bypass"])]
    directions, positions = ordered(parts["direction"], DIRECTIONS), ordered(parts["position"], POSITIONS)
    colours = method_colours(trajectory["trajectory"].astype(str))
    with matplotlib.rc_context(STYLE):
        width = max(2, len(directions))
        figure = new_figure(max(SINGLE_COLUMN, DOUBLE_COLUMN * width / 3), 0.4 + 1.55 * (1 + len(positions)))
        grid = figure.subplots(1 + len(positions), width, squeeze=False)
        for axes in grid.flat[2:width]:
            axes.set_axis_off()
        for axes, quantity, label in (
            (grid[0, 0], "toxicity", "toxicity T of the region"),
            (grid[0, 1], "activation_shift_rate", "activation shift rate"),
        ):
            _draw_over_steps(axes, trajectory[trajectory["quantity"] == quantity], colours, "-")
            axes.set_title(label)
        for row, position in enumerate(positions, 1):
            for axes, direction in zip(grid[row], directions, strict=False):
                here = parts[(parts["direction"] == direction) & (parts["position"] == position)]
                for quantity, line in _PARTS.items():
                    _draw_over_steps(axes, here[here["quantity"] == quantity], colours, line)
                axes.axhline(0, color=INK, linewidth=0.6)
                axes.set_title(f"{DIRECTIONS.get(direction, direction)}\n{position_label(position)}")
            grid[row, 0].set_ylabel("change of write")
        for axes in grid.flat:
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        lines = [Line2D([], [], color=INK, linestyle=line, label=name) for name, line in _PARTS.items()]
        lines += [Line2D([], [], color=colour, label=short(name)) for name, colour in colours.items()]
        figure.legend(handles=lines, loc="outside upper center", ncols=min(4, len(lines)))
        figure.supxlabel("training step (0 is the base)", fontsize=8)
    return figure


def _draw_over_steps(axes: Axes, rows: pd.DataFrame, colours: dict[str, str], line: str) -> None:
    for name, run in rows.groupby(rows["trajectory"].astype(str)):
        run = run.sort_values("step")
        steps, value, low, high = (finite(run[column]) for column in ("step", "value", "low", "high"))
        axes.plot(steps, value, color=colours[str(name)], linestyle=line, marker="o", markersize=2.5)
        axes.fill_between(steps, low, high, color=colours[str(name)], alpha=0.15, linewidth=0, gid="interval")


TRAJECTORY = Plate(
    name="trajectory",
    title="Over the steps of training",
    caption=(
        "Each point is a checkpoint of a training run, step 0 the base. Above: the region’s toxicity T and how far "
        "the mean activation that flows into it moved. Below: the change of what the MLP blocks write, split into "
        "erasure (solid) and bypass (dashed), along each direction and at each position, with 95% intervals over "
        "inputs. The other figures and the cards show the last step of each run; all steps are in the tables."
    ),
    alt="Line plots over training steps, a line per run and quantity. The points are in the table trajectory.",
    tables=("trajectory",),
    draw=plot_trajectory,
    optional=True,
)
