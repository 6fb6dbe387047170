"""Methods side by side over one study or several, each study of a base of its own: a row for each method.

Shares and scores are means over the runs; an interval reaches from the lowest to the highest end of the runs' own.
Verdicts are counted. First the base and the model that never learnt, as far as a quantity is of them; their depth
scores, 0 and 1, are what the score's scale is made of. Runs of several architectures have rows of each, and of all
together.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from mechinterp.audit.attacks.results import PLAIN
from mechinterp.audit.tables.over_runs import ALL_METHODS
from mechinterp.audit.tables.reading import Tables, as_float, interval_of, rows
from mechinterp.errors import InputError
from mechinterp.measures.intervals import Interval

BASE, NEVER = "vanilla", "never"
POOLED = "all"
"""In the place of an architecture, of rows over all of them."""

VERDICTS = ("gone", "hidden", "not decided")
"""What the verdict's second half may say; how many runs say each is a column, `verdict_column`."""

NEEDED = ("verdict", "attacks", "depth", "defense", "unlearning")
"""Tables of every run."""

_NOTHING = Interval(math.nan, math.nan, math.nan)
_ASKED = {"forgotten": ("forget", "success"), "kept": ("retain", "success"), "perplexity": ("retain", "perplexity")}


def all_methods(runs: Mapping[str, Sequence[Tables]], methods: Sequence[str] = ()) -> pd.DataFrame:
    """The table `all_methods`.

    Args:
        runs: of each architecture the tables of its runs, by name.
        methods: those that are compared; () for all that any run has.

    Raises:
        InputError: for no run, one that lacks a table, or a method that no run has.
    """
    every = [tables for found in runs.values() for tables in found]
    if not every:
        raise InputError("no run to compare methods of; give at least one folder of a study")
    for number, tables in enumerate(every, 1):
        if missing := [name for name in NEEDED if name not in tables]:
            raise InputError(f"run {number} of {len(every)} has no tables/{missing[0]}.csv; run its study to the end")
    if unknown := [name for name in methods if name not in _methods(every)]:
        raise InputError(f"no run has a method {unknown[0]!r}; they have {', '.join(_methods(every))}")
    of_each = {**runs, **({POOLED: every} if len(runs) > 1 else {})}
    return pd.DataFrame(
        [
            {"architecture": architecture, **_row(name, found)}
            for architecture, found in of_each.items()
            for name in (BASE, NEVER, *(name for name in _methods(found) if not methods or name in methods))
        ]
    )


def verdict_column(verdict: str) -> str:
    """The column that counts the runs of a verdict."""
    return verdict.replace(" ", "_")


def verdicts_of(row: Mapping[str, Any]) -> dict[str, int]:
    """Verdict -> number of runs that give it, the most frequent first; none that no run gives, or that is not there."""
    counts = {verdict: float(row[verdict_column(verdict)]) for verdict in VERDICTS}
    found = {verdict: 0 if math.isnan(count) else int(count) for verdict, count in counts.items()}
    return {
        verdict: found[verdict] for verdict in sorted(VERDICTS, key=found.__getitem__, reverse=True) if found[verdict]
    }


def shown_by(row: Mapping[str, Any]) -> str | None:
    """The attack that shows the behaviour hidden, where it is the same one in all runs that one does."""
    return None if row["attacks"] != 1 else str(row["attack"])


def in_counts(found: Mapping[str, int]) -> str:
    """Words with how many runs give each; a word alone that all give."""
    total = sum(found.values())
    return "; ".join(word if len(found) == 1 else f"{word} ({count} of {total})" for word, count in found.items())


def together(intervals: Iterable[Interval]) -> Interval:
    """Mean of those that are defined, from the lowest to the highest end."""
    found = [one for one in intervals if not math.isnan(one.value)]
    if not found:
        return _NOTHING
    low, high = min(one.low for one in found), max(one.high for one in found)
    return Interval(sum(one.value for one in found) / len(found), low, high)


def counted(words: Iterable[Any]) -> str | None:
    """A word that all runs share; else every one with its count, the most frequent first; None for no word."""
    return in_counts(dict(_tally(words).most_common())) or None


def _tally(words: Iterable[Any]) -> Counter[str]:
    return Counter(str(word) for word in words if not pd.isna(word))


def _methods(runs: Sequence[Tables]) -> list[str]:
    return list(dict.fromkeys(str(row["method"]) for tables in runs for row in rows(tables, "verdict")))


def _row(name: str, runs: Sequence[Tables]) -> dict[str, Any]:
    there = [tables for tables in runs if any(True for _ in _plain(name, tables))]
    plain = {quantity: list(_plain(name, *there, quantity=quantity)) for quantity in ("unsafe", "log_odds")}
    verdicts = [row for tables in there for row in rows(tables, "verdict", method=name)]
    hidden = [row for row in verdicts if row["gone"] == "hidden"]
    defended = [row for tables in there for row in rows(tables, "defense", method=name)]
    asked = {
        column: together(
            interval_of(row, "value")
            for tables in there
            for row in rows(tables, "unlearning", method=name, scope=scope, quantity=quantity)
        )
        for column, (scope, quantity) in _ASKED.items()
    }
    return {
        "method": name,
        "runs": len(there),
        **together(interval_of(row, "ds") for row in defended).columns("defense"),
        **together(interval_of(row, "value") for row in plain["unsafe"]).columns("unsafe"),
        "degenerate": _mean(row["degenerate"] for row in plain["unsafe"]),
        **together(interval_of(row, "value") for row in plain["log_odds"]).columns("log_odds"),
        **{key: value for column, found in asked.items() for key, value in found.columns(column).items()},
        **together(interval_of(row, "knowledge") for row in plain["unsafe"]).columns("knowledge"),
        **together(interval_of(row, "over_refusal") for row in plain["unsafe"]).columns("over_refusal"),
        **together(interval_of(row, "value_share") for row in verdicts).columns("value_share"),
        "where": counted(row["where"] for row in verdicts),
        **_depth(name, there).columns("depth"),
        **{verdict_column(verdict): sum(row["gone"] == verdict for row in verdicts) for verdict in VERDICTS},
        "attack": counted(row["attack"] for row in hidden),
        "attacks": len(_tally(row["attack"] for row in hidden)),
        **together(interval_of(row, "recovery") for row in hidden or verdicts).columns("recovery"),
        **together(interval_of(row, "excess") for row in hidden or verdicts).columns("excess"),
    }


def _plain(name: str, *runs: Tables, quantity: str = "unsafe") -> Iterable[Mapping[str, Any]]:
    """A checkpoint as it is, in the table of attacks, where the base is called so."""
    called = "base" if name == BASE else name
    for tables in runs:
        yield from rows(tables, "attacks", attack=PLAIN, method=called, quantity=quantity)


def _depth(name: str, runs: Sequence[Tables]) -> Interval:
    if name in (BASE, NEVER):
        known = float(name == NEVER)
        return Interval(known, known, known) if runs else _NOTHING
    return together(interval_of(row, "score") for tables in runs for row in rows(tables, "depth", method=name))


def _mean(values: Iterable[Any]) -> float:
    found = [value for value in map(as_float, values) if not math.isnan(value)]
    return sum(found) / len(found) if found else math.nan


def in_words(table: pd.DataFrame) -> pd.DataFrame:
    """The table as a page prints it: rates in percent, intervals in brackets, architectures where there are several."""
    printed = {"architecture": "architecture", **_PRINTED} if table["architecture"].nunique() > 1 else _PRINTED
    return pd.DataFrame([{title: _cell(row, column) for column, title in printed.items()} for row in _records(table)])


_PRINTED = {
    "method": "method",
    "defense": "defense (%)",
    "unsafe": "unsafe (%)",
    "degenerate": "degenerate (%)",
    "forgotten": "forgotten (%)",
    "kept": "kept (%)",
    "knowledge": "knowledge (%)",
    "over_refusal": "over-refusal (%)",
    "value_share": "in the value matrices (%)",
    "depth": "depth score",
    "gone": "verdict",
    "attack": "cheapest attack that shows it",
    "recovery": "brings back (%)",
    "excess": "beyond never learnt (%)",
}
_NUMBERS = ("depth",)
_WORDS = ("architecture", "method", "attack")


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def _cell(row: Mapping[str, Any], column: str) -> str:
    if column == "gone":
        return in_counts(verdicts_of(row))
    if column in _WORDS:
        return "" if pd.isna(row[column]) else str(row[column])
    found = interval_of(row, column)
    if math.isnan(found.value):
        return ""
    told = (f"{value:z.2f}" if column in _NUMBERS else f"{100 * value:z.0f}" for value in vars(found).values())
    value, low, high = told
    bounded = column in ALL_METHODS.intervals and not math.isnan(found.low)
    return f"{value} [{low}, {high}]" if bounded and low != high else value
