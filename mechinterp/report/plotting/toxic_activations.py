"""How active the most toxic value vectors are while the models write: Lee et al.'s drop of activations."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from mechinterp.audit.tables.reading import where
from mechinterp.report.plotting.drawing import (
    finite,
    key_marker,
    new_figure,
    ordered,
    require,
    short,
    tuned_only,
)
from mechinterp.report.plotting.plate import Plate
from mechinterp.report.plotting.style import DOUBLE_COLUMN, INK, SINGLE_COLUMN, STYLE, method_colours, method_label

_TEXTS = {"same": "all read the base's answer", "own": "each reads its own answer"}


def plot_toxic_activations(toxic_activations: pd.DataFrame) -> Figure:
    """Draw the mean activation of the most toxic value vectors over the first 20 tokens of answers.

    Args:
        toxic_activations: `toxic_activations.csv`.

    Returns:
        A panel for each text: on the same text a change is the model's; on each model's own text it is the text's as
        well. Under the title are the means over all vectors drawn: of signed numbers no rate of change.

    Raises:
        InputError: the table is empty or lacks a column.
    """
    columns = ("method", "text", "rank", "block", "neuron", "activation_base", "activation")
    require(toxic_activations, "toxic_activations", columns)
    rows = tuned_only(toxic_activations, "toxic_activations")
    texts, methods = ordered(rows["text"], _TEXTS), list(dict.fromkeys(rows["method"]))
    colours = method_colours(methods)
    with matplotlib.rc_context(STYLE):
        figure = new_figure(max(SINGLE_COLUMN, DOUBLE_COLUMN * len(texts) / 2), 2.7)
        panels = figure.subplots(1, len(texts), squeeze=False, sharey=True)[0]
        for axes, text in zip(panels, texts, strict=True):
            here = where(rows, text=text)
            first = here.drop_duplicates("rank").sort_values("rank")
            axes.bar(first["rank"], finite(first["activation_base"]), width=0.8, color="#dddddd", gid="base")
            means = [f"base {_number(first['activation_base'].mean())}"]
            for turn, method in enumerate(methods):
                own = where(here, method=method).sort_values("rank")
                if own.empty:
                    continue
                x = own["rank"] + 0.6 * ((turn + 0.5) / len(methods) - 0.5)
                axes.scatter(x, finite(own["activation"]), s=12, marker="^", color=colours[method], zorder=3)
                means.append(f"{short(method_label(method))} {_number(own['activation'].mean())}")
            axes.axhline(0, color=INK, linewidth=0.6)
            lines = [", ".join(means[i : i + 4]) for i in range(0, len(means), 4)]
            axes.set_title("\n".join([_TEXTS.get(text, text), *lines]))
            axes.set_xlim(0.3, first["rank"].max() + 0.7)
            axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
        panels[0].set_ylabel("mean activation")
        handles: list[Any] = [Patch(color="#dddddd", label="base")]
        handles += [key_marker(short(method_label(method)), "^", colours[method]) for method in methods]
        figure.legend(handles=handles, loc="outside upper center", ncols=min(5, len(handles)), handletextpad=0.3)
        figure.supxlabel("value vector, by its rank among the most toxic", fontsize=8)
    return figure


def _number(value: float) -> str:
    return f"{value:.2g}".replace("-", "−") if np.isfinite(value) else "no value"


TOXIC_ACTIVATIONS = Plate(
    name="toxic_activations",
    title="Activation of the most toxic value vectors",
    caption=(
        "Mean activation of the most toxic value vectors over the first generated tokens, before and after. On the "
        "same text a drop is the model’s own; on each model’s own text it is also the drop that comes with talking "
        "about something else."
    ),
    alt=(
        "Bars of the base’s mean activations with a mark for each checkpoint, same text and own text apart. The "
        "numbers are in the table toxic_activations."
    ),
    tables=("toxic_activations",),
    draw=plot_toxic_activations,
    optional=True,
)
