"""Does the unsafe behaviour come back when the base's parts are put back?"""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mechinterp.plotting.drawing import (
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
    where,
)
from mechinterp.plotting.style import DOUBLE_COLUMN, FAINT, INK, SINGLE_COLUMN, STYLE, method_colours, method_label

_TREATMENTS = {
    "activations": "base's activations\n(blocks)",
    "values": "base's value vectors\n(blocks)",
    "both": "both\n(blocks)",
    "neurons": "activations of neurons\n(% of all)",
    "keys": "keys of toxic vectors\n(scaled by)",
}
_RESTORED = {
    "by_activations": "base's activations",
    "by_values": "base's value vectors",
    "by_random": "activations of random neurons",
}


def plot_relapse(relapse: pd.DataFrame) -> Figure:
    """Draw defense success against the dose of every treatment of the relapse test.

    Args:
        relapse: `relapse.csv`, a row per method, treatment and dose.

    Returns:
        A panel for each treatment, with 95% intervals as bands; dashed are random neurons of the same number, the mean
        over draws.

    Raises:
        InputError: the table is empty or lacks a column.
    """
    columns = ("method", "treatment", "control", "dose", "defense", "defense_low", "defense_high")
    require(relapse, "relapse", columns)
    rows = relapse.assign(control=truths(relapse["control"]))
    treatments, colours = ordered(rows["treatment"], _TREATMENTS), method_colours(rows["method"])
    with matplotlib.rc_context(STYLE):
        figure = new_figure(min(DOUBLE_COLUMN, max(SINGLE_COLUMN, 1.5 * len(treatments))), 2.6)
        panels = figure.subplots(1, len(treatments), squeeze=False, sharey=True)[0]
        for axes, treatment in zip(panels, treatments, strict=True):
            here = where(rows, treatment=treatment)
            places = {dose: place for place, dose in enumerate(sorted(here["dose"].unique()))}
            for (method, control), own in here.groupby(["method", "control"], sort=False):
                own = own.groupby("dose", as_index=False)[["defense", "defense_low", "defense_high"]].mean()
                own = 100 * own.set_index("dose").sort_index()
                x = np.array([places[dose] for dose in own.index], dtype=float)
                if control:
                    colour = tint(colours[str(method)], 0.6)
                    axes.plot(
                        x, finite(own["defense"]), color=colour, linestyle="--", marker="x", markersize=3, gid="control"
                    )
                else:
                    draw_curve(axes, x, own, "defense", colours[str(method)])
            axes.set_xticks(range(len(places)), [_dose(treatment, dose) for dose in places])
            axes.set_title(_TREATMENTS.get(treatment, treatment))
            axes.set_xlim(-0.3, len(places) - 0.7)
        panels[0].set_ylim(-2, 102)
        panels[0].set_ylabel("answers judged safe (%)")
        random = Line2D([], [], color=FAINT, linestyle="--", marker="x", markersize=3, label="random neurons, as many")
        handles = [*method_lines(rows["method"]), *([random] if rows["control"].any() else [])]
        figure.legend(handles=handles, loc="outside upper center", ncols=min(5, len(handles)))
        figure.supxlabel("dose; the leftmost is the tuned model as it is", fontsize=8)
    return figure


def _dose(treatment: str, dose: float) -> str:
    if treatment == "neurons":
        return f"{100 * dose:.3g}"
    return f"×{dose:.3g}" if treatment == "keys" else f"{dose:.3g}"


def plot_relapse_verdict(relapse_verdict: pd.DataFrame) -> Figure:
    """Draw how much of the unsafe behaviour returns under each restoration, with the test's verdict.

    Args:
        relapse_verdict: `relapse_verdict.csv`, a row per method.

    Returns:
        A panel for each restoration, bars in per cent with 95% intervals; beside them the verdict of the test, that of
        the decomposition, and whether they agree.

    Raises:
        InputError: the table is empty or lacks a column.
    """
    bounds = [f"{name}_{end}" for name in _RESTORED for end in ("low", "high")]
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
        notes = [f"{row.verdict}; decomposition:\n{row.decomposition} (agrees: {row.agrees})" for row in records(rows)]
        annotate_rows(panels[-1], notes)
        figure.supxlabel("unsafe behaviour that returns (% of what tuning took away), with 95% intervals", fontsize=8)
    return figure
