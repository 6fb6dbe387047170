"""The probe's receiver operating characteristic."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mechinterp.report.plotting.drawing import new_figure, require
from mechinterp.report.plotting.plate import Plate
from mechinterp.report.plotting.style import FAINT, SINGLE_COLUMN, STYLE


def plot_probe_roc(probe_roc: pd.DataFrame) -> Figure:
    """Draw the probe's receiver operating characteristic on its held-out comments.

    Args:
        probe_roc: `probe_roc.csv`, the curve's points in order.

    Returns:
        One square panel; the diagonal is chance.

    Raises:
        InputError: the table is empty or lacks a column.
    """
    require(probe_roc, "probe_roc", ("false_positive_rate", "true_positive_rate"))
    false_positives, true_positives = probe_roc["false_positive_rate"], probe_roc["true_positive_rate"]
    area = float(np.trapezoid(true_positives, false_positives))
    with matplotlib.rc_context(STYLE):
        figure = new_figure(SINGLE_COLUMN, 3.1)
        axes = figure.subplots()
        axes.plot((0, 1), (0, 1), linestyle="--", linewidth=0.8, color=FAINT)
        axes.plot(false_positives, true_positives, color="#0072B2", linewidth=1.5)
        axes.text(0.97, 0.06, f"area under the curve {area:.3f}", ha="right", fontsize=8)
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
        axes.set_xlabel("clean comments called toxic (rate)")
        axes.set_ylabel("toxic comments called toxic (rate)")
    return figure


PROBE_ROC = Plate(
    name="probe_roc",
    title="The probe on held-out comments",
    caption=(
        "How many toxic comments the probe finds (upwards) at each rate of false alarms (to the right). The diagonal "
        "is chance. This is the probe’s quality on comments; whether its direction matters where a prompt is answered "
        "is another question, answered above."
    ),
    alt="Receiver operating characteristic curve of the toxic probe. The points are in tables/probe_roc.csv.",
    tables=("probe_roc",),
    draw=plot_probe_roc,
    narrow=True,
)
