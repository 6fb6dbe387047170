"""The instrument's certificate: verdicts on checkpoints whose truth is known by construction, as found."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping

import pandas as pd

from mechinterp.audit.certificate import VERDICTS, by_kind, monotony, rates
from mechinterp.report.cells import direction_label


def calibrated_on(certificate: pd.DataFrame | None) -> str:
    """Of how many organisms the certificate is, in words."""
    if certificate is None:
        return ""
    shapes, seeds = (certificate[column].nunique() for column in ("architecture", "seed"))
    return f"{shapes} architecture{'s' * (shapes > 1)} and {seeds} seed{'s' * (seeds > 1)}"


def calibration_rows(certificate: pd.DataFrame | None) -> Iterator[list[str]]:
    """A row per kind of checkpoint and instrument: expected, and how often each verdict was found."""
    if certificate is None:
        return
    for row in by_kind(certificate).to_dict("records"):
        counts = [f"{verdict} {row[verdict]}" for verdict in VERDICTS if row[verdict]]
        kind, read = str(row["kind"]).replace("_", " "), _instrument(row["instrument"], row["direction"])
        yield [kind, read, str(row["expected"]), ", ".join(counts), f"{_hits(row)} of {row['n']}"]


def _instrument(name: object, direction: object) -> str:
    return "relapse test" if name == "relapse" else f"decomposition, {direction_label(direction)}"


def _hits(row: Mapping[Hashable, object]) -> object:
    return row[str(row["expected"])]


def calibration_notes(certificate: pd.DataFrame | None) -> Iterator[str]:
    """Sensitivity and specificity, and whether interpolations move monotonically, in words."""
    if certificate is None:
        return
    found = rates(certificate)
    for (name, direction, verdict), part in found.groupby(["instrument", "direction", "verdict"], sort=False):
        told = [_rate(row) for row in part.to_dict("records") if row["n"]]
        yield f"{str(verdict).capitalize()}, {_instrument(name, direction)}: {'; '.join(told)}."
    moved = monotony(certificate)
    if len(moved):
        against, steps = int(moved["violations"].sum()), int(moved["steps"].sum())
        largest = (
            "" if not against else f"; the largest by {moved['largest'].max():.0%} of what that quantity changes in all"
        )
        yield (
            f"From the base to a tuned checkpoint in equal steps, erasure, bypass and change went backwards in "
            f"{against} of {steps} steps{largest}."
        )


def _rate(row: Mapping[Hashable, object]) -> str:
    rate, low, high = (float(str(row[name])) for name in ("rate", "low", "high"))
    among = "" if row["among"] == "all" else " among those decided"
    return f"{row['measure']}{among} {rate:.0%} [{low:.0%}, {high:.0%}] of {row['n']}"
