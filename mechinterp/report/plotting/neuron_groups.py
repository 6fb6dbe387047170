"""Which neurons carry the change of the toxic write: four groups, net and gross, against random directions."""

from __future__ import annotations

from functools import partial
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from mechinterp.audit.tables.reading import where
from mechinterp.report.plotting.drawing import (
    key_marker,
    new_figure,
    only,
    ordered,
    records,
    require,
    short,
    tint,
    tuned_only,
    wide,
)
from mechinterp.report.plotting.plate import Plate
from mechinterp.report.plotting.style import (
    DIRECTIONS,
    FAINT,
    INK,
    STYLE,
    method_colours,
    method_label,
    p_value_label,
    position_label,
)

_DEFINITIONS = {
    "activation_change": "activation up or down",
    "projection": "what the neuron writes up or down",
    "activation_sign": "activation positive or negative in the base",
}
_GROUPS = (
    *("toxic_down", "anti_toxic_up", "toxic_up", "anti_toxic_down"),
    *("toxic_positive", "toxic_negative", "anti_toxic_positive", "anti_toxic_negative", "neither"),
)


def plot_neuron_groups(
    neuron_groups: pd.DataFrame, *, definition: str = "projection", position: str = "prompt_last"
) -> Figure:
    """Draw the change of the toxic write by group of neurons: erasure, bypass, gross reduction and increase, and net.

    Parts of one sign follow each other, parts of opposite sign start from zero; the diamond is their sum. The thin line
    spans the gross reduction and the gross increase of a group's neurons; the grey mark is where the group's reduction
    would end if its share of all reduction were that along random directions.

    Args:
        neuron_groups: `neuron_groups.csv`.
        definition: of the groups, one of the table's.
        position: the position to draw, one of the table's.

    Returns:
        A row of panels for each method, a column for each direction.

    Raises:
        InputError: the table is empty, lacks a column, or has no such definition or position.
    """
    columns = (
        *("method", "direction", "position", "definition", "group", "erasure", "bypass", "change"),
        *("reduction", "increase", "share_of_reduction", "null_share_mean", "null_p"),
    )
    require(neuron_groups, "neuron_groups", columns)
    rows = only(only(neuron_groups, "neuron_groups", "position", position), "neuron_groups", "definition", definition)
    rows = tuned_only(rows, "neuron_groups")
    groups = [*ordered(rows.loc[rows["group"] != "all", "group"], _GROUPS), "all"]
    methods, directions = list(dict.fromkeys(rows["method"])), ordered(rows["direction"], DIRECTIONS)
    colours = method_colours(methods)
    with matplotlib.rc_context(STYLE):
        height = 0.9 + (0.35 + 0.27 * len(groups)) * len(methods)
        figure = new_figure(wide(len(directions)), height)
        grid = figure.subplots(len(methods), len(directions), squeeze=False, sharey=True, sharex="col")
        for panels, method in zip(grid, methods, strict=True):
            for axes, direction in zip(panels, directions, strict=True):
                here = where(rows, method=method, direction=direction).set_index("group").reindex(groups)
                _draw_groups(axes, here, colours[method])
                axes.set_title(f"{short(method_label(method))}: {DIRECTIONS.get(direction, direction)}")
        grid[0, 0].set_yticks(range(len(groups)), [group.replace("_", " ") for group in groups])
        grid[0, 0].set_ylim(len(groups) - 0.5, -0.7)
        labels = ("erasure", "bypass", "net", "gross reduction, increase", "random directions")
        figure.legend(handles=_key(labels), loc="outside upper center", ncols=3 if len(directions) < 3 else 5)
        note = "above a bar: share of all reduction, along random directions in brackets, and p"
        name = _DEFINITIONS.get(definition, definition)
        figure.supxlabel(
            f"change of the toxic write at the {position_label(position)}; groups: {name}\n{note}", fontsize=7
        )
    return figure


def _key(labels: tuple[str, ...]) -> list[Any]:
    erasure, bypass, net, gross, null = labels
    return [
        Patch(facecolor=FAINT, edgecolor=INK, linewidth=0.5, label=erasure),
        Patch(facecolor="white", edgecolor=FAINT, hatch="////", label=bypass),
        key_marker(net, "D", INK),
        Line2D([], [], color=INK, linewidth=0.8, marker="|", markersize=5, label=gross),
        Line2D([], [], color=FAINT, linestyle="", marker="|", markersize=8, markeredgewidth=2, label=null),
    ]


def _draw_groups(axes: Axes, rows: pd.DataFrame, colour: str) -> None:
    total = float(rows["reduction"].get("all", np.nan))
    style: dict[str, Any] = {"height": 0.3, "edgecolor": colour, "linewidth": 0.6}
    for place, row in enumerate(records(rows)):
        at = place + 0.18
        start = row.erasure if row.erasure * row.bypass > 0 else 0.0
        axes.barh(at, row.erasure, color=colour, **style)
        axes.barh(at, row.bypass, left=start, color=tint(colour, 0.15), hatch="////", **style)
        axes.plot(
            (row.reduction, row.increase), (at, at), color=INK, linewidth=0.8, marker="|", markersize=4, gid="gross"
        )
        axes.plot(row.change, at, marker="D", markersize=3, color=INK, gid="net")
        if row.Index != "all" and np.isfinite(row.null_share_mean):
            mark: dict[str, Any] = {"linestyle": "", "marker": "|", "markersize": 8, "markeredgewidth": 2}
            axes.plot(row.null_share_mean * total, at, color=FAINT, gid="null", **mark)
            note = f"{_share(row.share_of_reduction)} ({_share(row.null_share_mean)}) {p_value_label(row.null_p)}"
            if row.share_of_reduction or row.null_share_mean:  # of some groups it is 0 by definition
                axes.text(
                    0.01, at - 0.2, note, transform=axes.get_yaxis_transform(), va="bottom", fontsize=7, color=INK
                )
    axes.axvline(0, color=INK, linewidth=0.6)
    axes.xaxis.set_major_locator(MaxNLocator(3))


def _share(value: float) -> str:
    return f"{abs(100 * value):.0f}%" if np.isfinite(value) else "no value"


NEURON_GROUPS = Plate(
    name="neuron_groups",
    title="Which neurons lowered the write",
    caption=(
        "Every neuron is in one of four groups: its value vector points along the direction (toxic) or against it "
        "(anti-toxic), and what it writes along the direction went down or up. Two groups lower the write, two raise "
        "it. Net, gross reduction and gross increase stand together, as a small net change can be the rest of two "
        "large ones. The grey mark is the same share along random directions: what any direction would show."
    ),
    alt=(
        "Bars by neuron group and checkpoint with the share expected along random directions. The numbers are in the "
        "table neuron_groups."
    ),
    tables=("neuron_groups",),
    draw=plot_neuron_groups,
    optional=True,
)
NEURON_GROUPS_ACTIVATION_CHANGE = Plate(
    name="neuron_groups_activation_change",
    title="Neuron groups by the change of the activation",
    caption="The same, with up and down told by the neuron’s activation instead of by what it writes.",
    alt="Bars by neuron group and checkpoint. The numbers are in the table neuron_groups.",
    tables=("neuron_groups",),
    draw=partial(plot_neuron_groups, definition="activation_change"),
    optional=True,
)
NEURON_GROUPS_ACTIVATION_SIGN = Plate(
    name="neuron_groups_activation_sign",
    title="Neuron groups by the sign of the base’s activation",
    caption="The same, with groups told by whether the neuron was active above or below zero in the base.",
    alt="Bars by neuron group and checkpoint. The numbers are in the table neuron_groups.",
    tables=("neuron_groups",),
    draw=partial(plot_neuron_groups, definition="activation_sign"),
    optional=True,
)
