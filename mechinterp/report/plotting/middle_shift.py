"""The paper's Figure 8: the middle stream in its principal components, before and after tuning."""

from __future__ import annotations

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mechinterp.report.plotting.drawing import key_marker, new_figure, require, short
from mechinterp.report.plotting.plate import Plate
from mechinterp.report.plotting.style import DOUBLE_COLUMN, INK, SINGLE_COLUMN, STYLE, method_label

LEVELS = {0: ("low", "#d0d0d0"), 1: ("middle", "#fbb4d9"), 2: ("high", "#c51b8a")}  # thirds of the points


def plot_middle_shift(middle_shift: pd.DataFrame) -> Figure:
    """Draw the paper's Figure 8: where each input's middle stream lies before and after tuning.

    Args:
        middle_shift: `middle_shift.csv`, for each method a row per input and checkpoint (`base` and the method).

    Returns:
        One panel per method; a dotted line joins the two points of an input.

    Raises:
        InputError: the table is empty or lacks a column.
    """
    columns = ("method", "checkpoint", "input", "shift_component", "first_component", "toxic_activation_level")
    require(middle_shift, "middle_shift", columns)
    methods = list(dict.fromkeys(middle_shift["method"]))
    n_columns = min(3, len(methods))
    n_rows = -(-len(methods) // n_columns)
    with matplotlib.rc_context(STYLE):
        figure = new_figure(max(SINGLE_COLUMN, DOUBLE_COLUMN * n_columns / 3), 0.65 + 2.1 * n_rows)
        grid = figure.subplots(n_rows, n_columns, squeeze=False).flat
        for axes, method in zip(grid, methods, strict=False):
            _draw_shift(axes, middle_shift[middle_shift["method"] == method], method)
        for axes in figure.axes[len(methods) :]:
            axes.set_axis_off()
        figure.supxlabel("shift component (standardised)", fontsize=8)
        figure.supylabel("first principal component (standardised)", fontsize=8)
        markers = [key_marker("base", "o", "white"), key_marker("tuned", "^", "white")]
        levels = [key_marker(f"{name} toxic activation", "s", colour) for name, colour in LEVELS.values()]
        figure.legend(handles=[*markers, *levels], loc="outside upper center", ncols=5, handletextpad=0.1)
    return figure


def _draw_shift(axes: Axes, rows: pd.DataFrame, method: str) -> None:
    base = rows[rows["checkpoint"] == "base"].set_index("input")
    tuned = rows[rows["checkpoint"] != "base"].set_index("input")
    coordinates = ["shift_component", "first_component"]
    for name in base.index.intersection(tuned.index):
        start, end = base.loc[name, coordinates], tuned.loc[name, coordinates]
        axes.plot(
            (start.iloc[0], end.iloc[0]), (start.iloc[1], end.iloc[1]), ":", color="#999999", linewidth=0.7, zorder=1
        )
    for points, marker, size in ((base, "o", 28), (tuned, "^", 14)):
        colours = [LEVELS[int(level)][1] for level in points["toxic_activation_level"]]
        x, y = points["shift_component"], points["first_component"]
        axes.scatter(x, y, s=size, c=colours, marker=marker, edgecolors=INK, linewidths=0.5, zorder=2)
    axes.set_title(short(method_label(method)))
    axes.xaxis.set_major_locator(MaxNLocator(5))


FIG8_MIDDLE_SHIFT = Plate(
    name="fig8_middle_shift",
    title="Shift of the middle stream (the paper’s Figure 8)",
    caption=(
        "Each adversarial input is two points, before (circle) and after tuning (triangle), joined by a dotted line: "
        "the residual stream between attention and MLP of the toxic layer, at the last token. To the right is the "
        "direction of the mean shift, upwards the first principal component of what varies most. The colour tells how "
        "strongly the point activates the 20 most toxic value vectors, in thirds of all points of the panel. Where "
        "triangles lie on their circles, nothing moved. The horizontal axis is chosen to show a shift, so some spread "
        "along it is expected by chance."
    ),
    alt=(
        "Scatter plots, a panel per checkpoint, of inputs before and after tuning. The points are in "
        "tables/middle_shift.csv."
    ),
    tables=("middle_shift",),
    draw=plot_middle_shift,
)
