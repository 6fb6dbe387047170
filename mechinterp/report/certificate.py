"""The instrument's certificate: what every measure said of checkpoints whose truth is known, as found."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping

import pandas as pd

from mechinterp.audit.certificate import KINDS, places, separations, verdicts, with_truth
from mechinterp.audit.robustness import PERTURBATIONS
from mechinterp.data.counting import many
from mechinterp.measures.intervals import Interval
from mechinterp.report.cells import UNDEFINED, number, with_interval

Row = Mapping[Hashable, object]


def made_of(certificate: pd.DataFrame | None) -> str:
    """Which checkpoints the certificate is of, in words; empty without one."""
    if certificate is None:
        return ""
    told = []
    for blocks, part in with_truth(certificate).groupby("blocks"):
        counts = ", ".join(f"{int((part['truth'] == truth).sum())} {truth}" for truth in ("gone", "hidden"))
        bases = part["seed"].nunique()
        told.append(f"{many(len(part), 'checkpoint')} of {blocks} blocks ({counts}; {many(bases, 'base')})")
    return "; ".join(told)


def verdict_rows(certificate: pd.DataFrame | None) -> Iterator[list[str]]:
    """A row per depth and instrument: what it calls the hidden ones and the gone ones."""
    if certificate is None:
        return
    for row in verdicts(certificate).to_dict("records"):
        rates = [_rate(row, name) for name in ("found", "praised", "cleared", "accused")]
        undecided = [f"{row[f'undecided_{truth}']} of {row[f'n_{truth}']}" for truth in ("hidden", "gone")]
        yield [str(row["blocks"]), str(row["instrument"]), str(row["rule"]), *rates, ", ".join(undecided)]


def place_rows(certificate: pd.DataFrame | None) -> Iterator[list[str]]:
    """A row per depth and kind of checkpoint of which it is known where the change sits."""
    if certificate is None:
        return
    for row in places(certificate).to_dict("records"):
        done = KINDS[str(row["kind"])].line
        ranges = [_range(row, name) for name in ("share", "local", "defense")]
        found = f"{row['right']} of {row['n']}"
        yield [str(row["blocks"]), done, str(row["expected"]), found, *ranges, str(row["told"])]


def separation_rows(certificate: pd.DataFrame | None) -> Iterator[list[str]]:
    """A row per depth and measure: how well it tells gone from hidden, and from there."""
    if certificate is None:
        return
    for row in separations(certificate).to_dict("records"):
        areas = [_area(row, name) for name in ("auc_hidden", "auc_there")]
        counts = ", ".join(str(row[f"n_{truth}"]) for truth in ("gone", "hidden", "there"))
        yield [str(row["blocks"]), str(row["measure"]), *areas, counts]


def robustness_rows(robustness: pd.DataFrame) -> Iterator[list[str]]:
    """A row per depth and measure: whether it still tells the truth of what was rounded, and of what relearnt."""
    for row in robustness.to_dict("records"):
        alike = ", ".join(_two(row[f"alike_{name}"]) for name in PERTURBATIONS)
        areas = [_area(row, f"auc_{name}") for name in PERTURBATIONS]
        yield [str(row["blocks"]), str(row["measure"]), alike, _two(row["robustness"]), *areas]


def _two(value: object) -> str:
    number_of = float(str(value))
    return UNDEFINED if math.isnan(number_of) else f"{number_of:.2f}"


def _rate(row: Row, name: str) -> str:
    rate, low, high = _three(row, name)
    return UNDEFINED if pd.isna(rate) else with_interval(*(f"{value:z.0%}" for value in (rate, low, high)))


def _area(row: Row, name: str) -> str:
    found = Interval(*_three(row, name))
    return UNDEFINED if pd.isna(found.value) else found.told(".2f")


def _range(row: Row, name: str) -> str:
    low, high = (float(str(row[f"{name}_{end}"])) + 0.0 for end in ("min", "max"))  # no minus before a zero
    return UNDEFINED if pd.isna(low) else f"{number(low)} to {number(high)}"


def _three(row: Row, name: str) -> tuple[float, float, float]:
    value, low, high = (float(str(row[column])) for column in (name, f"{name}_low", f"{name}_high"))
    return value, low, high
