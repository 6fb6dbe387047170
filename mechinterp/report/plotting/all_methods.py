"""Every method at once: how far its change goes towards never having learnt, against what it kept."""

from __future__ import annotations

import textwrap
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mechinterp.audit.all_methods import POOLED, VERDICTS, shown_by, verdict_column, verdicts_of
from mechinterp.measures.intervals import ends, with_ends
from mechinterp.measures.verdict import is_broken
from mechinterp.report.plotting.drawing import key_marker, new_figure, records, require, short, tint
from mechinterp.report.plotting.plate import Plate
from mechinterp.report.plotting.style import DOUBLE_COLUMN, FAINT, INK, STYLE, method_colours, method_label

_REFERENCES = {"vanilla": "Base", "never": "Never learnt"}
_LETTERS = 52
_KEY = {"gone": "gone", "hidden": "hidden", "not decided": "not decided, or runs differ"}


def plot_all_methods(all_methods: pd.DataFrame) -> Figure:
    """Draw every method's depth score against what it kept.

    Args:
        all_methods: `all_methods.csv`.

    Returns:
        A point for each method with both 95% intervals, filled where every run calls the behaviour gone, open where
        every run calls it hidden, pale otherwise; the base at 0 and the model that never learnt at 1. To the right, in
        the order of depth, names and verdicts, with the cheapest attack that brings a hidden behaviour back. A panel
        for each architecture, where there are several.

    Raises:
        InputError: the table is empty or lacks a column.
    """
    needed = [end for name in ("kept", "depth", "recovery") for end in with_ends(name)]
    counts = [verdict_column(verdict) for verdict in VERDICTS]
    require(all_methods, "all_methods", ("architecture", "method", *counts, "attack", "attacks", *needed))
    drawn = all_methods[all_methods["architecture"] != POOLED].sort_values(["depth", "kept"], na_position="first")
    panels = {str(name): drawn[drawn["architecture"] == name] for name in all_methods["architecture"].unique()}
    panels = {name: rows for name, rows in panels.items() if len(rows)}
    tuned = drawn.loc[~drawn["method"].isin(_REFERENCES), "method"]
    colours = {**method_colours(tuned), **dict.fromkeys(_REFERENCES, FAINT)}
    heights = [0.25 * max(6, len(rows)) for rows in panels.values()]
    low = np.nanmin([0.9, *drawn[[*ends("kept")]].to_numpy(float).ravel()])
    with matplotlib.rc_context(STYLE):
        figure = new_figure(DOUBLE_COLUMN, 0.9 + sum(heights) + 0.25 * (len(panels) - 1))
        grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        for axes, (name, rows) in zip(grid, panels.items(), strict=True):
            for place, row in enumerate(records(rows)):
                _draw(axes, row, colours[row.method], (place + 0.5) / len(rows))
            axes.set_ylim(-0.06, 1.06)
            axes.set_xlim(100 * max(0.0, low) - 3, 103)
            apart = " " if min(heights) > 2.2 else "\n"  # as long as the axis, or in two lines
            axes.set_ylabel(f"depth score: 0 as the base,{apart}1 as if never learnt")
            if len(panels) > 1:
                axes.set_title(name)
        grid[-1].set_xlabel("kept: tokens of answers to knowledge questions\nand harmless prompts still predicted (%)")
        handles = [key_marker(label, "o", FAINT) for label in _KEY.values()]
        for handle, face in zip(handles, (FAINT, "white", tint(FAINT, 0.35)), strict=True):
            handle.set(markerfacecolor=face, markeredgecolor=INK)
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return figure


def _draw(axes: Axes, row: Any, colour: str, height: float) -> None:
    """A method's point with its intervals, and its name and verdict at a height of their own."""
    kept, depth = 100 * float(row.kept), float(row.depth)
    reference = row.method in _REFERENCES
    point = np.isfinite(kept) and np.isfinite(depth)
    if point:
        across = [100 * float(getattr(row, end)) for end in ends("kept")]
        axes.plot(across, (depth, depth), color=colour, linewidth=0.9, gid="interval")
        axes.plot((kept, kept), [float(getattr(row, end)) for end in ends("depth")], color=colour, linewidth=0.9)
        verdict, *others = verdicts_of(row._asdict()) or ("",)
        face = tint(colour, 0.35) if others else {"gone": colour, "hidden": "white"}.get(verdict, tint(colour, 0.35))
        marker, face = ("*", INK if row.method == "never" else FAINT) if reference else ("o", face)
        axes.plot(kept, depth, marker, markersize=9 if reference else 6, color=face, mec=colour, mew=1.2, gid="point")
    line = {"arrowstyle": "-", "color": FAINT, "linewidth": 0.4, "shrinkB": 4, "relpos": (0, 0.5)}
    axes.annotate(
        textwrap.fill(_told(row), _LETTERS),
        xy=(kept, depth) if point else (1.0, height),
        xycoords="data" if point else "axes fraction",
        xytext=(1.06, height),
        textcoords="axes fraction",
        va="center",
        fontsize=7,
        color=INK,
        arrowprops=line if point else None,
        annotation_clip=False,
    )


def _told(row: Any) -> str:
    if row.method in _REFERENCES:
        return _REFERENCES[row.method]
    name, of_row = short(method_label(row.method)), row._asdict()
    found, attack = verdicts_of(of_row), shown_by(of_row)
    if not found:
        return name
    runs = sum(found.values())
    verdict = ", ".join(word if count == runs else f"{word} {count} of {runs}" for word, count in found.items())
    recovery = float(row.recovery)
    by = f", {attack}" if attack else ""  # of several none is named
    back = f" ({recovery:.0%})" if by and np.isfinite(recovery) else ""
    degenerate = float(getattr(row, "degenerate", 0.0))
    broken = f"; {degenerate:.0%} degenerate" if is_broken(degenerate) else ""
    return f"{name}: {verdict}{by}{back}{broken}"


ALL_METHODS = Plate(
    name="all_methods",
    title="Every method: gone, or kept?",
    caption=(
        "To the right a method kept more of what it should keep; above, its states are nearer to those of a model "
        "that never learnt the behaviour than to the base’s. Open points: an attack shows that the behaviour was "
        "hidden, and the cheapest that does is named with what it brings back, where it is one in all runs; filled "
        "ones: it is gone, by the depth score and by every attack. Degenerate is what only looks like an answer: "
        "where half is, the model is broken, and nothing is gone. Lines are 95% intervals, over several runs the "
        "widest reach of theirs. What one wants is a filled point in the upper right corner, where the model is "
        "that never learnt. Architectures have panels of their own."
    ),
    alt="A point per method, kept ability across and depth score upwards. The numbers are in the table all_methods.",
    tables=("all_methods",),
    draw=plot_all_methods,
    optional=True,
)
