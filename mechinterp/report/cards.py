"""The answer for each checkpoint, worded from `verdict.csv`, `validity.csv` and their like, never from its name."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass
from typing import Any

from mechinterp.measures.intervals import Interval, with_ends
from mechinterp.report.cells import (
    Tables,
    as_float,
    cell,
    direction_label,
    estimate,
    number,
    place_label,
    rows,
    with_interval,
)
from mechinterp.report.plotting import layer_label, method_colours, method_label, p_value_label
from mechinterp.report.relapse import relapse_numbers, relapse_sentences


@dataclass(frozen=True)
class Finding:
    """What one direction says of one checkpoint at one position: a row of `verdict.csv`, ready to be worded."""

    direction: str
    position: str
    verdict: str
    in_play: bool | None  # None: the run did not check
    erasure_share: Interval
    change: Interval
    peak: str
    reason: str
    edited_block: float | None  # the only one whose weights changed, if there is such a one

    @property
    def by_construction(self) -> bool:
        """Whether the share can only be one: no inflow changed, or not that of the one block whose weights changed."""
        exact = self.erasure_share == Interval(1.0, 1.0, 1.0)
        return exact or self.edited_block is not None

    @property
    def share(self) -> str:
        """The erasure share and its interval, as printed."""
        return with_interval(*map(number, astuple(self.erasure_share)))

    @property
    def signed_change(self) -> str:
        """The change and its interval as printed, signed: below zero, less is written along the direction."""
        change = ("+" if self.change.value > 0 else "") + number(self.change.value)
        if math.isnan(self.change.low):
            return change
        return with_interval(change, number(self.change.low), number(self.change.high))

    @property
    def place(self) -> str:
        """The position's name, as prose."""
        return place_label(self.position)

    def differs_from(self, other: Finding) -> bool:
        """Whether the two readings point different ways: most of the change is erasure in one and not in the other."""
        one, two = self.erasure_share, other.erasure_share
        return (one.high < two.low or two.high < one.low) and (one.value > 0.5) != (two.value > 0.5)


@dataclass(frozen=True)
class Card:
    """The answer for one checkpoint."""

    name: str
    colour: str
    headline: str
    sentences: list[str]
    findings: list[Finding]
    numbers: list[tuple[str, str, str]]


def tuned_methods(tables: Tables) -> list[str]:
    """The checkpoints that are compared with the base, in the tables' order."""
    for name in ("verdict", "mechanism", "decomposition", "defense"):
        if name in tables and "method" in tables[name]:
            return [str(method) for method in dict.fromkeys(tables[name]["method"]) if method != "vanilla"]
    return []


def card_of(method: str, tables: Tables) -> Card:
    """The answer for one checkpoint, from a run's tables."""
    findings = list(_findings(method, tables))
    return Card(
        name=method_label(method),
        colour=method_colours(tuned_methods(tables))[method],
        headline=_headline(findings),
        sentences=[
            *_verdict_sentences(findings),
            *_disagreement_sentences(findings),
            *relapse_sentences(method, tables),
        ],
        findings=findings,
        numbers=[
            *_mechanism_numbers(method, tables),
            *_defense_numbers(method, tables),
            *relapse_numbers(method, tables),
        ],
    )


def _findings(method: str, tables: Tables) -> Iterator[Finding]:
    for row in rows(tables, "verdict", method=method):
        yield Finding(
            direction=str(row.get("direction", "")),
            position=str(row.get("position", "")),
            verdict=str(row.get("verdict", "undecided")),
            in_play=_in_play(row, tables),
            erasure_share=_interval(row, "erasure_share"),
            change=_interval(row, "change"),
            peak=cell("peak_block", row.get("peak_block")),
            reason=cell("reason", row.get("reason")),
            edited_block=_edited_block(row, tables),
        )


def _interval(row: Mapping[str, Any], name: str) -> Interval:
    return Interval(*(as_float(row.get(column)) for column in with_ends(name)))


def _edited_block(row: Mapping[str, Any], tables: Tables) -> float | None:
    """The block of an edit of one value matrix: erasure nowhere else, and the inflow unchanged up to it."""
    key = {name: row.get(name) for name in ("method", "direction", "position")}
    blocks = list(rows(tables, "decomposition", **key))
    erased = [as_float(part.get("block")) for part in blocks if part.get("erasure") or part.get("bias")]
    if len(erased) != 1 or any(part.get("bypass") for part in blocks if as_float(part.get("block")) <= erased[0]):
        return None
    return erased[0]


def _in_play(row: Mapping[str, Any], tables: Tables) -> bool | None:
    if cell("in_play", row.get("in_play")) in ("yes", "no"):
        return cell("in_play", row["in_play"]) == "yes"
    for checked in rows(tables, "validity", direction=row.get("direction"), position=row.get("position")):
        return {"yes": True, "no": False}.get(cell("in_play", checked.get("in_play")))
    return None


def _headline(findings: list[Finding]) -> str:
    counted = [finding for finding in findings if finding.in_play is not False]
    verdicts = {finding.verdict for finding in counted}
    decided = verdicts - {"undecided"}
    if not findings:
        return "Not decomposed"
    if not counted:
        return "No verdict: no direction is in play"
    if len(decided) > 1:
        return "The readings disagree"
    if not decided:
        return "Undecided"
    headline = decided.pop().capitalize()
    if "undecided" in verdicts:
        headline += " where decided"
    if all(finding.by_construction for finding in counted):
        headline += ", by construction"
    return headline


def _verdict_sentences(findings: list[Finding]) -> Iterator[str]:
    counted = [finding for finding in findings if finding.in_play is not False]
    for verdict in dict.fromkeys(finding.verdict for finding in counted if finding.verdict != "undecided"):
        agreeing = [finding for finding in counted if finding.verdict == verdict]
        yield f"{verdict.capitalize()}, judging by {_places(agreeing)}."
    for finding in counted:
        if finding.verdict == "undecided":
            reason = "" if finding.reason == "–" else f": {finding.reason}"
            yield f"Undecided, judging by {_places([finding])}{reason}."
    if raised := [finding for finding in counted if finding.change.value > 0]:
        yield f"The toxic write rose instead of falling, judging by {_places(raised)}."
    if edited := {finding.edited_block for finding in findings if finding.edited_block is not None}:
        yield (
            f"Only the weights of {layer_label(edited.pop())} changed, and what flows into it is exactly the base's: "
            "its erasure share is 1 by construction; bypass is what the blocks above it make of the changed stream. It "
            "says where the change was made, not that what was learned is gone."
        )
    if idle := [finding for finding in findings if finding.in_play is False]:
        yield f"Not in play, so that an erasure share says nothing about this checkpoint: {_places(idle)}."
    if any(finding.in_play is None for finding in findings):
        yield "Whether the directions are in play was not checked in this run: read the verdict with that in mind."


def _disagreement_sentences(findings: list[Finding]) -> Iterator[str]:
    """Word where the paper's direction and the one that decides the answer differ at one position."""
    by_direction = {(finding.direction, finding.position): finding for finding in findings}
    for position in dict.fromkeys(finding.position for finding in findings):
        probe, answer = by_direction.get(("probe", position)), by_direction.get(("answer", position))
        if probe is None or answer is None:
            continue
        both = f"{probe.share} along the probe direction, {answer.share} along the answer direction"
        if probe.in_play is not False and answer.in_play is not False and probe.verdict != answer.verdict:
            yield (
                f"The directions disagree at the {place_label(position)}: {both}. Neither is ruled out, and the "
                "decomposition cannot choose between them."
            )
        elif (probe.in_play is False) != (answer.in_play is False) and probe.differs_from(answer):
            counts = answer if probe.in_play is False else probe
            yield (
                f"The directions disagree at the {place_label(position)}: {both}. Only the "
                f"{direction_label(counts.direction)} is in play there; the other alone would have misled."
            )


def _places(findings: list[Finding]) -> str:
    """List readings as prose, a direction with its positions: `the answer direction (last prompt token)`."""
    positions: dict[str, list[str]] = {}
    for finding in findings:
        positions.setdefault(finding.direction, []).append(finding.place)
    return "; ".join(
        f"the {direction_label(direction)} ({', '.join(places)})" for direction, places in positions.items()
    )


def _mechanism_numbers(method: str, tables: Tables) -> Iterator[tuple[str, str, str]]:
    for row in rows(tables, "mechanism", method=method):
        p = as_float(row.get("null_p"))
        beyond = "more than" if p < 0.05 else "no more than"
        note = f"{beyond} along random directions (z = {number(as_float(row.get('null_z')))}, {p_value_label(p)})"
        if cell("ill_conditioned", row.get("ill_conditioned")) == "yes":
            note += "; ill-conditioned: the base toxicity cannot be told from zero, so the rate means little"
        layer = cell("layer", row.get("layer"))
        yield f"Reduction of the region’s toxicity, {layer}", estimate(row, "toxicity_reduction_rate"), note
        shift = as_float(row.get("activation_shift_rate"))
        note = "exactly: nothing that flows into the region changed" if shift == 0 else "of the base’s mean activation"
        yield "Activations moved by", estimate(row, "activation_shift_rate"), note


def _defense_numbers(method: str, tables: Tables) -> Iterator[tuple[str, str, str]]:
    before = "; ".join(estimate(row, "ds") for row in rows(tables, "defense", method="vanilla"))
    for row in rows(tables, "defense", method=method):
        suffix = ", suffix prompt appended" if cell("suffix", row.get("suffix")) == "yes" else ""
        yield "Answered safely", estimate(row, "ds"), f"of adversarial prompts{suffix}; vanilla {before or 'unknown'}"
