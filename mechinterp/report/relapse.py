"""What the relapse test says of each checkpoint, set beside its decomposition."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pandas as pd

from mechinterp.audit.tables.reading import Tables, as_float, rows
from mechinterp.report.cells import cell, estimate
from mechinterp.report.plotting import method_label
from mechinterp.report.plotting.drawing import truths
from mechinterp.report.plotting.relapse import GROUPS

AGREEMENT = {
    "yes": "The decomposition along the answer direction says the same.",
    "no": (
        "The decomposition along the answer direction says {}, and the two disagree: it accounts for a write along one "
        "direction, the test for the behaviour, and the behaviour is the claim."
    ),
    "silent": (
        "It cannot be set against the decomposition along the answer direction ({}), as one of the two is undecided."
    ),
}
"""What to say of agreement; the decomposition's verdict is filled in."""


def relapse_sentences(method: str, tables: Tables) -> Iterator[str]:
    """The test's verdict, what it rests on, and whether the decomposition agrees."""
    for row in rows(tables, "relapse_verdict", method=method):
        verdict, reason = str(row.get("verdict")), cell("reason", row.get("reason"))
        told = f"Relapse test: {verdict}" + ("" if reason == "–" else f", {reason}")
        decomposed = cell("verdict", row.get("decomposition"))
        agreement = "" if decomposed == "–" else AGREEMENT.get(str(row.get("agrees")), "").format(decomposed)
        yield f"{told}. {agreement}".rstrip()


def relapse_told(tables: Tables) -> Iterator[tuple[str, str]]:
    """Checkpoint and what the test says of it, in words."""
    for method in dict.fromkeys(str(row["method"]) for row in rows(tables, "relapse_verdict")):
        for sentence in relapse_sentences(method, tables):
            yield method_label(method), sentence.removeprefix("Relapse test: ")


def relapse_rows(tables: Tables) -> Iterator[list[str]]:
    """The rows of the page's table: checkpoint, and what the restorations bring back."""
    for row in rows(tables, "relapse_verdict"):
        names = ("by_activations", "by_values", "by_both")
        yield [method_label(str(row["method"])), *(_percent(row, name) for name in names)]


def relapse_control_rows(tables: Tables) -> Iterator[list[str]]:
    """The rows of the page's table of controls: one layer restored, and as many neurons drawn at random."""
    for row in rows(tables, "relapse_verdict"):
        names = ("by_layer_activations", "by_random", "by_layer_values", "by_random_values")
        if not all(math.isnan(as_float(row.get(name))) for name in names):
            yield [method_label(str(row["method"])), *(_percent(row, name) for name in names)]


def relapse_group_rows(tables: Tables) -> Iterator[list[str]]:
    """The rows of the page's table of groups: checkpoint, group, share of neurons, what returns, and by as many random.

    Of several random draws the mean is given.
    """
    of_groups = [row for row in rows(tables, "relapse") if row.get("treatment") in GROUPS]
    controlled = truths(pd.Series([row.get("control") for row in of_groups]))
    random: dict[tuple[object, object], list[float]] = {}
    for row, control in zip(of_groups, controlled, strict=True):
        if control:
            random.setdefault((row["method"], row["treatment"]), []).append(as_float(row.get("relapse")))
    for row, control in zip(of_groups, controlled, strict=True):
        if not control and as_float(row.get("dose")) > 0:
            drawn = random.get((row["method"], row["treatment"]), [])
            by_random = cell("relapse", sum(drawn) / len(drawn)) if drawn else "–"
            share = cell("share_of_neurons", row.get("share_of_neurons"))
            group = GROUPS[str(row["treatment"])]
            yield [method_label(str(row["method"])), group, share, _percent(row, "relapse"), by_random]


def _percent(row: dict[str, Any], name: str) -> str:
    value = as_float(row.get(name))
    return "–" if value != value else estimate(row, name)
