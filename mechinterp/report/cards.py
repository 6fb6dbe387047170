"""The answer for each checkpoint, worded from the tables of a run, never from its name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mechinterp.report.cells import Tables, as_float, cell, direction_label, estimate, number, place_label, rows
from mechinterp.report.findings import Finding, findings, headline, places_of, sentence, tuned_methods
from mechinterp.report.plotting import layer_label, method_colours, method_label, p_value_label
from mechinterp.report.relapse import relapse_numbers, relapse_sentences


@dataclass(frozen=True)
class Card:
    """The answer for one checkpoint."""

    name: str
    colour: str
    headline: str
    summary: str
    sentences: list[str]
    findings: list[Finding]
    numbers: list[tuple[str, str, str]]


def card_of(method: str, tables: Tables) -> Card:
    """The answer for one checkpoint, from a run's tables."""
    found = list(findings(method, tables))
    return Card(
        name=method_label(method),
        colour=method_colours(tuned_methods(tables))[method],
        headline=headline(found),
        summary=sentence(method, tables),
        sentences=[
            *_verdict_sentences(found),
            *_disagreement_sentences(found),
            *relapse_sentences(method, tables),
        ],
        findings=found,
        numbers=[
            *_mechanism_numbers(method, tables),
            *_defense_numbers(method, tables),
            *relapse_numbers(method, tables),
        ],
    )


def _verdict_sentences(findings: list[Finding]) -> Iterator[str]:
    counted = [finding for finding in findings if finding.counts]
    for verdict in dict.fromkeys(finding.verdict for finding in counted if finding.verdict != "undecided"):
        agreeing = [finding for finding in counted if finding.verdict == verdict]
        yield f"{verdict.capitalize()}, judging by {places_of(agreeing)}."
    for finding in counted:
        if finding.verdict == "undecided":
            reason = "" if finding.reason == "–" else f": {finding.reason}"
            yield f"Undecided, judging by {places_of([finding])}{reason}."
    if raised := [finding for finding in counted if finding.change.value > 0]:
        yield f"The toxic write rose instead of falling, judging by {places_of(raised)}."
    if edited := {finding.edited_block for finding in findings if finding.edited_block is not None}:
        yield (
            f"Only the weights of {layer_label(edited.pop())} changed, and what flows into it is exactly the base's: "
            "its erasure share is 1 by construction; bypass is what the blocks above it make of the changed stream. It "
            "says where the change was made, not that what was learned is gone."
        )
    if idle := [finding for finding in findings if not finding.counts]:
        yield f"Not in play, so that an erasure share says nothing about this checkpoint: {places_of(idle)}."
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
