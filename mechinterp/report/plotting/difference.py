"""Where two checkpoints differ, by block and component."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from mechinterp.report.plotting.drawing import new_figure, require, short
from mechinterp.report.plotting.plate import Plate
from mechinterp.report.plotting.style import DOUBLE_COLUMN, SINGLE_COLUMN, STYLE


def plot_difference(diff_blocks: pd.DataFrame) -> Figure:
    """Draw where two checkpoints differ, and by how much for the size of the weights there.

    Args:
        diff_blocks: `diff_blocks.csv`, a row per block and component.

    Returns:
        A heat map, components by layers, of the norm of the change in per cent of A's norm on a logarithmic scale, and
        beside it what lies outside the blocks. Unchanged is grey; a cross marks tensors without a counterpart.

    Raises:
        InputError: the table is empty or lacks a column.
    """
    require(diff_blocks, "diff_blocks", ("block", "component", "relative_change", "unpaired"))
    relative = 100 * diff_blocks["relative_change"].to_numpy(float)
    positive = relative[np.isfinite(relative) & (relative > 0)]
    low, high = (positive.min(), positive.max()) if len(positive) else (0.1, 1.0)
    centre = np.sqrt(low * high)
    # At least a decade, so that small differences do not look like large ones.
    scale = LogNorm(min(low, centre / np.sqrt(10)), max(high, centre * np.sqrt(10)), clip=True)
    inside, outside = (diff_blocks[where] for where in (diff_blocks["block"].notna(), diff_blocks["block"].isna()))
    blocks = sorted(int(block) for block in inside["block"].unique())
    components = list(dict.fromkeys(inside["component"]))
    n_rows = max(len(components), len(outside), 1)
    with matplotlib.rc_context(STYLE):
        figure = new_figure(DOUBLE_COLUMN if len(blocks) > 16 else SINGLE_COLUMN, 0.95 + 0.17 * n_rows)
        ratios = (max(len(blocks), 1), max(1.0, len(blocks) / 12))
        main, beside = figure.subplots(1, 2, width_ratios=ratios)
        places = [
            (components.index(component), blocks.index(int(block)))
            for block, component in zip(inside["block"], inside["component"], strict=True)
        ]
        _draw_changes(main, (n_rows, max(len(blocks), 1)), places, inside, scale)
        mesh = _draw_changes(beside, (n_rows, 1), [(row, 0) for row in range(len(outside))], outside, scale)
        main.set_yticks(np.arange(len(components)) + 0.5, [short(name) for name in components])
        main.set_xticks(np.arange(len(blocks)) + 0.5, [str(block + 1) for block in blocks])
        if len(blocks) > 16:
            main.set_xticks(main.get_xticks()[3::4], [str(block + 1) for block in blocks[3::4]])
        main.set_xlabel("layer (= block + 1)")
        beside.set_xticks([])
        beside.yaxis.tick_right()
        beside.set_yticks(np.arange(len(outside)) + 0.5, [short(name) for name in outside["component"]])
        bar = figure.colorbar(mesh, ax=[main, beside], location="top", aspect=40, pad=0.02)
        bar.set_label("norm of the change, % of the norm of A", fontsize=8)
        bar.ax.tick_params(labelsize=7)
        bar.ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 300 else (1,)))
        bar.ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        bar.ax.xaxis.set_minor_formatter(NullFormatter())
        note = "grey: unchanged" + ("; ×: no counterpart" if diff_blocks["unpaired"].sum() else "")
        figure.supxlabel(note, fontsize=7)
    return figure


def _draw_changes(
    axes: Axes, shape: tuple[int, int], places: list[tuple[int, int]], rows: pd.DataFrame, scale: LogNorm
) -> QuadMesh:
    """Colour the cells at `places` by relative change; where there is no row the paper stays white."""
    cells, unchanged = np.full(shape, np.nan), np.full(shape, np.nan)
    for place, relative, unpaired in zip(places, rows["relative_change"], rows["unpaired"], strict=True):
        if relative == 0:
            unchanged[place] = 0.0
        else:
            cells[place] = 100 * relative
        if unpaired:
            axes.text(place[1] + 0.5, place[0] + 0.5, "×", ha="center", va="center", fontsize=7, color="#D55E00")
    style: dict[str, Any] = {"edgecolors": "white", "linewidth": 0.5}
    axes.pcolormesh(unchanged, cmap=ListedColormap(["#dddddd"]), **style)
    cells[np.isposinf(cells)] = scale.vmax  # nothing there before
    mesh = axes.pcolormesh(np.ma.masked_invalid(cells), norm=scale, **style)
    mesh.set_cmap("viridis_r")
    axes.set_ylim(shape[0], 0)
    axes.set_frame_on(False)
    axes.tick_params(length=0)
    return mesh


DIFF = Plate(
    name="diff",
    title="Which weights differ",
    caption=(
        "How far the weights of each block and component moved, relative to what they were: no model was run for it."
    ),
    alt="Heat map of blocks by components. The numbers are in the table diff_blocks.",
    tables=("diff_blocks",),
    draw=plot_difference,
    optional=True,
)
