"""What can be read off the states of checkpoints, block by block, and how soon the base's own answer would begin."""

from __future__ import annotations

import matplotlib
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from mechinterp.measures.intervals import with_ends
from mechinterp.report.plotting.drawing import draw_curve, method_lines, new_figure, require, tuned_only
from mechinterp.report.plotting.plate import Plate
from mechinterp.report.plotting.style import FAINT, INK, STYLE, method_colours

_BESIDE = {"base": ("Base", "--"), "never": ("Never learnt", "-."), "random": ("Random weights", ":")}


def plot_decodability(decodability: pd.DataFrame) -> Figure:
    """Draw how far probes read beyond the words, and the rank of the base's first unsafe token, over the layers.

    Args:
        decodability: `decodability.csv`.

    Returns:
        Left the AUROC of probes on held-out categories less that of a bag of words; right the median rank in the logit
        lens after each block, on a logarithmic scale.

    Raises:
        InputError: the table is empty or lacks a column.
    """
    panels = {
        "above_words": "AUROC of a probe\nless that of the words",
        "rank_block": "rank of the base’s\nfirst unsafe token",
    }
    require(decodability, "decodability", ("method", "block", *(end for name in panels for end in with_ends(name))))
    tuned = [method for method in tuned_only(decodability, "decodability")["method"] if method not in _BESIDE]
    colours = method_colours(tuned)
    with matplotlib.rc_context(STYLE):
        figure = new_figure(5.6, 2.5)
        for axes, (name, title) in zip(figure.subplots(1, 2, sharex=True), panels.items(), strict=True):
            for method, own in decodability.groupby("method", sort=False):
                own = own.sort_values("block")
                _, line = _BESIDE.get(str(method), ("", "-"))
                colour = colours.get(str(method), FAINT)
                draw_curve(axes, own["block"].to_numpy(float) + 1, own, name, colour, line)
            axes.set_title(title)
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            if name == "above_words":
                axes.axhline(0, color=INK, linewidth=0.6)
            else:
                axes.set_yscale("log")
                axes.set_ylim(bottom=0.8)
        there = set(decodability["method"])
        beside = [
            Line2D([], [], color=FAINT, linestyle=line, label=label)
            for method, (label, line) in _BESIDE.items()
            if method in there
        ]
        handles = [*beside, *method_lines(tuned)]
        figure.legend(handles=handles, loc="outside upper center", ncols=min(4, len(handles)))
        figure.supxlabel("layer (= block + 1)", fontsize=8)
    return figure


DECODABILITY = Plate(
    name="decodability",
    title="Is it still there to be read?",
    caption=(
        "For every block a probe is trained anew on the checkpoint’s own states, for whether the base answers a prompt "
        "unsafely, and scored on categories that it was not trained on. Left: how far it reads beyond a bag of the "
        "prompt’s words. Right: the median rank, in the logit lens, of the token with which the base begins its unsafe "
        "answer; 1 is what would be said. What can be read as well as in the base and is not said is decodable, and "
        "not used."
    ),
    alt="Lines over depth, a line per checkpoint. The numbers are in the table decodability.",
    tables=("decodability",),
    draw=plot_decodability,
    optional=True,
)
