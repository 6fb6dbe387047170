"""Circuits: the strongest edges, nodes by block, how soon the answer comes up, and how far the edges are the same."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from mechinterp.audit.tables.reading import where
from mechinterp.report.plotting.drawing import (
    finite,
    key_marker,
    method_lines,
    new_figure,
    require,
    short,
    tuned_only,
    wide,
)
from mechinterp.report.plotting.plate import Plate
from mechinterp.report.plotting.style import (
    DOUBLE_COLUMN,
    FAINT,
    INK,
    SINGLE_COLUMN,
    STYLE,
    method_colours,
    method_label,
)

_EDGES = 14
"""That are drawn."""


def plot_circuit_edges(circuit_edges: pd.DataFrame) -> Figure:
    """Draw the strongest edges of the base, and what every tuned checkpoint has of them.

    Args:
        circuit_edges: `circuit_edges.csv`.

    Returns:
        A row per edge, the base's score as a bar and every tuned checkpoint's as a marker.

    Raises:
        InputError: the table is empty or lacks a column.
    """
    require(circuit_edges, "circuit_edges", ("method", "writer", "reader", "score", "base_score"))
    table = circuit_edges.assign(edge=circuit_edges["writer"] + " → " + circuit_edges["reader"])
    base = table.drop_duplicates("edge").sort_values("base_score", key=abs, ascending=False, kind="stable")[:_EDGES]
    places = {edge: row for row, edge in enumerate(base["edge"])}
    tuned = [method for method in dict.fromkeys(table["method"]) if method != "base"]
    colours = method_colours(tuned)
    with matplotlib.rc_context(STYLE):
        figure = new_figure(SINGLE_COLUMN + 1.0, 0.9 + 0.2 * len(places))
        axes = figure.subplots()
        axes.barh(list(places.values()), finite(base["base_score"]), height=0.7, color=FAINT, alpha=0.5)
        for number, method in enumerate(tuned):
            own = where(table, method=method)
            own = own[own["edge"].isin(list(places))]
            rows = own["edge"].map(places).to_numpy(float)
            shift = 0.5 * ((number + 0.5) / len(tuned) - 0.5)
            axes.scatter(finite(own["score"]), rows + shift, s=14, color=colours[method], edgecolor=INK, linewidth=0.4)
        axes.axvline(0, color=INK, linewidth=0.6)
        axes.set_yticks(range(len(places)), list(places))
        axes.set_ylim(len(places) - 0.5, -0.5)
        axes.set_xlabel("score: what the metric loses when\nthe edge is corrupted")
        keys = [key_marker(short(method_label(method)), "o", colours[method]) for method in tuned]
        bar = Line2D([], [], color=FAINT, alpha=0.5, linewidth=5, label="Base")
        figure.legend(handles=[bar, *keys], loc="outside upper center", ncols=min(4, 1 + len(keys)))
    return figure


def plot_circuit_nodes(circuit_nodes: pd.DataFrame) -> Figure:
    """Draw the score of every node, by block.

    Args:
        circuit_nodes: `circuit_nodes.csv`.

    Returns:
        A map per checkpoint: blocks upwards, heads and the MLP beside each other; one scale for all of them.

    Raises:
        InputError: the table is empty or lacks a column.
    """
    require(circuit_nodes, "circuit_nodes", ("method", "node", "kind", "block", "score"))
    rows = circuit_nodes[circuit_nodes["kind"] != "input"]
    methods = list(dict.fromkeys(rows["method"]))
    blocks = int(rows["block"].max()) + 1
    maps = {method: finite(where(rows, method=method)["score"]).reshape(blocks, -1) for method in methods}
    largest = float(np.nan_to_num(np.abs(finite(rows["score"]))).max()) or 1.0
    with matplotlib.rc_context(STYLE):
        figure = new_figure(wide(len(methods)), min(7.0, 1.4 + 0.16 * blocks))
        grid = figure.subplots(1, len(methods), squeeze=False, sharey=True)[0]
        for axes, method in zip(grid, methods, strict=True):
            nodes = maps[method].shape[1]
            drawn = axes.imshow(maps[method], aspect="auto", origin="lower", cmap="RdBu_r", vmin=-largest, vmax=largest)
            axes.axvline(nodes - 1.5, color=INK, linewidth=0.6)
            step = max(1, (nodes - 1) // 6)
            axes.set_xticks([*range(0, nodes - 1, step), nodes - 1], [*map(str, range(0, nodes - 1, step)), "MLP"])
            axes.set_title(short(method_label(method)))
            axes.set_xlabel("head")
        grid[0].set_ylabel("block")
        grid[0].yaxis.set_major_locator(MaxNLocator(8, integer=True))
        figure.colorbar(drawn, ax=list(grid), label="sum of the edges out of it", fraction=0.05)
    return figure


def plot_circuit_ranks(circuit_ranks: pd.DataFrame) -> Figure:
    """Draw how soon the right and the wrong tokens come up over depth.

    Args:
        circuit_ranks: `circuit_ranks.csv`.

    Returns:
        Left the median rank, on a log axis with 1 on top; right the probability. The wrong tokens are dashed.

    Raises:
        InputError: the table is empty or lacks a column.
    """
    columns = ("method", "block", "tokens", "rank", "rank_first", "rank_third", "probability")
    require(circuit_ranks, "circuit_ranks", columns)
    if "position" in circuit_ranks:
        circuit_ranks = where(circuit_ranks, position="last")
    methods = list(dict.fromkeys(circuit_ranks["method"]))
    tuned = [method for method in methods if method != "base"]
    colours = {**method_colours(tuned), "base": FAINT}
    with matplotlib.rc_context(STYLE):
        figure = new_figure(DOUBLE_COLUMN * 0.85, 2.6)
        ranks, probabilities = figure.subplots(1, 2, sharex=True)
        for method in methods:
            style = {"color": colours[method], "marker": "o", "markersize": 2}
            if method == "base":  # which an edit that changed next to nothing lies upon
                style |= {"linewidth": 3.5, "alpha": 0.5}
            for tokens, line in (("right", "-"), ("wrong", ":")):
                own = where(circuit_ranks, method=method, tokens=tokens)
                if own.empty:
                    continue
                depth = np.nan_to_num(finite(own["block"]) + 1)
                order = np.argsort(depth, kind="stable")
                own, depth = own.iloc[order], depth[order]
                ranks.plot(depth, finite(own["rank"]), line, **style)
                if tokens == "right":
                    ends = finite(own["rank_first"]), finite(own["rank_third"])
                    ranks.fill_between(depth, *ends, color=colours[method], alpha=0.15, linewidth=0)
                probabilities.plot(depth, finite(own["probability"]), line, **style)
        _rank_axis(ranks)
        probabilities.set_title("probability")
        probabilities.set_ylim(bottom=0)
        ranks.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        dotted = [Line2D([], [], color=INK, linestyle=":", label="the wrong tokens")]
        handles = [*method_lines(tuned, base="base" in methods), *dotted]
        handles[0].set_linestyle("-")
        figure.legend(handles=handles, loc="outside upper center", ncols=min(5, len(handles)))
        figure.supxlabel("layer (= block + 1), 0 the embedding", fontsize=8)
    return figure


def _rank_axis(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda rank, _: f"{rank:,.0f}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.invert_yaxis()
    axes.set_title("rank in the vocabulary")


def plot_circuit_overlap(circuit_overlap: pd.DataFrame, circuits: pd.DataFrame) -> Figure:
    """Draw how far edges are the base's, and what flows through the base's circuit.

    Args:
        circuit_overlap: `circuit_overlap.csv`.
        circuits: `circuits.csv`.

    Returns:
        Left the Jaccard index over the share of edges, with that of random choices; right what is left of the base's
        circuit and the rank correlation of all edges.

    Raises:
        InputError: a table is empty or lacks a column, or no checkpoint is tuned.
    """
    require(circuit_overlap, "circuit_overlap", ("method", "share", "jaccard", "chance"))
    require(circuits, "circuits", ("method", "strength", "spearman_edges", "gap_share"))
    rows = tuned_only(circuits, "circuits")
    methods = list(dict.fromkeys(rows["method"]))
    colours = method_colours(methods)
    with matplotlib.rc_context(STYLE):
        figure = new_figure(DOUBLE_COLUMN * 0.85, 2.5)
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.2))
        for method in methods:
            own = where(circuit_overlap, method=method).sort_values("share")
            left.plot(
                100 * finite(own["share"]), finite(own["jaccard"]), color=colours[method], marker="o", markersize=3
            )
        chance = circuit_overlap.drop_duplicates("share").sort_values("share")
        left.plot(100 * finite(chance["share"]), finite(chance["chance"]), color=FAINT, linestyle="--")
        left.set_ylim(0, 1)
        left.set_xlabel("edges of largest |score| (%)")
        left.set_title("the same edges (Jaccard)")
        measures = {
            "gap_share": "gap",
            "strength": "strength on\nbase’s circuit",
            "spearman_edges": "rank correlation\nof edges",
        }
        for number, method in enumerate(methods):
            own = rows[rows["method"] == method].iloc[0]
            values = [float(own[name]) for name in measures]
            x = np.arange(len(measures)) + 0.8 * ((number + 0.5) / len(methods) - 0.5)
            right.bar(x, np.nan_to_num(values), width=0.75 / len(methods), color=colours[method])
        right.axhline(0, color=INK, linewidth=0.6)
        right.axhline(1, color=FAINT, linestyle="--")
        right.set_xticks(range(len(measures)), list(measures.values()))
        right.set_title("against the base")
        handles = [*method_lines(methods), Line2D([], [], color=FAINT, linestyle="--", label="chance; the base")]
        figure.legend(handles=handles, loc="outside upper center", ncols=min(4, len(handles)))
    return figure


CIRCUIT_EDGES = Plate(
    name="circuit_edges",
    title="Which edges carry the behaviour?",
    caption=(
        "The edges of the base’s largest scores (grey), and what each of them is worth in the tuned checkpoints. "
        "An edge leads from what writes into the residual stream (the embedding, a head a{block}.h{head}, an MLP "
        "m{block}) to what reads it (a query q, key k or value v of a head, an MLP, the logits). Its score is "
        "what the difference of logits between clean and corrupted prompt would lose, to first order, if this "
        "edge alone carried what is written on the corrupted prompt. Edges as strong as the base’s are used as "
        "they were; at 0 nothing flows through them."
    ),
    alt="A row per edge, a bar for the base and a marker for each tuned checkpoint. The numbers are in circuit_edges.",
    tables=("circuit_edges",),
    draw=plot_circuit_edges,
    optional=True,
    narrow=True,
)
CIRCUIT_NODES = Plate(
    name="circuit_nodes",
    title="Where the behaviour is written",
    caption=(
        "Every head and MLP by the sum of the scores of its edges: what it contributes to the difference of "
        "logits between clean and corrupted prompts. Red supports the behaviour, blue works against it; one scale "
        "for all."
    ),
    alt="A map of heads and MLPs by block for each checkpoint. The numbers are in the table circuit_nodes.",
    tables=("circuit_nodes",),
    draw=plot_circuit_nodes,
    optional=True,
)
CIRCUIT_RANKS = Plate(
    name="circuit_ranks",
    title="How soon does the answer come up?",
    caption=(
        "The residual stream at the last token of the clean prompts, read through final norm and unembedding "
        "after each block: the best rank of the right tokens (what the clean prompt calls for; median over pairs, "
        "the band holds half of them), and their probability. Dotted: the wrong tokens, which the corrupted "
        "prompt calls for."
    ),
    alt="Lines over depth of ranks and probabilities for each checkpoint. The numbers are in the table circuit_ranks.",
    tables=("circuit_ranks",),
    draw=plot_circuit_ranks,
    optional=True,
)
CIRCUIT_OVERLAP = Plate(
    name="circuit_overlap",
    title="The same edges, and what is left in them",
    caption=(
        "Left: edges in both over edges in either, of those with the largest |score|; dashed, what two random "
        "choices have in common. Right, as shares of the base’s: the gap between clean and corrupted prompts, the "
        "sum of the scores over the base’s circuit, and the rank correlation of all scores. High on the left and "
        "low on the right: the same edges, with little flowing through them. Where the gap is near 0, ranks are "
        "ranks of noise."
    ),
    alt="Lines of overlap over the share of edges, and bars of what is left; tables circuit_overlap and circuits.",
    tables=("circuit_overlap", "circuits"),
    draw=plot_circuit_overlap,
    optional=True,
)
