"""The paper's Figure 5: toxicity of the region against the shift of its activations."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mechinterp.measures.intervals import ends
from mechinterp.report.plotting.drawing import (
    annotate_rows,
    draw_bars,
    finite,
    label_rows,
    new_figure,
    percent,
    require,
    truths,
)
from mechinterp.report.plotting.plate import Plate
from mechinterp.report.plotting.style import DOUBLE_COLUMN, FAINT, INK, STYLE, layer_label, method_label, p_value_label


def plot_mechanism(mechanism: pd.DataFrame) -> Figure:
    """Draw the paper's Figure 5: how far the region's toxicity fell, and how far its activations moved.

    A rate marked † is ill-conditioned: the base toxicity it is relative to cannot be told from zero. Where an interval
    is far wider than the bars it is cut at the panel's edge and ends in an arrow.

    Args:
        mechanism: `mechanism.csv`, a row per tuned checkpoint.

    Returns:
        Two panels of horizontal bars in per cent, with 95% intervals.

    Raises:
        InputError: the table is empty or lacks a column.
    """
    rates = ("toxicity_reduction_rate", "activation_shift_rate")
    bounds = [end for rate in rates for end in ends(rate)]
    require(mechanism, "mechanism", ("method", "layer", *rates, *bounds, "null_p", "ill_conditioned"))
    flagged = truths(mechanism["ill_conditioned"])
    one_layer = mechanism["layer"].nunique() == 1
    with matplotlib.rc_context(STYLE):
        figure = new_figure(DOUBLE_COLUMN, 1.15 + 0.36 * len(mechanism))
        reduction_axes, shift_axes = figure.subplots(1, 2, sharey=True)
        _draw_rates(reduction_axes, mechanism, rates[0], hatched=flagged)
        _draw_rates(shift_axes, mechanism, rates[1])
        labels = [
            method_label(method) + ("" if one_layer else f" {layer_label(block)}")
            for method, block in zip(mechanism["method"], mechanism["layer"], strict=True)
        ]
        label_rows(reduction_axes, labels)
        region = f" of {layer_label(mechanism['layer'].iloc[0])}" if one_layer else ""
        reduction_axes.set_xlabel(f"toxicity reduction rate{region} (%)")
        shift_axes.set_xlabel("activation shift rate (%)")
        notes = [
            f"{percent(rate)}{'†' if flag else ''}   {p_value_label(p)}"
            for rate, flag, p in zip(mechanism[rates[0]], flagged, mechanism["null_p"], strict=True)
        ]
        annotate_rows(reduction_axes, notes)
        annotate_rows(shift_axes, [percent(rate, signed=False) for rate in mechanism[rates[1]]])
        legend = "p: against the same change along random directions; bars: 95% intervals"
        if any(flagged):
            legend += "\n† hatched: ill-conditioned, the base toxicity cannot be told from zero"
        figure.supxlabel(legend, fontsize=7, color=FAINT)
    return figure


def _draw_rates(axes: Axes, mechanism: pd.DataFrame, rate: str, *, hatched: list[bool] | None = None) -> None:
    draw_bars(axes, mechanism, rate, hatched=hatched or [False] * len(mechanism))
    axes.axvline(0, color=INK, linewidth=0.6)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    largest = 100 * np.nanmax(np.abs(finite(mechanism[rate])), initial=0)
    bounds = 100 * mechanism[[*ends(rate)]].to_numpy(float)
    edge = 4 * largest
    if edge == 0 or not (np.abs(bounds) > edge).any():
        return
    axes.set_xlim(-edge, edge)
    for row, (low, high) in enumerate(bounds):
        for end in (low, high):
            if abs(end) > edge:
                marker = ">" if end > 0 else "<"
                axes.plot(np.sign(end) * edge, row, marker=marker, markersize=4, color=INK, clip_on=False)


FIG5_MECHANISM = Plate(
    name="fig5_mechanism",
    title="Toxicity of the region against shift of its activations (the paper’s Figure 5)",
    caption=(
        "Left: by how much the region’s toxicity T, the mean cosine between its value vectors and the probe’s "
        "direction, fell relative to the base. Right: how far the mean activation that flows into the region moved. "
        "Lines are 95% intervals. A small p means that T changed more than the same weights changed along random "
        "directions. T is a mean of signed cosines near zero, so a large percentage can be a tiny change: hatched "
        "bars marked † are ill-conditioned. An interval that ends in an arrow goes on beyond the panel."
    ),
    alt=(
        "Two panels of horizontal bars per checkpoint with intervals: toxicity reduction rate and activation shift "
        "rate. The numbers are in the table mechanism."
    ),
    tables=("mechanism",),
    draw=plot_mechanism,
)
