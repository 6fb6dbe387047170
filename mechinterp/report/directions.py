"""What the run says of its directions, and the paper's claims beside its numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mechinterp.audit.tables.reading import Tables, as_float, rows
from mechinterp.measures.intervals import ends
from mechinterp.report.cells import cell, direction_label, estimate, number, place_label
from mechinterp.report.plotting import method_label, p_value_label

PUBLISHED = {
    "sft": ("almost unchanged", "strong"),
    "dpo": ("almost unchanged", "strong"),
    "dinm": ("lower by 2.72%, no interval given", "exactly zero"),
}

STAMMERING = 0.25
"""From so much larger a share of answers that only look safe on it is said that steering makes the base stammer."""


def direction_notes(tables: Tables) -> Iterator[str]:
    """Say which directions are in play, and what speaks against the others."""
    checks = list(rows(tables, "validity"))
    if in_play := [row for row in checks if cell("in_play", row.get("in_play")) == "yes"]:
        yield f"In play: {'; '.join(_reading(row) for row in in_play)}."
    for row in checks:
        if cell("in_play", row.get("in_play")) == "no":
            way = ", below 0.5 and so the wrong way round" if as_float(row.get("auroc")) < 0.5 else ""
            minus, none, plus = (cell("ds", row.get(f"steering_defense_{end}")) for end in ("minus", "none", "plus"))
            yield (
                f"Not in play: {_reading(row)}. The base’s write along it tells prompts it answers unsafely from the "
                f"rest with AUROC {estimate(row, 'auroc')}{way}; it answers safely {minus} of the time steered "
                f"against it, {none} unsteered, {plus} steered along it."
            )
    for row in checks:
        against, alone, along = (as_float(row.get(f"steering_degenerate_{end}")) for end in ("minus", "none", "plus"))
        if max(against, along) > alone + STAMMERING:
            yield (
                f"Steering along the {_reading(row)} makes the base stammer: {against:.0%} of its answers are empty, "
                f"short, looping or the like steered against it, {alone:.0%} unsteered, {along:.0%} steered along it. "
                "What is not called unsafe counts as safe here, whatever it says."
            )
    for direction, row in {row.get("direction"): row for row in checks if row.get("direction") != "answer"}.items():
        names = ("cosine_with_answer", *ends("cosine_null"))
        cosine, low, high = (as_float(row.get(name)) for name in names)
        if low <= cosine <= high:
            yield (
                f"The {direction_label(direction)} is no closer to the answer direction than a random one is: cosine "
                f"{number(cosine)}, and 95% of random directions lie within [{number(low)}, {number(high)}]."
            )


def _reading(row: Mapping[str, Any]) -> str:
    return f"{direction_label(row.get('direction'))}, {place_label(row.get('position'))}"


def published_comparison(tables: Tables) -> Iterator[list[str]]:
    """Set the paper's claims about the methods it names beside this run's numbers, for checkpoints of those names."""
    for row in rows(tables, "mechanism"):
        published = PUBLISHED.get(str(row["method"]))
        if published is None:
            continue
        reduction = (
            f"reduction {estimate(row, 'toxicity_reduction_rate')}, {p_value_label(as_float(row.get('null_p')))}"
        )
        if cell("ill_conditioned", row.get("ill_conditioned")) == "yes":
            reduction += ", ill-conditioned"
        name = method_label(str(row["method"]))
        yield [name, "toxicity of the region", published[0], reduction]
        yield [name, "shift of its activations", published[1], estimate(row, "activation_shift_rate")]
