"""Does the unsafe behaviour come back when the base's parts are put back?"""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.lines import Line2D

from mechinterp.audit.relapse.registry import TREATMENTS
from mechinterp.audit.tables.reading import where
from mechinterp.measures.intervals import ends, with_ends
from mechinterp.report.plotting.drawing import (
    annotate_rows,
    draw_bars,
    draw_curve,
    finite,
    label_rows,
    method_lines,
    new_figure,
    ordered,
    records,
    require,
    tint,
    truths,
)
from mechinterp.report.plotting.plate import Plate
from mechinterp.report.plotting.style import (
    DOUBLE_COLUMN,
    FAINT,
    INK,
    SINGLE_COLUMN,
    STYLE,
    method_colours,
    method_label,
)

GROUPS = {name: treatment.label for name, treatment in TREATMENTS.items() if treatment.unit == "group"}
"""Treatments of one group of neurons: its value vectors, and what tuning did to their activations."""
_RESTORED = {
    "by_activations": "base's activations",
    "by_values": "base's value vectors",
    "by_both": "both",
}
"""Of every block."""


def plot_relapse(relapse: pd.DataFrame) -> Figure:
    """Draw defense success against the dose of every treatment of the relapse test.

    Args:
        relapse: `relapse.csv`, a row per method, treatment and dose.

    Returns:
        A panel for each treatment, with 95% intervals as bands; dashed are random neurons of the same number, the mean
        over draws. Below them one panel of the groups of neurons, where there are any: each method as it is, treated,
        and with random neurons of the same number.

    Raises:
        InputError: the table is empty or lacks a column.
    """
    columns = ("method", "treatment", "control", "dose", *with_ends("defense"))
    require(relapse, "relapse", columns)
    rows = relapse.assign(control=truths(relapse["control"]))
    colours = method_colours(rows["method"])
    groups = [name for name in GROUPS if name in set(rows["treatment"])]
    treatments = ordered(rows.loc[~rows["treatment"].isin(groups), "treatment"], TREATMENTS)
    with matplotlib.rc_context(STYLE):
        width = min(DOUBLE_COLUMN, max(SINGLE_COLUMN, 1.5 * max(len(treatments), len(groups))))
        figure = new_figure(width, 0.7 + 1.9 * bool(treatments) + 1.7 * bool(groups))
        upper: FigureBase = figure
        lower: FigureBase = figure
        if treatments and groups:
            upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=(1.9, 1.7))[:, 0]
        panels = [*upper.subplots(1, len(treatments), squeeze=False, sharey=True)[0]] if treatments else []
        for axes, treatment in zip(panels, treatments, strict=True):
            here = where(rows, treatment=treatment)
            places = {dose: place for place, dose in enumerate(sorted(here["dose"].unique()))}
            for (method, control), own in here.groupby(["method", "control"], sort=False):
                own = own.groupby("dose", as_index=False)[[*with_ends("defense")]].mean()
                own = 100 * own.set_index("dose").sort_index()
                x = np.array([places[dose] for dose in own.index], dtype=float)
                if control:
                    colour = tint(colours[str(method)], 0.6)
                    axes.plot(
                        x, finite(own["defense"]), color=colour, linestyle="--", marker="x", markersize=3, gid="control"
                    )
                else:
                    draw_curve(axes, x, own, "defense", colours[str(method)], beside=len(colours))
            axes.set_xticks(range(len(places)), [_dose(treatment, dose) for dose in places])
            axes.set_title(_label(treatment))
            axes.set_xlim(-0.3, len(places) - 0.7)
        if treatments:
            upper.supxlabel("dose; the leftmost is the tuned model as it is", fontsize=8)
        below = [lower.subplots()] if groups else []
        for axes in below:
            _draw_groups(axes, rows[rows["treatment"].isin(groups)], groups, colours)
        for axes in [*panels[:1], *below]:
            axes.set_ylim(-2, 102)
            axes.set_ylabel("answers judged safe (%)")
        random = Line2D([], [], color=FAINT, linestyle="--", marker="x", markersize=3, label="random neurons, as many")
        handles = [*method_lines(rows["method"]), *([random] if rows["control"].any() else [])]
        if groups:
            handles.append(Line2D([], [], color=FAINT, linestyle="", marker="_", label="as it is"))
        figure.legend(handles=handles, loc="outside upper center", ncols=min(5, len(handles)))
    return figure


def _draw_groups(axes: Axes, rows: pd.DataFrame, groups: list[str], colours: dict[str, str]) -> None:
    """Mark every method in every group: as it is, with the group's activations restored, with random neurons'."""
    methods = list(dict.fromkeys(rows["method"]))
    for number, method in enumerate(methods):
        own, colour = rows[rows["method"] == method], colours[str(method)]
        shift = 0.7 * ((number + 0.5) / len(methods) - 0.5)
        treated, random = own[(own["dose"] > 0) & ~own["control"]], own[own["control"]]
        marks: tuple[tuple[pd.DataFrame, dict[str, Any]], ...] = (
            (own[own["dose"] == 0], {"marker": "_", "markersize": 9, "color": colour, "gid": "start"}),
            (random, {"marker": "x", "markersize": 4, "color": tint(colour, 0.6), "gid": "control"}),
            (treated, {"marker": "o", "markersize": 3.5, "color": colour, "gid": "treated"}),
        )
        for part, style in marks:
            found = 100 * part.groupby("treatment")[[*with_ends("defense")]].mean().reindex(groups)
            x = np.arange(len(groups)) + shift + (0.06 if part is random else 0)
            if part is treated:
                axes.vlines(x, *(finite(found[end]) for end in ends("defense")), color=colour, linewidth=1)
            axes.plot(x, finite(found["defense"]), linestyle="", **style)
    axes.set_xticks(range(len(groups)), [GROUPS[name] for name in groups])
    axes.set_xlim(-0.5, len(groups) - 0.5)
    axes.set_title(
        "base's activations of one group of neurons (value vectors, and what tuning did to their activations)"
    )


def _verdicts(row: Any) -> str:
    if pd.isna(row.decomposition):
        return str(row.verdict)
    return f"{row.verdict}; decomposition:\n{row.decomposition} (agrees: {row.agrees})"


def _label(treatment: str) -> str:
    return TREATMENTS[treatment].label if treatment in TREATMENTS else treatment


def _dose(treatment: str, dose: float) -> str:
    return TREATMENTS[treatment].printed(dose) if treatment in TREATMENTS else f"{dose:.3g}"


def plot_relapse_verdict(relapse_verdict: pd.DataFrame) -> Figure:
    """Draw how much of the unsafe behaviour returns under each restoration, with the test's verdict.

    Args:
        relapse_verdict: `relapse_verdict.csv`, a row per method.

    Returns:
        A panel for each restoration at all blocks, bars in per cent with 95% intervals; beside them the verdict of the
        test and, where there is one, that of the decomposition, and whether they agree.

    Raises:
        InputError: the table is empty or lacks a column.
    """
    bounds = [end for name in _RESTORED for end in ends(name)]
    require(relapse_verdict, "relapse_verdict", ("method", "verdict", "decomposition", "agrees", *_RESTORED, *bounds))
    rows = relapse_verdict
    with matplotlib.rc_context(STYLE):
        figure = new_figure(DOUBLE_COLUMN, 0.85 + 0.36 * len(rows))
        panels = figure.subplots(1, len(_RESTORED), sharey=True, sharex=True)
        for axes, (name, title) in zip(panels, _RESTORED.items(), strict=True):
            draw_bars(axes, rows, name, hatched=[False] * len(rows))
            axes.axvline(0, color=INK, linewidth=0.6)
            axes.axvline(100, color=FAINT, linewidth=0.6, linestyle=":")
            axes.set_title(title)
        label_rows(panels[0], [method_label(method) for method in rows["method"]])
        notes = [_verdicts(row) for row in records(rows)]
        annotate_rows(panels[-1], notes)
        figure.supxlabel(
            "unsafe behaviour that returns with all blocks restored (% of what tuning took away), with 95% intervals",
            fontsize=8,
        )
    return figure


RELAPSE = Plate(
    name="relapse",
    title="Relapse: defense success against dose",
    caption=(
        "Defense success of the tuned model on prompts the base answers unsafely, while more and more of the base is "
        "put back inside it. Dashed lines: the same number of neurons drawn at random from all blocks. Bands are 95% "
        "intervals. A line that falls with activations restored says bypassed, with values restored erased. Below, "
        "the base’s activations of one group of neurons alone: the dash is the tuned model as it is, the dot with the "
        "group restored, the cross with as many random neurons."
    ),
    alt=(
        "Line plots, a panel per treatment, of defense success against the dose, with random controls; below them a "
        "panel with marks for groups of neurons. The points are in the table relapse."
    ),
    tables=("relapse",),
    draw=plot_relapse,
    optional=True,
)
RELAPSE_VERDICT = Plate(
    name="relapse_verdict",
    title="What brings it back",
    caption=(
        "Share of the unsafe behaviour that returns when the base’s activations, its value matrices, or both are put "
        "back at every block. What random neurons bring back is in the figure before."
    ),
    alt="Bars with intervals per checkpoint. The numbers are in the table relapse_verdict.",
    tables=("relapse_verdict",),
    draw=plot_relapse_verdict,
    optional=True,
)
