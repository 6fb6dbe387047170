"""Calibration: what the verdict says of checkpoints whose truth is known by construction.

Expected, and why, as stated before any was measured (`EXPECTED`):

    frozen_values        bypassed   SFT with every W_V frozen. Erasure is exactly 0 at every block, so its share is 0.
    values_at_block      erased     SFT of W_V of the toxic block alone. Bypass is exactly 0 at that block and below;
                                    blocks above read a changed stream, and what that changes counts as bypass there.
    values_everywhere    erased     SFT of W_V alone, at every block. Bypass is exactly 0 at block 0 only: above it, the
                                    decomposition counts what an earlier block's new W_V does to a later block's inflow
                                    as bypass. Still nothing but value vectors was changed, and whoever asks whether
                                    they were should be told so: another answer counts as a miss.
    projected_out        erased     the measured direction projected out of every W_V: no MLP writes along it. The
                                    bypass term is not 0, for the same reason.
    random_perturbation  undecided  noise of the size of SFT's change in every tensor: neither, and no detoxification;
                                    its defense success should lie in the base's interval.

Interpolations base + t (tuned - base) of a study's methods have no known truth: their numbers should move
monotonically with t. A verdict is also `undecided` where the direction is not in play or the write did not fall, which
misses an expected `erased` or `bypassed`; so rates are given among all and among those decided.

What it does not show: that the verdict is right of changes made in other ways or of another size.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import pandas as pd

from mechinterp.errors import InputError
from mechinterp.measures.statistics import wilson
from mechinterp.measures.verdict import Verdict

Truth = Literal["erased", "bypassed", "neither"]
EXPECTED: Mapping[str, tuple[Truth, Verdict]] = {
    "frozen_values": ("bypassed", "bypassed"),
    "values_at_block": ("erased", "erased"),
    "values_everywhere": ("erased", "erased"),
    "projected_out": ("erased", "erased"),
    "random_perturbation": ("neither", "undecided"),
}
"""Kind of construction -> what was done to the value vectors' writes, and the verdict that follows."""

INTERPOLATION = "interpolation"
UNCHANGED = "base"
"""The name of the interpolations' common start, t = 0."""

VERDICTS: tuple[Verdict, ...] = ("erased", "bypassed", "mixed", "undecided")
CERTIFICATE = Path(__file__).parent / "calibration.csv"
"""The table of the embedded organisms, which comes with the package; `analyses/calibration.py` writes it."""

_KEY = ["architecture", "seed"]
_TEXTS = ("truth", "expected", "agrees", "vanishing", "reason", "start")


def read_calibration(path: Path) -> pd.DataFrame:
    """Read a table that a calibration wrote.

    Raises:
        InputError: if there is none, or something else.
    """
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no table of a calibration ({error})") from error
    if missing := {"kind", "direction", "truth", "found", "t"} - set(table.columns):
        raise InputError(f"{path}: no table of a calibration, it has no {', '.join(sorted(missing))}")
    for column in _TEXTS:
        if column in table:
            table[column] = table[column].fillna("").astype(object)
    return table


def certificate() -> pd.DataFrame | None:
    """The calibration that comes with the package, of the embedded organisms; None where there is none."""
    return read_calibration(CERTIFICATE) if CERTIFICATE.is_file() else None


def rates(table: pd.DataFrame) -> pd.DataFrame:
    """Sensitivity and specificity of each verdict, with Wilson's 95% intervals.

        sensitivity   of the checkpoints whose truth is X, the share that is called X
        specificity   of those whose truth is known and is not X, the share that is not called X

    `erased` and `bypassed` are told apart; `neither` is among what is not X for both. Several checkpoints come from one
    organism and are not independent, so that the intervals are, if anything, too narrow.

    Args:
        table: of one or more calibrations.

    Returns:
        direction, verdict, measure, among (`all`, or `decided`: without the undecided), rate, low, high, n.
    """
    known = table[table["truth"].isin({truth for truth, _ in EXPECTED.values()})]
    rows = []
    for direction, part in known.groupby("direction", sort=False):
        for among, group in (("all", part), ("decided", part[part["found"] != "undecided"])):
            for verdict in ("erased", "bypassed"):
                own, others = group[group["truth"] == verdict], group[group["truth"] != verdict]
                hits = {
                    "sensitivity": (int((own["found"] == verdict).sum()), len(own)),
                    "specificity": (int((others["found"] != verdict).sum()), len(others)),
                }
                for measure, (successes, n) in hits.items():
                    rate = wilson(successes, n)
                    key = {"direction": direction, "verdict": verdict, "measure": measure, "among": among}
                    rows.append({**key, "rate": rate.value, "low": rate.low, "high": rate.high, "n": n})
    return pd.DataFrame(rows)


def by_kind(table: pd.DataFrame) -> pd.DataFrame:
    """Expected against found: how often each kind of construction got each verdict, along each direction.

    Returns:
        direction, kind, expected, a count for every verdict, n, as_before (how many of them have a defense success in
        their base's interval), the ranges of the erasure share, and of defense success in them and in their bases.
    """
    known = table[table["expected"] != ""]
    rows: list[dict[str, object]] = []
    for (direction, kind), part in known.groupby(["direction", "kind"], sort=False):
        row: dict[str, object] = {"direction": direction, "kind": kind, "expected": part["expected"].iloc[0]}
        row |= {verdict: int((part["found"] == verdict).sum()) for verdict in VERDICTS}
        row["n"] = len(part)
        row["as_before"] = int(part["defense"].between(part["defense_base_low"], part["defense_base_high"]).sum())
        for column in ("erasure_share", "defense", "defense_base"):
            row |= {f"{column}_min": part[column].min(), f"{column}_max": part[column].max()}
        rows.append(row)
    return pd.DataFrame(rows)


def monotony(table: pd.DataFrame) -> pd.DataFrame:
    """Whether erasure, bypass and change move monotonically from the base to each tuned checkpoint.

    Returns:
        architecture, seed, start (the method), direction, quantity, end (its value at t = 1), steps, violations (steps
        against the sign of the end value), largest (the largest such step as a share of the end value's size), and the
        verdicts in the order of t.
    """
    lines = table[table["kind"] == INTERPOLATION]
    rows = []
    for key, part in lines.groupby([*_KEY, "direction"], sort=False):
        ends = dict(zip((*_KEY, "direction"), key, strict=True))
        unchanged = part[part["checkpoint"] == UNCHANGED]
        for start, moved in part[part["checkpoint"] != UNCHANGED].groupby("start", sort=False):
            line = pd.concat([unchanged, moved]).sort_values("t")
            for quantity in ("erasure", "bypass", "change"):
                values = line[quantity].to_numpy()
                end = values[-1]
                steps = (values[1:] - values[:-1]) * (1 if end >= 0 else -1)
                against = -steps[steps < 0]
                rows.append(
                    {
                        **ends,
                        "start": start,
                        "quantity": quantity,
                        "end": end,
                        "steps": len(steps),
                        "violations": len(against),
                        "largest": against.max() / abs(end) if len(against) and end else 0.0,
                        "verdicts": " ".join(line["found"]),
                    }
                )
    return pd.DataFrame(rows)
