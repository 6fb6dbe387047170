"""The answer for each checkpoint, worded from the tables of a run, never from its name.

Its sentence is `findings.sentence`, as command line and `RunFolder` say it; beside it the numbers that it is read with.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from mechinterp.audit.tables.reading import Tables, as_float, rows
from mechinterp.audit.tables.registry import TABLES
from mechinterp.report.cells import cell, direction_label, estimate, number, place_label
from mechinterp.report.findings import Finding, findings, local_sentence, places_of, sentence, tuned_methods
from mechinterp.report.glossary import anchor_of
from mechinterp.report.plotting import layer_label, method_colours, method_label, p_value_label


@dataclass(frozen=True)
class Number:
    """A number of the answer: what it is of, itself with its interval, what to read it against, where it is defined."""

    label: str
    value: str
    note: str
    anchor: str | None

    @classmethod
    def of(cls, table: str, row: dict[str, object], column: str, label: str, note: str) -> Number:
        """The estimate in a row of a table."""
        return cls(label, estimate(row, column), note, anchor_of(TABLES[table], column))


@dataclass(frozen=True)
class Card:
    """The answer for one checkpoint: in a sentence, in numbers, and what has to be known to read them."""

    name: str
    colour: str
    made: str
    sentence: str
    numbers: list[Number]
    remarks: list[str]


def card_of(method: str, tables: Tables, *, made: str = "") -> Card:
    """The answer for one checkpoint, from a run's tables.

    Args:
        method: its name in the tables.
        tables: of the run.
        made: how it was made, in a line, where that is known.
    """
    found = list(findings(method, tables))
    return Card(
        name=method_label(method),
        colour=method_colours(tuned_methods(tables))[method],
        made=made,
        sentence=sentence(method, tables),
        numbers=[
            *_verdict_numbers(method, tables),
            *_defense_numbers(method, tables),
            *_mechanism_numbers(method, tables),
        ],
        remarks=[*_local(method, tables), *_remarks(found), *_disagreements(found)],
    )


def _local(method: str, tables: Tables) -> Iterator[str]:
    """The map of writes, where it is not the sentence itself."""
    local = local_sentence(method, tables)
    if "local_verdict" in tables and local != sentence(method, tables):
        yield f"Block by block, which decides nothing (what a block inherits counts as bypass there): {local}."


def _remarks(findings: list[Finding]) -> Iterator[str]:
    """What a reader of the sentence must know to read it right."""
    counted = [finding for finding in findings if finding.counts]
    if raised := [finding for finding in counted if finding.change.value > 0]:
        yield f"The toxic write rose instead of falling, judging by {places_of(raised)}."
    if edited := {finding.edited_block for finding in findings if finding.edited_block is not None}:
        yield (
            f"Only the weights of {layer_label(edited.pop())} changed, and what flows into it is exactly the base's: "
            "its erasure share is 1 by construction; bypass is what the blocks above it make of the changed stream."
        )


def _disagreements(findings: list[Finding]) -> Iterator[str]:
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


def _verdict_numbers(method: str, tables: Tables) -> Iterator[Number]:
    for row in rows(tables, "verdict", method=method):
        excess = f"{estimate(row, 'excess')} beyond a model that never learnt the behaviour"
        for column, label, note in (
            ("value_share", "Carried by the value matrices", "of the effects of all changed weights on the behaviour"),
            ("depth", "Depth score", "0 untouched, 1 as if never learnt"),
            ("recovery", f"Brought back by {row.get('attack')}", f"of the change; {excess}"),
        ):
            if not math.isnan(as_float(row.get(column))):
                yield Number.of("verdict", row, column, label, note)


def _defense_numbers(method: str, tables: Tables) -> Iterator[Number]:
    before = "; ".join(estimate(row, "ds") for row in rows(tables, "defense", method="vanilla"))
    for row in rows(tables, "defense", method=method):
        n = "" if math.isnan(as_float(row.get("n"))) else f"{number(as_float(row['n']))} "
        suffix = ", suffix prompt appended" if cell("suffix", row.get("suffix")) == "yes" else ""
        note = f"of {n}adversarial prompts{suffix}; vanilla {before or 'unknown'}"
        yield Number.of("defense", row, "ds", "Answered safely", note)


def _mechanism_numbers(method: str, tables: Tables) -> Iterator[Number]:
    for row in rows(tables, "mechanism", method=method):
        p = as_float(row.get("null_p"))
        beyond = "more than" if p < 0.05 else "no more than"
        note = f"{beyond} along random directions (z = {number(as_float(row.get('null_z')))}, {p_value_label(p)})"
        if cell("ill_conditioned", row.get("ill_conditioned")) == "yes":
            note += "; ill-conditioned: the base toxicity cannot be told from zero, so the rate means little"
        label = f"Toxicity of the region, {cell('layer', row.get('layer'))}, reduced by"
        yield Number.of("mechanism", row, "toxicity_reduction_rate", label, note)
        shift = as_float(row.get("activation_shift_rate"))
        note = "exactly: nothing that flows into the region changed" if shift == 0 else "of the base’s mean activation"
        yield Number.of("mechanism", row, "activation_shift_rate", "Activations that flow into it moved by", note)
