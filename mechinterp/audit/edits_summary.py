"""Means and medians over records of what edits do to each other, with intervals over what they are of."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

from mechinterp.answers import conflict
from mechinterp.audit import round_trips
from mechinterp.data.facts.fact import Fact
from mechinterp.data.facts.queries import Change
from mechinterp.measures.facts import mean_of_shares, mean_of_values, median_of_values

SHARES = (*conflict.SHARES, *round_trips.SHARES)
"""Quantities from 0 to 1 of a record, whose interval is Wilson's."""

UNITS = {"jsd": "bits", "jsd_away": "bits", "d": "nats"}
QUANTITIES = dict.fromkeys(
    (*conflict.SHARES, *conflict.MEANS, *round_trips.MEANS, *round_trips.LEFT, *round_trips.SHARES, "covered_up")
)


def unit_of(change: Change, number: int) -> Hashable:
    """What records are of that are not independent: a fact's subject, a pair's question; else each its own."""
    return (change.subject if isinstance(change, Fact) else change.question) or number


def summary_rows(
    method: str, kind: str, values: Sequence[Mapping[str, Any]], units: Sequence[Hashable], *, seed: int
) -> Iterator[dict[str, Any]]:
    """Rows of the table `edits_summary`: every quantity that some of the records have.

    Args:
        method: name of the editor.
        kind: of the records.
        values: of each record, by quantity; what else is in them is passed over.
        units: what each is of, see `unit_of`.
        seed: of the bootstrap.
    """
    counted = [_with_word(row) for row in values]
    for quantity in QUANTITIES:
        found = [(float(row[quantity]), unit) for row, unit in zip(counted, units, strict=True) if quantity in row]
        known = [(value, unit) for value, unit in found if not math.isnan(value)]
        if not found:
            continue
        numbers, own = [value for value, _ in known], [unit for _, unit in known]
        share = quantity in SHARES or quantity == "covered_up"
        over = median_of_values if quantity in round_trips.LEFT else mean_of_values
        interval = mean_of_shares(numbers, own) if share else over(numbers, own, seed=seed)
        said = {
            "method": method,
            "quantity": quantity,
            "kind": kind,
            "n": len(known),
            "undefined": len(found) - len(known),
        }
        yield {**said, **interval.columns("value"), "unit": UNITS.get(quantity, "share")}


def _with_word(row: Mapping[str, Any]) -> Mapping[str, Any]:
    word = row.get("undone")
    return row if not word else {**row, "covered_up": float(word == "covered up")}
