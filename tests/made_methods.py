"""Made-up tables of studies of several methods, and the table of every method."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mechinterp.measures.intervals import Interval

ATTACK = "prefilled answer at 1 tokens given"


def bounded(name: str, value: float, reach: float = 0.05) -> dict[str, float]:
    """An estimate with its interval."""
    return Interval(value, value - reach, value + reach).columns(name)


def make_methods_run(
    depth: float = 0.4, gone: str = "hidden", methods: Sequence[str] = ("sft", "dinm")
) -> dict[str, pd.DataFrame]:
    """The tables of a study that its methods are put side by side by."""
    verdict, attacks, depths, defense, asked = [], [], [], [], []
    for name in ("base", "never", *methods):
        of_base = name == "base"
        role = name if name in ("base", "never") else "tuned"
        for quantity, value in (("unsafe", 0.9 if of_base else 0.1), ("log_odds", 2.0 if of_base else -8.0)):
            row = {"attack": "none", "method": name, "role": role, "quantity": quantity, "degenerate": 0.0}
            row |= {**bounded("value", value), **bounded("knowledge", 0.9), **bounded("over_refusal", 0.1)}
            attacks.append(row)
        for scope, quantity, value in (("forget", "success", 0.3), ("retain", "success", 0.95)):
            row = {"method": "vanilla" if of_base else name, "scope": scope, "quantity": quantity}
            asked.append({**row, **bounded("value", value)})
            if scope == "retain":
                asked.append({**row, "quantity": "perplexity", **bounded("value", 1.2)})
        if role == "tuned":
            row = {"method": name, "where": "around the value vectors", "gone": gone, "attack": ATTACK}
            row |= {**bounded("value_share", 0.2), **bounded("recovery", 0.9, 0.1), **bounded("excess", 0.8)}
            verdict.append(row)
            depths.append({"method": name, **bounded("score", depth)})
        if name != "never":
            defense.append(
                {"method": "vanilla" if of_base else name, **Interval(1 - 0.5 * of_base, 0.9, 1.0).columns("ds")}
            )
    named = {"verdict": verdict, "attacks": attacks, "depth": depths, "defense": defense, "unlearning": asked}
    return {name: pd.DataFrame(rows) for name, rows in named.items()}


def make_methods(
    tuned: Sequence[str] = ("sft", "gone_one", "dinm"), architectures: Sequence[str] = ("mistral",)
) -> pd.DataFrame:
    """The table of every method; the first of `tuned` is hidden, the last undecided, those between gone."""
    rows = []
    for architecture in architectures:
        for number, name in enumerate(("vanilla", "never", *tuned)):
            known = {"vanilla": 0.0, "never": 1.0}.get(name)
            counts = (0, 0, 0) if known is not None else (0, 3, 0) if number == 2 else (3, 0, 0)
            counts = (0, 2, 1) if number == len(tuned) + 1 > 2 else counts
            row = {"architecture": architecture, "method": name, "runs": 3}
            row |= dict(zip(("gone", "hidden", "not_decided"), counts, strict=True))
            row |= {"attack": ATTACK if number == 2 else None, "attacks": int(number == 2)}
            row |= bounded("depth", 0.2 * number if known is None else known) | bounded("kept", 0.99 - 0.04 * number)
            rows.append(row | bounded("recovery", np.nan if known is not None else 0.9))
    return pd.DataFrame(rows)
