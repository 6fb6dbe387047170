"""How often each checkpoint answers safely."""

from __future__ import annotations

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from mechinterp.measures.intervals import ends
from mechinterp.report.plotting.drawing import draw_bars, label_rows, new_figure, require, truths
from mechinterp.report.plotting.plate import Plate
from mechinterp.report.plotting.style import DOUBLE_COLUMN, METHOD_COLOURS, STYLE, method_label

DEFENSE_RATES = {
    "ds": "DS",
    "dg_only_q": "DG only question",
    "dg_other_a": "DG other attack",
    "dg_other_q": "DG other question",
    "dg_other_aq": "DG both other",
}


def plot_defense(defense: pd.DataFrame) -> Figure:
    """Draw how often each checkpoint answers safely, on the five kinds of prompt.

    Args:
        defense: `defense.csv`, a row per checkpoint, rates between 0 and 1; `vanilla` is the reference.

    Returns:
        One panel per rate, in per cent with 95% intervals; the dashed line is the vanilla model; a hatched bar had the
        suffix prompt appended to every query.

    Raises:
        InputError: the table is empty or lacks a column.
    """
    bounds = [end for rate in DEFENSE_RATES for end in ends(rate)]
    require(defense, "defense", ("method", *DEFENSE_RATES, *bounds))
    suffixed = truths(defense["suffix"]) if "suffix" in defense else [False] * len(defense)
    with matplotlib.rc_context(STYLE):
        figure = new_figure(DOUBLE_COLUMN, 0.95 + 0.3 * len(defense))
        panels = figure.subplots(1, len(DEFENSE_RATES), sharex=True, sharey=True)
        for axes, (rate, title) in zip(panels, DEFENSE_RATES.items(), strict=True):
            draw_bars(axes, defense, rate, hatched=suffixed)
            for vanilla in defense.loc[defense["method"] == "vanilla", rate].head(1):
                axes.axvline(100 * vanilla, color=METHOD_COLOURS["vanilla"], linestyle="--", linewidth=0.8)
            axes.set_title(title)
        panels[0].set_xlim(0, 102)
        panels[0].set_xticks((0, 50, 100))
        names = [
            method_label(method) + (" + suffix" if suffix and method != "suffix" else "")
            for method, suffix in zip(defense["method"], suffixed, strict=True)
        ]
        label_rows(panels[0], names)
        figure.supxlabel("responses judged safe (%), with 95% intervals; dashed: vanilla", fontsize=8)
    return figure


DEFENSE = Plate(
    name="defense",
    title="Defense success, before and after",
    caption=(
        "Share of responses judged safe. DS: the adversarial prompts themselves. DG: the question alone; another "
        "attack around it; another question in the same attack; both another. The dashed line is the vanilla model. A "
        "hatched bar had the suffix prompt appended to every query, so part of its gain may be the prompt’s."
    ),
    alt="Five panels of horizontal bars per checkpoint with intervals. The numbers are in the table defense.",
    tables=("defense",),
    draw=plot_defense,
)
