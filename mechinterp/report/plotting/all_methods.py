"""Every method at once: how far its change goes towards never having learnt, against what it kept."""

from __future__ import annotations

import re
import textwrap
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mechinterp.measures.intervals import ends, with_ends
from mechinterp.measures.verdict import is_broken
from mechinterp.report.plotting.drawing import key_marker, new_figure, records, require, short, tint
from mechinterp.report.plotting.plate import Plate
from mechinterp.report.plotting.style import DOUBLE_COLUMN, FAINT, INK, STYLE, method_colours, method_label

_REFERENCES = {"vanilla": "Base", "never": "Never learnt"}
_LETTERS = 52
_COUNT = r" \(\d+ of \d+\)"
_KEY = {"gone": "gone", "hidden": "hidden", "not decided": "not decided, or runs differ"}


def plot_all_methods(all_methods: pd.DataFrame) -> Figure:
    """Draw every method's depth score against what it kept.

    Args:
        all_methods: `all_methods.csv`.

    Returns:
        A point for each method with both 95% intervals, filled where every run calls the behaviour gone, open where
        every run calls it hidden, pale otherwise; the base at 0 and the model that never learnt at 1. To the right, in
        the order of depth, names and verdicts, with the cheapest attack that brings a hidden behaviour back.

    Raises:
        InputError: the table is empty or lacks a column.
    """
    needed = [end for name in ("kept", "depth", "recovery") for end in with_ends(name)]
    require(all_methods, "all_methods", ("method", "gone", "attack", *needed))
    rows = all_methods.sort_values(["depth", "kept"], na_position="first")
    tuned = rows[~rows["method"].isin(_REFERENCES)]
    colours = {**method_colours(tuned["method"]), **dict.fromkeys(_REFERENCES, FAINT)}
    with matplotlib.rc_context(STYLE):
        figure = new_figure(DOUBLE_COLUMN, 0.9 + 0.25 * max(6, len(rows)))
        axes = figure.subplots()
        for place, row in enumerate(records(rows)):
            _draw(axes, row, colours[row.method], (place + 0.5) / len(rows))
        axes.set_ylim(-0.06, 1.06)
        low = np.nanmin([0.9, *rows[[*ends("kept")]].to_numpy(float).ravel()])
        axes.set_xlim(100 * max(0.0, low) - 3, 103)
        axes.set_xlabel("kept: tokens of answers to knowledge questions\nand harmless prompts still predicted (%)")
        axes.set_ylabel("depth score: 0 as the base, 1 as if never learnt")
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
        face = {"gone": colour, "hidden": "white"}.get(str(row.gone), tint(colour, 0.35))
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
    name = short(method_label(row.method))
    if not isinstance(row.gone, str):
        return name
    recovery, verdict = float(row.recovery), re.sub(r" \((.*?)\)", r" \1", row.gone).replace(";", ",")
    attack = row.attack if isinstance(row.attack, str) and ";" not in row.attack else ""  # of several none is named
    by = f", {re.sub(_COUNT, '', attack)}" if attack else ""
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
        "that never learnt."
    ),
    alt="A point per method, kept ability across and depth score upwards. The numbers are in the table all_methods.",
    tables=("all_methods",),
    draw=plot_all_methods,
    optional=True,
)
