"""Which layer is the toxic one, under each distance."""

from __future__ import annotations

import matplotlib
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mechinterp.report.plotting.drawing import new_figure, ordered, require
from mechinterp.report.plotting.plate import Plate
from mechinterp.report.plotting.style import DOUBLE_COLUMN, STYLE

DISTANCES = ("released", "residual", "pooled", "relative")


def plot_toxic_layer(toxic_layer: pd.DataFrame) -> Figure:
    """Draw how often each layer is the toxic one, under each of the four distances.

    Args:
        toxic_layer: `toxic_layer.csv`, a count of instances per distance and block.

    Returns:
        One histogram per distance, on shared axes.

    Raises:
        InputError: the table is empty or lacks a column.
    """
    require(toxic_layer, "toxic_layer", ("distance", "block", "count"))
    distances = ordered(toxic_layer["distance"], DISTANCES)
    with matplotlib.rc_context(STYLE):
        figure = new_figure(DOUBLE_COLUMN, 1.9)
        panels = figure.subplots(1, len(distances), sharex=True, sharey=True, squeeze=False)[0]
        for axes, distance in zip(panels, distances, strict=True):
            rows = toxic_layer[toxic_layer["distance"] == distance]
            axes.bar(rows["block"] + 1, rows["count"], width=0.8, color="#4c6a8a")
            axes.set_title(distance)
            axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        panels[0].set_xlim(0.3, toxic_layer["block"].max() + 1.7)
        panels[0].set_ylabel("instances")
        figure.supxlabel("toxic layer (= block + 1)", fontsize=8)
    return figure


TOXIC_LAYER = Plate(
    name="toxic_layer",
    title="Which layer is the toxic one",
    caption=(
        "The layer at which the representations of the safe and the unsafe response lie furthest apart, counted over "
        "instances, under four distances. “Released” is what the paper’s code computes, padding and final norm "
        "included; “residual” leaves both out; “pooled” compares mean representations; “relative” divides by their "
        "size, which grows with depth. If the four disagree, the location is a property of the distance as much as of "
        "the model."
    ),
    alt="Four histograms of the toxic layer, one per distance. The counts are in the table toxic_layer.",
    tables=("toxic_layer",),
    draw=plot_toxic_layer,
)
