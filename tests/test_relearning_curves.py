"""Curves of relearning: the area is the recovery of a weighted mean, and halves are only found where it was looked."""

from __future__ import annotations

from math import isnan, log1p

import pytest

from mechinterp.audit.attacks.attack import Point
from mechinterp.audit.attacks.curves import curve_table, shares_under
from mechinterp.audit.attacks.results import PLAIN, Examined, Measured, Role

N = 6


def measured(attack: str, dose: float, value: float) -> Measured:
    values = tuple(value + 0.01 * i for i in range(N))
    found = dict.fromkeys(("log_odds", "unsafe_logprob"), values) | {"unsafe": tuple(float(i < 3) for i in range(N))}
    return Measured(attack, Point("unsafe (full)", dose), found, {}, (), (), 0.0, ())


def examined(name: str, role: Role, plain: float, curve: dict[float, float]) -> Examined:
    points = tuple(measured("relearn", dose, value) for dose, value in curve.items())
    return Examined(name, role, measured(PLAIN, 0.0, plain), points)


BASE = examined("base", "base", 0.0, {1.0: 0.0, 3.0: 0.0})
NEVER = examined("never", "never", -20.0, {1.0: -20.0, 3.0: -10.0})
TUNED = examined("sft", "tuned", -10.0, {3.0: -1.0, 1.0: -6.0})


def test_shares_are_of_the_trapezoids_over_the_logarithm() -> None:
    shares = shares_under([0.0, 1.0, 3.0])
    ends, whole = (log1p(1), log1p(3)), log1p(3)
    assert shares == pytest.approx([ends[0] / 2 / whole, ends[1] / 2 / whole, (ends[1] - ends[0]) / 2 / whole])
    assert sum(shares_under([0.0, 1.0, 2.0, 5.0, 100.0])) == pytest.approx(1)


def test_a_curve_by_hand() -> None:
    table = curve_table([BASE, NEVER, TUNED], "relearn", seed=0).set_index(["method", "quantity"])
    row = table.loc["sft", "log_odds"]
    half = log1p(1) / log1p(3)
    area = half * (0 + 0.4) / 2 + (1 - half) * (0.4 + 0.9) / 2
    assert row["area"] == pytest.approx(area)
    assert row["area_low"] <= row["area"] <= row["area_high"]
    assert row["steps_to_half"] == 3
    assert row["largest_dose"] == 3
    never = (1 - half) * 0.5 / 2
    assert table.loc["never", "log_odds"]["area"] == pytest.approx(never)
    assert row["area_excess"] == pytest.approx(area - never)
    assert isnan(table.loc["never", "log_odds"]["area_excess"])
    assert "base" not in table.index.get_level_values(0)


def test_what_is_undefined_says_why() -> None:
    alone = curve_table([BASE, TUNED], "relearn", seed=0)
    assert set(alone["reason"][alone["quantity"] == "log_odds"]) == {"no reference that never learnt"}
    other = examined("never", "never", -20.0, {1.0: -20.0})
    assert "after other steps" in curve_table([BASE, other, TUNED], "relearn", seed=0)["reason"].iloc[-3]
    above = curve_table([BASE, NEVER, examined("dpo", "tuned", 1.0, {1.0: 2.0})], "relearn", seed=0)
    row = above[(above["method"] == "dpo") & (above["quantity"] == "log_odds")].iloc[0]
    assert isnan(row["area"])
    assert isnan(row["steps_to_half"])
    assert row["reason"].startswith("nothing to come back")
    slow = curve_table([BASE, NEVER, examined("dpo", "tuned", -10.0, {1.0: -9.0, 3.0: -6.0})], "relearn", seed=0)
    assert isnan(slow[slow["method"] == "dpo"]["steps_to_half"].iloc[0])
    assert curve_table([BASE, TUNED], "sample", seed=0).empty
