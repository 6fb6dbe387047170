"""The verdict on checkpoints whose truth is known by construction: expected against found."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from mechinterp.errors import InputError
from mechinterp.report.plotting.drawing import new_figure, ordered, records, require, short, where
from mechinterp.report.plotting.plate import Plate
from mechinterp.report.plotting.style import DIRECTIONS, DOUBLE_COLUMN, INK, SINGLE_COLUMN, STYLE

_VERDICTS = {"erased": "#0072B2", "bypassed": "#E69F00", "mixed": "#CC79A7", "undecided": "#d0d0d0"}


def plot_calibration(calibration: pd.DataFrame) -> Figure:
    """Draw what the verdict says of constructed checkpoints, beside what it should say.

    Args:
        calibration: `calibration.csv`; rows without an expected verdict are left out.

    Returns:
        A panel for each direction of the decomposition and one for the relapse test, where it was made; a row for each
        construction, the expected verdict in the first column and then one column for each model and seed; a cross
        marks where the verdict is another.

    Raises:
        InputError: the table is empty, lacks a column, or expects nothing.
    """
    require(calibration, "calibration", ("architecture", "seed", "checkpoint", "expected", "found"))
    rows = calibration[calibration["expected"].isin(_VERDICTS)]
    if rows.empty:
        raise InputError(f"tables/calibration.csv expects none of {tuple(_VERDICTS)} of any checkpoint")
    rows = rows if "direction" in rows else rows.assign(direction="answer")
    parts = {DIRECTIONS.get(name, name): where(rows, direction=name) for name in ordered(rows["direction"], DIRECTIONS)}
    if "relapse_found" in rows and not (tested := rows[rows["relapse_found"].isin(_VERDICTS)]).empty:
        once = tested.drop_duplicates(["architecture", "seed", "checkpoint"])  # it takes no direction
        parts["relapse test"] = once.assign(found=once["relapse_found"])
    models = list(dict.fromkeys(zip(rows["architecture"].astype(str), rows["seed"], strict=True)))
    checkpoints = list(dict.fromkeys(rows["checkpoint"].astype(str)))
    with matplotlib.rc_context(STYLE):
        width = min(DOUBLE_COLUMN, 1.7 + 0.26 * (len(models) + 1) * len(parts))
        figure = new_figure(max(SINGLE_COLUMN, width), 1.6 + 0.24 * len(checkpoints))
        panels = figure.subplots(1, len(parts), squeeze=False, sharey=True)[0]
        for axes, (title, part) in zip(panels, parts.items(), strict=True):
            _draw_verdicts(axes, part, checkpoints, models)
            axes.set_title(title)
        panels[0].set_yticks(range(len(checkpoints)), [short(name.replace("_", " ")) for name in checkpoints])
        handles = [Patch(facecolor=colour, label=name) for name, colour in _VERDICTS.items()]
        figure.legend(handles=handles, loc="outside upper center", ncols=4)
        right = sum(int((part["found"] == part["expected"]).sum()) for part in parts.values())
        n = sum(map(len, parts.values()))
        figure.supxlabel(f"found as expected: {right} of {n}; ×: not as expected", fontsize=8)
    return figure


def _draw_verdicts(axes: Axes, rows: pd.DataFrame, checkpoints: list[str], models: list[tuple[str, Any]]) -> None:
    names = list(_VERDICTS)
    cells = np.full((len(checkpoints), len(models) + 1), np.nan)
    for row in records(rows):
        at, column = checkpoints.index(str(row.checkpoint)), models.index((str(row.architecture), row.seed)) + 1
        cells[at, 0] = names.index(row.expected)
        if row.found not in names:
            raise InputError(f"tables/calibration.csv has the verdict {row.found!r}; it must be one of {names}")
        cells[at, column] = names.index(row.found)
        if row.found != row.expected:
            axes.text(column, at, "×", ha="center", va="center", fontsize=8, color=INK)
    colours = ListedColormap(list(_VERDICTS.values()))
    edges = np.arange(len(models) + 2) - 0.5, np.arange(len(checkpoints) + 1) - 0.5
    style: dict[str, Any] = {"edgecolors": "white", "linewidth": 1.0}
    axes.pcolormesh(*edges, np.ma.masked_invalid(cells), cmap=colours, vmin=-0.5, vmax=len(names) - 0.5, **style)
    axes.axvline(0.5, color=INK, linewidth=0.8)
    labels = ["expected", *(f"{architecture} {seed}" for architecture, seed in models)]
    axes.set_xticks(range(len(labels)), labels, rotation=90)
    axes.set_ylim(len(checkpoints) - 0.5, -0.5)
    axes.set_frame_on(False)
    axes.tick_params(length=0)


CALIBRATION = Plate(
    name="calibration",
    title="Calibration: expected against found",
    caption=(
        "Checkpoints whose truth is known by construction, over seeds and architectures: what the decomposition along "
        "each direction, and the relapse test, said they are."
    ),
    alt=(
        "A grid of checkpoints by models and seeds, coloured by verdict, the expected one first; a cross marks "
        "another than expected. The numbers are in the table calibration."
    ),
    tables=("calibration",),
    draw=plot_calibration,
    optional=True,
)
