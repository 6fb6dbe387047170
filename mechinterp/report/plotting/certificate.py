"""Every measure on checkpoints of known truth: how well it tells what was never learnt from what is hidden."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mechinterp.audit.certificate import separations
from mechinterp.report.plotting.drawing import new_figure, require
from mechinterp.report.plotting.plate import Plate
from mechinterp.report.plotting.style import FAINT, INK, OTHER_COLOURS, STYLE

_QUESTIONS = {"auc_hidden": "never learnt or hidden?", "auc_there": "without or with the behaviour?"}


def plot_certificate(certificate: pd.DataFrame) -> Figure:
    """Draw how well every measure answers two questions of checkpoints whose truth is known.

    Args:
        certificate: `certificate.csv`.

    Returns:
        A panel for each question and a row for each measure; a point and its interval for each depth; 1 is right of
        every pair of checkpoints, the line at one half is chance.

    Raises:
        InputError: the table is empty or lacks a column.
    """
    require(certificate, "certificate", ("blocks", "seed", "kind", "defense"))
    rows = separations(certificate)
    measures, depths = list(dict.fromkeys(rows["measure"])), list(dict.fromkeys(rows["blocks"]))
    with matplotlib.rc_context(STYLE):
        figure = new_figure(6.4, 0.9 + 0.24 * len(measures))
        for axes, (column, title) in zip(figure.subplots(1, 2, sharey=True), _QUESTIONS.items(), strict=True):
            axes.axvline(0.5, color=FAINT, linewidth=0.6, linestyle="--")
            for number, blocks in enumerate(depths):
                own = rows[rows["blocks"] == blocks].set_index("measure").reindex(measures)
                at = np.arange(len(measures)) + 0.22 * (number - (len(depths) - 1) / 2)
                value, low, high = (own[f"{column}{end}"].to_numpy(float) for end in ("", "_low", "_high"))
                colour = OTHER_COLOURS[number % len(OTHER_COLOURS)]
                axes.hlines(at, low, high, color=colour, linewidth=1.0)
                axes.plot(value, at, "o", markersize=3.5, color=colour, mec=INK, mew=0.4, label=f"{blocks} blocks")
            axes.set(title=title, xlim=(-0.03, 1.03), xlabel="AUC")
            axes.set_yticks(range(len(measures)), measures)
            axes.set_ylim(len(measures) - 0.5, -0.5)
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=max(1, len(depths)))
    return figure


CERTIFICATE = Plate(
    name="certificate",
    title="Does the instrument tell the truth?",
    caption=(
        "Every measure on checkpoints whose truth is known by construction, by depth of the model: left, whether it "
        "tells a behaviour that was never learnt from one that is hidden; right, from one that is there. 1: right of "
        "every pair, 0.5: chance, below: it points the wrong way. No point is drawn where a measure is undefined on "
        "all checkpoints of a kind. Lines: 95% intervals."
    ),
    alt="Points with intervals in two panels, a row for each measure. The numbers are in the table certificate.",
    tables=("certificate",),
    draw=plot_certificate,
    optional=True,
)
