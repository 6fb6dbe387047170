"""Erase or bypass: the change of the toxic write in its two parts, summed and block by block."""

from __future__ import annotations

from functools import partial
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from mechinterp.errors import InputError, near
from mechinterp.measures.intervals import ends, has_ends, with_ends
from mechinterp.report.plotting.drawing import key_marker, label_rows, new_figure, ordered, require, tint, truths
from mechinterp.report.plotting.plate import Plate
from mechinterp.report.plotting.style import (
    DIRECTIONS,
    DOUBLE_COLUMN,
    FAINT,
    INK,
    OFF,
    POSITIONS,
    SINGLE_COLUMN,
    STYLE,
    method_colours,
    method_label,
    position_label,
)


def plot_erase_or_bypass(decomposition: pd.DataFrame, local_verdict: pd.DataFrame) -> Figure:
    """Draw the change of the toxic write, split into erasure and bypass, per direction, position and method.

    The two parts are signed: parts of one sign follow each other, parts of opposite sign start from zero; the diamond
    is their sum, with its 95% interval where the verdicts have one. A grey panel is a direction not in play at that
    position. The term of MLP output biases counts as erasure.

    Args:
        decomposition: `decomposition.csv`, a row per method, direction, position and block.
        local_verdict: `local_verdict.csv`, whose share, interval and verdict are printed above each bar.

    Returns:
        A row of panels per position, a column per direction, each with its own scale.

    Raises:
        InputError: a table is empty or lacks a column.
    """

    require(decomposition, "decomposition", ("method", "direction", "position", "block", "erasure", "bypass"))
    require(local_verdict, "local_verdict", ("method", "direction", "position", *with_ends("erasure_share"), "verdict"))
    totals = _with_bias(decomposition).groupby(["direction", "position", "method"])[["erasure", "bypass"]].sum()
    methods = list(dict.fromkeys(decomposition["method"]))
    directions = ordered(decomposition["direction"], DIRECTIONS)
    positions = ordered(decomposition["position"], POSITIONS)
    with matplotlib.rc_context(STYLE):
        size = (
            max(SINGLE_COLUMN, DOUBLE_COLUMN * len(directions) / 3),
            0.7 + (0.55 + 0.42 * len(methods)) * len(positions),
        )
        figure = new_figure(*size)
        grid = figure.subplots(len(positions), len(directions), sharey=True, squeeze=False)
        for row, position in enumerate(positions):
            for column, direction in enumerate(directions):
                axes = grid[row, column]
                here = local_verdict.query("direction == @direction and position == @position")
                parts = totals.loc[[key for key in totals.index if key[:2] == (direction, position)]]
                _draw_parts(axes, parts.droplevel([0, 1]).reindex(methods), here)
                axes.set_title(f"{DIRECTIONS.get(direction, direction)}\n{position_label(position)}")
        label_rows(grid[0, 0], [method_label(method) for method in methods])
        note = "above a bar: verdict and erasure share with its 95% interval; grey: the direction is not in play"
        figure.supxlabel(f"change of the toxic write, base to tuned, summed over blocks\n{note}", fontsize=7)
        handles = [
            Patch(facecolor=FAINT, edgecolor=INK, linewidth=0.5, label="erasure: weights changed"),
            Patch(facecolor="white", edgecolor=FAINT, hatch="////", label="bypass: inflow changed"),
            key_marker("sum, with its 95% interval" if has_ends("change", local_verdict) else "sum", "D", INK),
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=3)
    return figure


def plot_blocks(decomposition: pd.DataFrame, *, position: str) -> Figure:
    """Draw where in depth the toxic write changed, by erasure and by bypass.

    Args:
        decomposition: `decomposition.csv`.
        position: the position to draw, one of the table's.

    Returns:
        A row of two heat maps per direction, methods by layers, on one colour scale that is symmetric about zero. The
        scales of the directions differ, as their units do.

    Raises:
        InputError: the table is empty, lacks a column, or has no such position.
    """
    import seaborn as sns  # seconds, and only heat maps want it

    require(decomposition, "decomposition", ("method", "direction", "position", "block", "erasure", "bypass"))
    rows = _with_bias(decomposition[decomposition["position"] == position])
    if rows.empty:
        meant = near(position, decomposition["position"].astype(str).unique())
        raise InputError(
            f"tables/decomposition.csv has no position {position!r}, it has {_names(decomposition)}{meant}"
        )
    methods = list(dict.fromkeys(rows["method"]))
    directions = ordered(rows["direction"], DIRECTIONS)
    with matplotlib.rc_context(STYLE):
        figure = new_figure(DOUBLE_COLUMN, 0.6 + (0.4 + 0.26 * len(methods)) * len(directions))
        grid = figure.subplots(len(directions), 2, sharex=True, sharey=True, squeeze=False)
        for panels, direction in zip(grid, directions, strict=True):
            here = rows[rows["direction"] == direction]
            limit = np.nanmax(np.abs(here[["erasure", "bypass"]].to_numpy(float))) or 1.0
            for axes, part in zip(panels, ("erasure", "bypass"), strict=True):
                cells = here.pivot_table(index="method", columns="block", values=part).reindex(methods)
                cells = cells.rename(index=method_label, columns=lambda block: block + 1)
                sns.heatmap(cells, ax=axes, cmap="RdBu_r", vmin=-limit, vmax=limit, cbar=False, linewidths=0.4)
                axes.set(title=f"{DIRECTIONS.get(direction, direction)}: {part}", xlabel="", ylabel="")
                axes.tick_params(labelrotation=0, left=part == "erasure")
            figure.colorbar(panels[0].collections[0], ax=list(panels), pad=0.01, aspect=12).ax.tick_params(labelsize=7)
        figure.supxlabel(f"layer (= block + 1); change of the write at the {position_label(position)}", fontsize=8)
    return figure


def _names(table: pd.DataFrame) -> str:
    return ", ".join(ordered(table["position"], POSITIONS)) or "none"


def _with_bias(decomposition: pd.DataFrame) -> pd.DataFrame:
    if "bias" not in decomposition:
        return decomposition
    return decomposition.assign(erasure=decomposition["erasure"] + decomposition["bias"].fillna(0))


def _draw_parts(axes: Axes, parts: pd.DataFrame, verdict: pd.DataFrame) -> None:
    """Draw a row per method: erasure solid, bypass hatched, their sum a diamond, the verdict above them."""
    colours = method_colours(parts.index)
    in_play = "in_play" not in verdict or any(truths(verdict["in_play"]))
    if not in_play:
        axes.set_facecolor(OFF)
    for row, (method, erasure, bypass) in enumerate(parts.itertuples()):
        start = erasure if erasure * bypass > 0 else 0.0
        style: dict[str, Any] = {"height": 0.32, "edgecolor": colours[method], "linewidth": 0.6}
        axes.barh(row + 0.12, erasure, color=colours[method], **style)
        axes.barh(row + 0.12, bypass, left=start, color=tint(colours[method], 0.15), hatch="////", **style)
        axes.plot(erasure + bypass, row + 0.12, marker="D", markersize=3.5, color=INK)
        for verdict_row in verdict[verdict["method"] == method].head(1).itertuples():
            note = _verdict_note(verdict_row, in_play=in_play)
            if has_ends("change", verdict):
                interval = [getattr(verdict_row, end) for end in ends("change")]
                axes.plot(
                    interval, (row + 0.12,) * 2, color=INK, linewidth=1.0, marker="|", markersize=4, gid="interval"
                )
            axes.text(0.01, row - 0.12, note, transform=axes.get_yaxis_transform(), va="bottom", fontsize=7, color=INK)
    axes.axvline(0, color=INK, linewidth=0.6)
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.margins(x=0.08)


def _verdict_note(row: Any, *, in_play: bool) -> str:
    if not in_play:
        return "not in play"
    if not np.isfinite(row.erasure_share):
        return str(row.verdict)
    share, low, high = (getattr(row, column) for column in with_ends("erasure_share"))
    return f"{row.verdict} {share:.2f} [{low:.2f}, {high:.2f}]"


ERASE_OR_BYPASS = Plate(
    name="erase_or_bypass",
    title="Erase or bypass",
    caption=(
        "Each bar is the change of what the MLP blocks write along a toxic direction, from the base to the tuned "
        "model. The solid part came from changed weights (erasure), the hatched part from a changed inflow into "
        "unchanged weights (bypass); together they are the whole change, without remainder; the diamond is their sum. "
        "Bars to the left mean less is written along the toxic direction. Every panel has its own scale. A grey "
        "panel is a direction that is not in play there: skip it."
    ),
    alt=(
        "Horizontal bars, a panel for each direction and position, a bar per checkpoint split into a solid erasure "
        "part and a hatched bypass part. The numbers are in the table verdict."
    ),
    tables=("decomposition", "local_verdict"),
    draw=plot_erase_or_bypass,
)
BLOCKS_PROMPT_LAST = Plate(
    name="blocks_prompt_last",
    title="Where in depth, at the last prompt token",
    caption=(
        "The same two parts, block by block. Blue: the block writes less along the toxic direction than in the base; "
        "red: more. The colour scale is shared by the two panels of a row, not between rows. A change that sits in "
        "one column of the left panel is an edit of one block; one that grows to the right of the right panel is a "
        "re-routed inflow."
    ),
    alt=(
        "Heat maps of checkpoints by layers, erasure on the left and bypass on the right, a row per direction. The "
        "numbers are in the table decomposition."
    ),
    tables=("decomposition",),
    draw=partial(plot_blocks, position="prompt_last"),
)
BLOCKS_RESPONSE = Plate(
    name="blocks_response",
    title="Where in depth, over the unsafe response",
    caption=(
        "The same two parts, averaged over the tokens of the unsafe response, which every checkpoint is given as the "
        "same text."
    ),
    alt=(
        "Heat maps of checkpoints by layers, erasure on the left and bypass on the right, a row per direction. The "
        "numbers are in the table decomposition."
    ),
    tables=("decomposition",),
    draw=partial(plot_blocks, position="response"),
)
