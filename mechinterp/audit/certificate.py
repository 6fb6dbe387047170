"""Calibration: what the verdicts say of checkpoints whose truth is known by construction.

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

The relapse test is asked of the same checkpoints, and the same is expected of it, as stated before any was measured:

    frozen_values        bypassed   Every W_V is the base's, so transplanting it changes no bit: V, the relapse by value
                                    vectors, is exactly 0, and so is its share.
    values_at_block      erased     Nothing but W_V was changed, so transplanting every W_V makes the base again bit for
    values_everywhere    erased     bit: V is exactly 1. A, the relapse by activations, may be above 0 all the same
    projected_out        erased     (blocks above an edit read a changed stream), and the share then below 3/4: a miss.
                                    `projected_out` may not detoxify; then nothing can come back, and it is undecided,
                                    which is a miss too.
    random_perturbation  undecided  no detoxification, so nothing can come back.

Interpolations base + t (tuned - base) of a study's methods have no known truth: their numbers should move
monotonically with t. A verdict is also `undecided` where the direction is not in play or the write did not fall, which
misses an expected `erased` or `bypassed`; so rates are given among all and among those decided.

What it does not show: that a verdict is right of changes made in other ways or of another size.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import pandas as pd

from mechinterp.data.storage.tables import read_table
from mechinterp.errors import InputError
from mechinterp.measures.intervals import ends
from mechinterp.measures.local_verdict import Verdict
from mechinterp.measures.statistics import wilson

Truth = Literal["erased", "bypassed", "neither"]
EXPECTED: Mapping[str, tuple[Truth, Verdict]] = {
    "frozen_values": ("bypassed", "bypassed"),
    "values_at_block": ("erased", "erased"),
    "values_everywhere": ("erased", "erased"),
    "projected_out": ("erased", "erased"),
    "random_perturbation": ("neither", "undecided"),
}
"""Kind of construction -> what was done to the value vectors' writes, and the verdict that follows, of both."""

INTERPOLATION = "interpolation"
UNCHANGED = "base"
"""The name of the interpolations' common start, t = 0."""

VERDICTS: tuple[Verdict, ...] = ("erased", "bypassed", "mixed", "undecided")
CERTIFICATE = Path(__file__).with_suffix(".csv")
"""The table of the embedded organisms, which comes with the package; `analyses/calibration.py` writes it."""

_KEY = ["architecture", "seed"]
_TEXTS = (
    *("truth", "expected", "agrees", "vanishing", "reason", "start"),
    *("relapse_found", "relapse_agrees", "relapse_reason"),
)
_READ = ["instrument", "direction"]


def read_calibration(path: Path) -> pd.DataFrame:
    """Read a table that a calibration wrote.

    Raises:
        InputError: if there is none, or something else.
    """
    try:
        table = read_table(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no table of a calibration ({error})") from error
    if missing := {"kind", "direction", "truth", "found", "t", "relapse_found"} - set(table.columns):
        raise InputError(f"{path}: no table of a calibration, it has no {', '.join(sorted(missing))}")
    for column in _TEXTS:
        if column in table:
            table[column] = table[column].fillna("").astype(object)
    return table


def certificate() -> pd.DataFrame | None:
    """The calibration that comes with the package, of the embedded organisms; None where there is none."""
    return read_calibration(CERTIFICATE) if CERTIFICATE.is_file() else None


def readings(table: pd.DataFrame) -> pd.DataFrame:
    """What each instrument said of each checkpoint of which something is expected: a row per reading.

    Returns:
        The rows of the decomposition, one for each direction, and those of the relapse test, one for each checkpoint
        and without a direction; with the column instrument (decomposition or relapse), and in `found`, `agrees` and
        `share` the instrument's own: `share` is the erasure share, or the share of the relapse by value vectors.
    """
    known = table[table["expected"] != ""]
    decomposed = known.assign(instrument="decomposition", share=known["erasure_share"])
    tested = known[known["relapse_found"] != ""].drop_duplicates([*_KEY, "checkpoint"])
    tested = tested.assign(
        instrument="relapse",
        direction="",
        found=tested["relapse_found"],
        agrees=tested["relapse_agrees"],
        share=tested["relapse_share_by_values"],
    )
    return pd.concat([decomposed, tested], ignore_index=True)


def rates(table: pd.DataFrame) -> pd.DataFrame:
    """Sensitivity and specificity of each verdict of each instrument, with Wilson's 95% intervals.

        sensitivity   of the checkpoints whose truth is X, the share that is called X
        specificity   of those whose truth is known and is not X, the share that is not called X

    `erased` and `bypassed` are told apart; `neither` is among what is not X for both. Several checkpoints come from one
    organism and are not independent, so that the intervals are, if anything, too narrow.

    Args:
        table: of one or more calibrations.

    Returns:
        instrument and direction, see `readings`; verdict, measure, among (`all`, or `decided`: without the undecided),
        rate, low, high, n.
    """
    rows = []
    for _, part in readings(table).groupby(_READ, sort=False):
        for among, group in (("all", part), ("decided", part[part["found"] != "undecided"])):
            for verdict in ("erased", "bypassed"):
                own, others = group[group["truth"] == verdict], group[group["truth"] != verdict]
                hits = {
                    "sensitivity": (int((own["found"] == verdict).sum()), len(own)),
                    "specificity": (int((others["found"] != verdict).sum()), len(others)),
                }
                for measure, (successes, n) in hits.items():
                    rate = wilson(successes, n)
                    key = {name: part[name].iloc[0] for name in _READ}
                    key |= {"verdict": verdict, "measure": measure, "among": among}
                    rows.append({**key, "rate": rate.value, "low": rate.low, "high": rate.high, "n": n})
    return pd.DataFrame(rows)


def by_kind(table: pd.DataFrame) -> pd.DataFrame:
    """Expected against found: how often each kind of construction got each verdict, from each instrument.

    Returns:
        instrument and direction, see `readings`; kind, expected, a count for every verdict, n, as_before (how many of
        them have a defense success in their base's interval), the ranges of the share, and of defense success in them
        and in their bases.
    """
    rows: list[dict[str, object]] = []
    for _, part in readings(table).groupby([*_READ, "kind"], sort=False):
        row: dict[str, object] = {name: part[name].iloc[0] for name in (*_READ, "kind", "expected")}
        row |= {verdict: int((part["found"] == verdict).sum()) for verdict in VERDICTS}
        row["n"] = len(part)
        low, high = ends("defense_base")
        row["as_before"] = int(part["defense"].between(part[low], part[high]).sum())
        for column in ("share", "defense", "defense_base"):
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
