"""What the stream would say at each depth: Lee et al.'s logit lens, base against tuned."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mechinterp.audit.tables.reading import where
from mechinterp.measures.intervals import ends
from mechinterp.report.plotting.drawing import (
    draw_curve,
    drawable,
    method_lines,
    new_figure,
    only,
    ordered,
    require,
)
from mechinterp.report.plotting.plate import Plate
from mechinterp.report.plotting.style import DOUBLE_COLUMN, FAINT, SINGLE_COLUMN, STYLE, method_colours

_SETS = {"unsafe": "tokens that start unsafe answers", "safe": "tokens that start safe answers"}
_MEASURES = {"logit": "mean logit", "probability": "summed probability"}
_POINTS = {"embed": 0.0, "mid": 0.5, "post": 1.0}


def plot_logit_lens(logit_lens: pd.DataFrame) -> Figure:
    """Draw the logit and the probability of the first tokens of unsafe and of safe answers over depth.

    Args:
        logit_lens: `logit_lens.csv`; the rows of all tokens of a set together are drawn.

    Returns:
        A column of panels for each set of tokens; mean logit of its tokens above, their probability together below.
        The base is dashed grey, bands are 95% intervals over inputs.

    Raises:
        InputError: the table is empty or lacks a column.
    """
    bounds = [end for measure in _MEASURES for end in ends(measure)]
    require(logit_lens, "logit_lens", ("method", "block", "point", "token", "token_set", *_MEASURES, *bounds))
    rows = only(logit_lens, "logit_lens", "token", "all")
    sets = ordered(rows["token_set"], _SETS)
    tuned = [method for method in dict.fromkeys(rows["method"]) if method != "base"]
    colours = {**method_colours(tuned), "base": FAINT}
    with matplotlib.rc_context(STYLE):
        figure = new_figure(max(SINGLE_COLUMN, DOUBLE_COLUMN * len(sets) / 2), 3.6)
        grid = figure.subplots(2, len(sets), squeeze=False, sharex=True, sharey="row")
        for column, token_set in enumerate(sets):
            here = where(rows, token_set=token_set)
            for axes, measure in zip(grid[:, column], _MEASURES, strict=True):
                for method in ["base", *tuned]:
                    own = where(here, method=method)
                    depth = _depth(own)
                    own = own.iloc[np.argsort(depth)]
                    draw_curve(axes, np.sort(depth), own, measure, colours[method], "--" if method == "base" else "-")
            named = logit_lens[(logit_lens["token_set"] == token_set) & (logit_lens["token"] != "all")]["token"]
            listed = ", ".join(drawable(str(token)[:12]) for token in list(dict.fromkeys(named))[:5])
            grid[0, column].set_title(f"{_SETS.get(token_set, token_set)}\n{listed}")
        for axes, label in zip(grid[:, 0], _MEASURES.values(), strict=True):
            axes.set_ylabel(label)
        grid[1, 0].set_ylim(bottom=0)
        grid[1, 0].xaxis.set_major_locator(MaxNLocator(8, integer=True))
        handles = method_lines(tuned, base="base" in set(rows["method"]))
        figure.legend(handles=handles, loc="outside upper center", ncols=min(5, len(handles)))
        figure.supxlabel("layer (= block + 1), 0 the embedding; half a layer: after attention", fontsize=8)
    return figure


def _depth(rows: pd.DataFrame) -> np.ndarray:
    """0 at the embedding, l + 1/2 after the attention of block l and l + 1 after it."""
    return np.nan_to_num(rows["block"].to_numpy(float)) + rows["point"].map(_POINTS).to_numpy(float)


LOGIT_LENS = Plate(
    name="logit_lens",
    title="The answer as it forms",
    caption=(
        "The residual stream after each half block, read as if it were the last (logit lens): above the mean logit, "
        "below the summed probability, of the first tokens of unsafe and of safe answers. Where two lines part, base "
        "and tuned differ from there on; that the answer is decided there the lens does not show."
    ),
    alt=(
        "Lines over depth of logit and probability of unsafe and of safe first tokens, base against tuned. The points "
        "are in the table logit_lens."
    ),
    tables=("logit_lens",),
    draw=plot_logit_lens,
    optional=True,
)
