"""Which weights carry the change of behaviour: by group, and where in depth."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from mechinterp.measures.intervals import with_ends
from mechinterp.report.plotting.drawing import annotate_rows, label_rows, new_figure, ordered, require
from mechinterp.report.plotting.plate import Plate
from mechinterp.report.plotting.style import DOUBLE_COLUMN, INK, SINGLE_COLUMN, STYLE, method_label

GROUPS = {
    "mlp.out": ("value vectors", "#D55E00"),
    "mlp.in": ("into the MLP", "#E69F00"),
    "attention": ("attention", "#0072B2"),
    "attention.qk": ("attention, q and k", "#0072B2"),
    "attention.vo": ("attention, v and o", "#56B4E9"),
    "embed": ("embeddings", "#009E73"),
    "norm": ("norms", "#999999"),
}
"""Printed names and colours of the groups, the toxic regions first."""
READOUTS = {"log_odds": "log odds of the unsafe answer", "unsafe_logprob": "log-probability of the unsafe answer"}
WAYS = ("exact game", "sampled game", "path")
MANY = 16
"""Blocks, above which only some are numbered."""


def plot_origins(origins: pd.DataFrame) -> Figure:
    """Draw how the change of each method is shared out among groups of weights.

    Args:
        origins: `origins.csv`, a row per method, read-out, way and group.

    Returns:
        A panel per read-out, a bar per method, of the exact game where there is one, else of the path: parts of one
        sign follow each other, those that work against the change start from zero to the left. The share of the value
        vectors with its 95% interval, or why there is none, is beside it.

    Raises:
        InputError: the table is empty or lacks a column.
    """
    require(origins, "origins", ("method", "readout", "way", "group", *with_ends("share"), "note"))
    methods, readouts = list(dict.fromkeys(origins["method"])), list(dict.fromkeys(origins["readout"]))
    with matplotlib.rc_context(STYLE):
        figure = new_figure(DOUBLE_COLUMN, (0.8 + 0.3 * len(methods)) * len(readouts) + 0.4)
        grid = figure.subplots(len(readouts), 1, squeeze=False)[:, 0]
        for axes, readout in zip(grid, readouts, strict=True):
            notes = [_draw_bar(axes, row, best_way(origins, method, readout)) for row, method in enumerate(methods)]
            label_rows(axes, [method_label(method) for method in methods])
            annotate_rows(axes, notes)
            axes.axvline(0, color=INK, linewidth=0.6)
            axes.set_title(f"change of the {READOUTS.get(readout, readout)}")
            axes.set_xlim(min(0.0, axes.get_xlim()[0]), max(1.0, axes.get_xlim()[1]))
        grid[-1].set_xlabel("share of the change, by the weights that carry it; beside it the value vectors’ share")
        handles = [Patch(facecolor=colour(group), label=label(group)) for group in ordered(origins["group"], GROUPS)]
        if len(handles) <= 12:
            figure.legend(handles=handles, loc="outside upper center", ncols=min(5, len(handles)))
    return figure


def plot_origins_blocks(origins_blocks: pd.DataFrame) -> Figure:
    """Draw in which blocks and groups the weights are that carry the change.

    Args:
        origins_blocks: `origins_blocks.csv`, a row per method, read-out, block and group.

    Returns:
        A heat map per method, groups by blocks, of the share of the change along the first read-out; what lies outside
        the blocks is on the right. A method without shares is grey.

    Raises:
        InputError: the table is empty or lacks a column.
    """
    import seaborn as sns  # seconds, and only heat maps want it

    require(origins_blocks, "origins_blocks", ("method", "readout", "block", "group", "share"))
    rows = origins_blocks[origins_blocks["readout"] == origins_blocks["readout"].iloc[0]]
    methods, groups = list(dict.fromkeys(rows["method"])), ordered(rows["group"], GROUPS)
    blocks = sorted(int(block) for block in rows["block"].dropna().unique())
    names = {**{block: str(block + 1) for block in blocks}, -1: "outside"}
    limit = float(np.nanmax(np.abs(rows["share"].to_numpy(float)), initial=0.0)) or 1.0
    with matplotlib.rc_context(STYLE):
        size = (DOUBLE_COLUMN if len(blocks) > 12 else SINGLE_COLUMN, 0.6 + (0.35 + 0.17 * len(groups)) * len(methods))
        figure = new_figure(*size)
        grid = figure.subplots(len(methods), 1, squeeze=False, sharex=True)[:, 0]
        for axes, method in zip(grid, methods, strict=True):
            own = rows[rows["method"] == method]
            own = own.assign(block=own["block"].astype("Float64").fillna(-1).astype(int))
            cells = own.set_index(["group", "block"])["share"].astype(float).unstack()
            cells = cells.reindex(index=groups, columns=[*blocks, -1]).rename(index=label, columns=names)
            axes.set_facecolor("#eeeeee")
            sns.heatmap(cells, ax=axes, cmap="RdBu_r", vmin=-limit, vmax=limit, cbar=False, linewidths=0.4)
            axes.set(title=method_label(str(method)), xlabel="", ylabel="")
            axes.tick_params(labelrotation=0, labelsize=7)
            if len(blocks) > MANY:  # every fourth layer, where all their numbers would run into each other
                named = [*range(3, len(blocks) - 1, 4), len(blocks)]
                axes.set_xticks([at + 0.5 for at in named], [cells.columns[at] for at in named])
        figure.colorbar(grid[0].collections[0], ax=list(grid), pad=0.02, aspect=20).ax.tick_params(labelsize=7)
        figure.supxlabel("layer (= block + 1); share of the change that the weights there carry", fontsize=7)
    return figure


def label(group: str) -> str:
    """A group as figures print it."""
    return GROUPS[group][0] if group in GROUPS else group


def colour(group: str) -> str:
    """A group's colour; blocks from light to dark by number."""
    if group in GROUPS:
        return GROUPS[group][1]
    number = int(group.rpartition(" ")[2]) if group.rpartition(" ")[2].isdecimal() else 0
    return matplotlib.colors.to_hex(matplotlib.colormaps["viridis"]((number * 0.37) % 1.0))


def best_way(origins: pd.DataFrame, method: str, readout: str) -> pd.DataFrame:
    """The rows of a checkpoint and read-out, by group: of the exact game where there is one, else of the path."""
    rows = origins[(origins["method"] == method) & (origins["readout"] == readout)]
    way = min(rows["way"], key=WAYS.index) if len(rows) else ""
    return rows[rows["way"] == way].set_index("group")


def _draw_bar(axes: Axes, row: int, rows: pd.DataFrame) -> str:
    """Draw one method's bar, and say what stands beside it."""
    ends, shares = {True: 0.0, False: 0.0}, dict(zip(rows.index, rows["share"].astype(float), strict=True))
    for group in ordered(rows.index.to_series(), GROUPS):
        share = shares[group]
        if np.isfinite(share):
            axes.barh(row, share, left=ends[share >= 0], height=0.6, color=colour(group), edgecolor="white", lw=0.4)
            ends[share >= 0] += share
    if not np.isfinite(shares.get("mlp.out", np.nan)):
        note = str(rows["note"].iloc[0]) if len(rows) else ""
        return "" if note == "nan" else note.replace(": the interval", ":\nthe interval")
    of_values = rows[rows.index == "mlp.out"]
    value, low, high = (100 * float(of_values[name].iloc[0]) for name in with_ends("share"))
    return f"{value:.0f}% ({low:.0f} to {high:.0f})".replace("-", "−")


ORIGINS = Plate(
    name="origins",
    title="Which weights carry the change",
    caption=(
        "How the change of behaviour from the base to each tuned model is shared out among its changed weights: "
        "Shapley values over models with some groups of the tuned weights, or, where those are too many, gradients "
        "along the line between the two. Parts left of zero work against the change. Beside each bar: the value "
        "vectors’ share, with its 95% interval over prompts."
    ),
    alt="A stacked bar per method, split over groups of weights. The numbers are in the table origins.",
    tables=("origins",),
    draw=plot_origins,
)
ORIGINS_BLOCKS = Plate(
    name="origins_blocks",
    title="Where in depth the weights are that carry the change",
    caption=(
        "The share of the change that the weights of each block and group carry, along the line from the base to the "
        "tuned weights; blue works against the change. All cells of a map add up to the effect of all groups."
    ),
    alt="A heat map per method, groups of weights by blocks. The numbers are in the table origins_blocks.",
    tables=("origins_blocks",),
    draw=plot_origins_blocks,
)
