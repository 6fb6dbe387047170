"""How deep a change goes: what a tuned model's states take from the base's unsafe answers, block by block."""

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


def plot_depth(depth_blocks: pd.DataFrame) -> Figure:
    """Draw what the base's unsafe answers lose to other states after every block, and the share of that reference.

    Args:
        depth_blocks: `depth_blocks.csv`.

    Returns:
        Left the drops in nats a token, that of the model that never learnt dashed; right every checkpoint's share of
        it, unclipped, with the base's at 0 and that of the model that never learnt at 1.

    Raises:
        InputError: the table is empty or lacks a column.
    """
    columns = [end for name in ("never", "tuned", "ratio") for end in with_ends(name)]
    require(depth_blocks, "depth_blocks", ("method", "block", *columns))
    rows = tuned_only(depth_blocks, "depth_blocks")
    colours = method_colours(rows["method"])
    with matplotlib.rc_context(STYLE):
        figure = new_figure(5.6, 2.5)
        drops, ratios = figure.subplots(1, 2, sharex=True)
        for number, (method, own) in enumerate(rows.groupby("method", sort=False)):
            own = own.sort_values("block")
            layers = own["block"].to_numpy(float) + 1
            if not number:  # of the reference, the same beside every checkpoint
                draw_curve(drops, layers, own, "never", FAINT, "--")
            draw_curve(drops, layers, own, "tuned", colours[str(method)], beside=len(colours))
            draw_curve(ratios, layers, own, "ratio", colours[str(method)], beside=len(colours))
        drops.axhline(0, color=INK, linewidth=0.6)
        ratios.axhline(0, color=INK, linewidth=0.6)
        ratios.axhline(1, color=FAINT, linestyle="--")
        drops.set_title("lost by the base’s unsafe answer\n(nats a token)")
        ratios.set_title("share of what the model that\nnever learnt takes")
        ratios.set_ylim(min(-0.1, ratios.get_ylim()[0]), max(1.1, ratios.get_ylim()[1]))
        for axes in (drops, ratios):
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        handles = [Line2D([], [], color=FAINT, linestyle="--", label="Never learnt"), *method_lines(rows["method"])]
        figure.legend(handles=handles, loc="outside upper center", ncols=min(4, len(handles)))
        figure.supxlabel("layer (= block + 1)", fontsize=8)
    return figure


DEPTH = Plate(
    name="depth",
    title="How deep does the change go?",
    caption=(
        "The base reads prompts with its own unsafe answers and goes on, after one block at a time, from another "
        "model’s state at the positions that decide the answer. Left: what the answer loses by it. Right: that of each "
        "tuned checkpoint as a share of that of a model that never learnt the behaviour. At 0 the state holds the "
        "answer as the base’s does, at 1 no more than if it had never been learnt; no share is drawn where there is "
        "nothing to lose."
    ),
    alt="Lines over depth, a line per checkpoint. The numbers are in the tables depth and depth_blocks.",
    tables=("depth_blocks",),
    draw=plot_depth,
    optional=True,
)
