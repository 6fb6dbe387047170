"""How far the residual stream moved over depth, and which way: Lee et al.'s residual shift."""

from __future__ import annotations

import matplotlib
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mechinterp.audit.tables.reading import where
from mechinterp.measures.intervals import is_end
from mechinterp.report.plotting.drawing import draw_curve, method_lines, new_figure, ordered, require, tuned_only
from mechinterp.report.plotting.plate import Plate
from mechinterp.report.plotting.style import (
    DOUBLE_COLUMN,
    INK,
    POSITIONS,
    SINGLE_COLUMN,
    STYLE,
    method_colours,
    position_label,
)


def plot_residual_shift(residual_shift: pd.DataFrame) -> Figure:
    """Draw the mean shift of the residual stream from base to tuned over the layers.

    Args:
        residual_shift: `residual_shift.csv`.

    Returns:
        A row of panels for each position: the shift's length in per cent of the base's mean stream, its cosine with the
        shift at the toxic layer, and its cosine with every direction that the table has.

    Raises:
        InputError: the table is empty or lacks a column.
    """
    fixed = {
        "relative_shift": "length\n(% of the base's)",
        "cosine_with_toxic_block": "cosine with that\nof the toxic layer",
    }
    require(residual_shift, "residual_shift", ("method", "position", "block", *fixed))
    rows = tuned_only(residual_shift, "residual_shift")
    along = [column for column in map(str, rows) if column.startswith("cosine_") and column not in fixed]
    along = [column for column in along if not is_end(column)]
    names = {c: c.removeprefix("cosine_") for c in along}
    measures = {**fixed, **{c: f"cosine with\n{n.replace('_', ' ')}" for c, n in names.items()}}
    positions, colours = ordered(rows["position"], POSITIONS), method_colours(rows["method"])
    with matplotlib.rc_context(STYLE):
        figure = new_figure(min(DOUBLE_COLUMN, max(SINGLE_COLUMN, 1.4 * len(measures))), 0.75 + 1.5 * len(positions))
        grid = figure.subplots(len(positions), len(measures), squeeze=False, sharex=True, sharey="col")
        for panels, position in zip(grid, positions, strict=True):
            for axes, (measure, title) in zip(panels, measures.items(), strict=True):
                scale = 100 if measure == "relative_shift" else 1
                for method, own in where(rows, position=position).groupby("method", sort=False):
                    own = own.sort_values("block").assign(**{measure: scale * own[measure]})
                    draw_curve(axes, own["block"].to_numpy(float) + 1, own, measure, colours[str(method)])
                axes.axhline(0, color=INK, linewidth=0.6)
                axes.set_title(title)
                axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
                axes.yaxis.set_major_locator(MaxNLocator(4))
            panels[0].set_ylabel(position_label(position))
        handles = method_lines(rows["method"])
        figure.legend(handles=handles, loc="outside upper center", ncols=min(5, len(handles)))
        figure.supxlabel("layer (= block + 1)", fontsize=8)
    return figure


RESIDUAL_SHIFT = Plate(
    name="residual_shift",
    title="How the stream moved",
    caption=(
        "Length of the mean shift of the residual stream after every block, relative to the stream itself, and its "
        "cosine with the shift at the toxic layer and with every direction. A shift that is there before the toxic "
        "layer was made upstream of it."
    ),
    alt="Lines over depth, a line per checkpoint. The numbers are in the table residual_shift.",
    tables=("residual_shift",),
    draw=plot_residual_shift,
    optional=True,
)
