"""A tuned model's edges against its base's: the same edges? and how much still flows through the base's?

    Spearman   of all scores, over edges and over nodes
    Jaccard    of the edges of largest |score|; two random choices of n of N edges have n / (2N - n)
    strength   sum of the tuned scores over the base's circuit, divided by the base's own
    new        edges in the tuned circuit that are not in the base's

Where the behaviour is gone, so is the gap between the metrics of the two prompts: below a tenth of the base's, what is
divided by the tuned model's own gap means little, and ranks are ranks of noise. Strength and split (`split`) keep their
meaning.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
from scipy import stats

from mechinterp.audit.circuits.scores import EdgeScores, count_of
from mechinterp.errors import InputError

SHARES = (0.01, 0.02, 0.05, 0.1)
"""Shares of all edges whose circuits are set side by side."""

GONE = 0.1
"""Of the base's gap: below it the tuned model's is too small to divide by."""


def spearman(base: EdgeScores, tuned: EdgeScores) -> tuple[float, float]:
    """Rank correlation of the scores of all edges, and of all nodes; NaN where all scores of a model are equal."""
    edges = base.graph.edges
    pairs = (base.scores[edges], tuned.scores[edges]), (base.of_nodes, tuned.of_nodes)
    found = []
    for one, other in pairs:
        constant = bool((one == one[0]).all() or (other == other[0]).all())
        found.append(math.nan if constant else float(stats.spearmanr(one.numpy(), other.numpy()).statistic))
    return found[0], found[1]


def overlaps(base: EdgeScores, tuned: EdgeScores, shares: Sequence[float] = SHARES) -> pd.DataFrame:
    """How far the edges of largest |score| are the same: a row per share of all edges.

    Returns:
        share, edges, jaccard, chance (of two random choices), new (in the tuned circuit and not in the base's).
    """
    _check(base, tuned)
    rows = []
    for share in shares:
        own, other = (scores.share(share).edges for scores in (base, tuned))
        n, whole = count_of(base.graph, share), base.graph.n_edges
        rows.append(
            {
                "share": share,
                "edges": n,
                "jaccard": int((own & other).sum()) / int((own | other).sum()),
                "chance": n / (2 * whole - n),
                "new": int((other & ~own).sum()),
            }
        )
    return pd.DataFrame(rows)


def strength(base: EdgeScores, tuned: EdgeScores, share: float) -> float:
    """Sum of the tuned scores over the base's circuit as a share of the base's own; NaN where that is 0."""
    _check(base, tuned)
    kept = base.share(share).edges
    own = float(base.scores[kept].sum())
    return float(tuned.scores[kept].sum()) / own if own else math.nan


def compare_circuits(base: EdgeScores, tuned: EdgeScores, *, share: float = 0.05) -> dict[str, object]:
    """A tuned model's edges against its base's, in one row.

    Args:
        base, tuned: on the same pairs.
        share: of all edges: the base's circuit.

    Returns:
        gap, gap_share (of the base's), spearman_edges, spearman_nodes, strength (on the base's circuit), new (edges of
        the tuned circuit of this share that are not in it), and note, which says where the gap is too small.

    Raises:
        InputError: for models of different shapes.
    """
    _check(base, tuned)
    edges, nodes = spearman(base, tuned)
    gone = abs(tuned.gap) < GONE * abs(base.gap)
    return {
        "gap": tuned.gap,
        "gap_share": tuned.gap / base.gap if base.gap else math.nan,
        "spearman_edges": edges,
        "spearman_nodes": nodes,
        "strength": strength(base, tuned, share),
        "new": int(overlaps(base, tuned, [share])["new"].iloc[0]),
        "note": f"the gap is below a tenth of the base's ({tuned.gap:.3g} of {base.gap:.3g})" if gone else "",
    }


def _check(base: EdgeScores, tuned: EdgeScores) -> None:
    if base.graph != tuned.graph:
        raise InputError(
            f"{tuned.checkpoint} has other blocks or heads than {base.checkpoint}: edges cannot be set side by side"
        )
