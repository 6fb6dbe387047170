"""Facts edited block by block: what became of the answers, who writes the new object, and where it comes up."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from mechinterp.audit.tables.reading import where
from mechinterp.report.plotting.drawing import draw_curve, finite, method_lines, new_figure, require, wide
from mechinterp.report.plotting.plate import Plate
from mechinterp.report.plotting.style import DOUBLE_COLUMN, FAINT, INK, STYLE, method_colours

_SHOWN = {
    "success": "new answer",
    "rephrase": "in other words",
    "portability": "portability",
    "locality": "locality",
    "direct": "by the edited\nMLP itself",
    "carried": "carried by\nthe subject",
}


def plot_edited_facts(edited_facts: pd.DataFrame) -> Figure:
    """Draw what editing at one block after the other does.

    Args:
        edited_facts: `edited_facts.csv`.

    Returns:
        A panel per quantity over the edited block, a line per method with its interval, dashed the unedited model.

    Raises:
        InputError: the table is empty or lacks a column.
    """
    require(edited_facts, "edited_facts", ("method", "edited", "quantity", "kind", "value", "value_low", "value_high"))
    rows = edited_facts[edited_facts["kind"].isna() | (edited_facts["kind"] == "")]
    shown = [quantity for quantity in _SHOWN if (rows["quantity"] == quantity).any()]
    methods = [method for method in dict.fromkeys(rows["method"]) if method != "base"]
    colours = method_colours(methods)
    with matplotlib.rc_context(STYLE):
        figure = new_figure(DOUBLE_COLUMN, 2.3)
        panels = figure.subplots(1, len(shown), sharex=True, sharey=True, squeeze=False)[0]
        for axes, quantity in zip(panels, shown, strict=True):
            for method in methods:
                own = where(rows, method=method, quantity=quantity).sort_values("edited")
                draw_curve(axes, finite(own["edited"]), own, "value", colours[method])
            before = where(rows, method="base", quantity=quantity)
            if quantity == "carried":
                draw_curve(axes, finite(before["edited"]), before, "value", FAINT, "--")
            else:
                for value in finite(before["value"]):
                    axes.axhline(value, color=FAINT, linestyle="--")
            axes.set_title(_SHOWN[quantity])
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        panels[0].set_ylim(-0.45, 1.55)
        panels[0].set_ylabel("share, mean over facts")
        figure.legend(handles=method_lines(methods, base=True), loc="outside upper center", ncols=1 + len(methods))
        figure.supxlabel("edited block", fontsize=8)
    return figure


def plot_edited_ranks(edited_ranks: pd.DataFrame) -> Figure:
    """Draw the rank of the new object over depth.

    Args:
        edited_ranks: `edited_ranks.csv`.

    Returns:
        A panel per edited block, marked by a line, and a row per position: medians over facts, the band half of them;
        dashed the unedited model.

    Raises:
        InputError: the table is empty or lacks a column.
    """
    columns = ("method", "edited", "position", "tokens", "block", "rank", "rank_first", "rank_third")
    require(edited_ranks, "edited_ranks", columns)
    rows = where(edited_ranks, tokens="new")
    blocks = sorted(set(rows["edited"].dropna()))
    positions = [name for name in ("last", "subject") if (rows["position"] == name).any()]
    methods = [method for method in dict.fromkeys(rows["method"]) if method != "base"]
    colours = method_colours(methods)
    with matplotlib.rc_context(STYLE):
        figure = new_figure(wide(max(2, len(blocks))), 0.9 + 1.6 * len(positions))
        grid = figure.subplots(len(positions), len(blocks), sharex=True, sharey=True, squeeze=False)
        for line, position in zip(grid, positions, strict=True):
            for axes, block in zip(line, blocks, strict=True):
                before = where(rows, method="base", position=position)
                axes.plot(*_curve(before), color=FAINT, linestyle="--")
                for method in methods:
                    own = where(rows, method=method, position=position, edited=block)
                    depth, ranks = _curve(own)
                    axes.plot(depth, ranks, color=colours[method], marker="o", markersize=2)
                    ends = (_curve(own, name)[1] for name in ("rank_first", "rank_third"))
                    axes.fill_between(depth, *ends, color=colours[method], alpha=0.15, linewidth=0)
                axes.axvline(float(block) + 1, color=INK, linewidth=0.6, linestyle=":")
                axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            line[0].set_ylabel("last token" if position == "last" else "the subject")
        _rank_axis(grid[0][0])
        for axes, block in zip(grid[0], blocks, strict=True):
            axes.set_title(f"block {block:.0f} edited")
        dotted = Line2D([], [], color=INK, linestyle=":", linewidth=0.6, label="the edited block’s output")
        handles = [*method_lines(methods, base=True), dotted]
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
        figure.supxlabel("layer (= block + 1), 0 the embedding", fontsize=8)
        figure.supylabel("rank of the new object", fontsize=8)
    return figure


def _curve(rows: pd.DataFrame, column: str = "rank") -> tuple[np.ndarray, np.ndarray]:
    """Layers in their order, and a column of theirs."""
    depth = np.nan_to_num(finite(rows["block"]) + 1)
    order = np.argsort(depth, kind="stable")
    return depth[order], finite(rows[column])[order]


def _rank_axis(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda rank, _: f"{rank:,.0f}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.invert_yaxis()


EDITED_FACTS = Plate(
    name="edited_facts",
    title="Facts edited at one block after the other",
    caption=(
        "Each fact is edited alone, on the unedited model, and asked: the new answer to its own prompt, to the prompt "
        "in other words, to what follows from it (portability), and whether other answers stay what they were "
        "(locality). Means over facts with 95% intervals over their subjects; dashed, the unedited model. Then: of the "
        "change of the new object’s logit over the old one’s, what the MLP of the edited block writes itself at the "
        "prompt’s last token (the rest is written by heads and MLPs after it, which read a changed stream); and of the "
        "unedited model’s answer, what goes when the stream at the subject’s last token, after this block, is another "
        "subject’s: where that is little, an edit at the subject cannot do much."
    ),
    alt="Lines over the edited block for each method, a panel per quantity. The numbers are in the table edited_facts.",
    tables=("edited_facts",),
    draw=plot_edited_facts,
    optional=True,
)
EDITED_RANKS = Plate(
    name="edited_ranks",
    title="Where does the new object come up?",
    caption=(
        "The residual stream of edited models read through final norm and unembedding: the rank of the new object’s "
        "first token, at the prompt’s last token and at the best of the subject’s (median over facts, the band holds "
        "half of them). Dashed, the unedited model; dotted, the layer that the edited block writes. A rank that falls "
        "at once there was written as an answer; one that falls further up is read from the subject by what follows."
    ),
    alt="Lines of ranks over depth, a panel per edited block. The numbers are in the table edited_ranks.",
    tables=("edited_ranks",),
    draw=plot_edited_ranks,
    optional=True,
)
