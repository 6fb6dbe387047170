"""MemFlex without each of its three differences from gradient difference: does localisation do anything?

    python analyses/memflex_ablation.py runs/methods/seed0 runs/methods/seed1 runs/methods/seed2 --out runs/methods

Trains the base of every finished study eight times, with each of the three on or off: only located tensors (`where`), a
learning rate six times that of the baselines (`rate`), weights of 0.4 and 2.0 (`weights`). All off is gradient
difference. Asks each model what it should forget and keep, as `all_methods.py` does. Writes into --out
`memflex_ablation.csv`, a row for each run and model, and `memflex_ablation.md`: the models, and what each difference
does, the mean over all pairs of models that differ in it alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
from all_methods import scopes_of
from scripts import Given, script, tell
from tables import pipes

from mechinterp.answers.unlearned import ask_scopes, summary_rows
from mechinterp.audit.all_methods import together
from mechinterp.cli.terminal import terminal
from mechinterp.data.storage.tables import write_table
from mechinterp.measures.intervals import Interval, with_ends
from mechinterp.methods.registry import settings_for
from mechinterp.methods.task import Task
from mechinterp.methods.unlearning.memflex import MEMFLEX, MemFlexSettings, region_of
from mechinterp.methods.unlearning.unlearned import scopes_of as trained_on
from mechinterp.models.progress import Reporter
from mechinterp.runs.study import Study

SWITCHES = ("where", "rate", "weights")
_OFF = {"rate": ("learning_rate",), "weights": ("forget_weight", "retain_weight")}
"""Settings that are gradient difference's where a switch is off."""

QUANTITIES = {
    "forgotten": ("forget", "success"),
    "kept": ("retain", "success"),
    "kept_said": ("retain", "said_answer"),
    "degenerate": ("forget", "degenerate"),
}
"""Columns, each a quantity of the table `unlearning`."""


def settings_of(study: Study, on: dict[str, bool], region: Sequence[str]) -> MemFlexSettings:
    """MemFlex's settings in a study with some of its differences; what is off is as in the study's gradient difference.

    Args:
        on: which differences there are.
        region: tensors that were located.
    """
    given = settings_for("memflex", study.config.settings_of("memflex")).model_dump()
    plain = study.config.settings_of("grad_diff").model_dump()
    given |= {name: plain[name] for switch, names in _OFF.items() if not on[switch] for name in names}
    given |= {"region": tuple(region)} if on["where"] else {"locate": False, "region": ()}
    return MemFlexSettings.model_validate(given)


def ablated(study: Study, reporter: Reporter) -> Iterator[dict[str, Any]]:
    """A row for each of the eight models of a study's base."""
    base, asked = study.checkpoint("vanilla"), scopes_of(study)
    full = settings_for("memflex", study.config.settings_of("memflex"))
    assert isinstance(full, MemFlexSettings)
    task = Task((), {}, training=study.instances("train"), seed=study.seed, progress=reporter.progress)
    reporter.note(f"{study.folder}: locating")
    region = sorted(region_of(base, trained_on("memflex", task), full, task) or ())
    for switched in product((True, False), repeat=len(SWITCHES)):
        on = dict(zip(SWITCHES, switched, strict=True))
        reporter.note(f"{study.folder}: {named(on)}")
        own = Task((), {}, task.training, settings={"memflex": settings_of(study, on, region)}, seed=study.seed)
        (made,) = MEMFLEX.make(base, own)
        assert made.checkpoint is not None
        answers = ask_scopes(made.checkpoint, asked, max_new_tokens=study.config.max_new_tokens)
        found = {(row["scope"], row["quantity"]): row for row in summary_rows("memflex", answers, seed=study.seed)}
        row: dict[str, Any] = {"run": str(study.folder), "seed": study.seed, **on, "located": len(region)}
        for column, key in QUANTITIES.items():
            row |= Interval(*(found[key][end] for end in with_ends("value"))).columns(column)
        yield row


def named(on: dict[str, bool]) -> str:
    """A model by the differences that it has."""
    there = [switch for switch in SWITCHES if on[switch]]
    return {0: "gradient difference", len(SWITCHES): "MemFlex"}.get(len(there), " and ".join(there) + " alone")


def models_in_words(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each model: means over the runs, and the widest reach of their intervals, in percent."""
    rows = []
    for switched, part in table.groupby(list(SWITCHES), sort=False):
        on = {switch: bool(value) for switch, value in zip(SWITCHES, switched, strict=True)}
        found = {
            column: together(Interval(*values) for values in part[[*with_ends(column)]].itertuples(index=False))
            for column in QUANTITIES
        }
        rows.append({"model": named(on), **{f"{name} (%)": _percent(one) for name, one in found.items()}})
    return pd.DataFrame(rows)


def effects_in_words(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each difference: what it adds, over pairs of models that differ in it alone; smallest and largest."""
    rows = []
    for switch in SWITCHES:
        pairs = table.pivot(index=["run", *(other for other in SWITCHES if other != switch)], columns=switch)
        row = {"difference": switch}
        for column in QUANTITIES:
            added = pairs[column][True] - pairs[column][False]
            row[f"{column} (points)"] = _percent(Interval(added.mean(), added.min(), added.max()), signed=True)
        rows.append(row)
    return pd.DataFrame(rows)


def _percent(found: Interval, *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    value, low, high = (f"{100 * each:{sign}z.0f}" for each in vars(found).values())
    return f"{value} [{low}, {high}]"


@script
def main(given: Given) -> None:
    """Train, ask, and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder that `mechinterp reproduce` wrote")
    parser.add_argument("--out", type=Path, default=Path("runs/methods"))
    arguments = parser.parse_args(given)
    with terminal() as shown:
        table = pd.DataFrame([row for run in arguments.runs for row in ablated(Study.open(run), shown)])
    write_table(arguments.out / "memflex_ablation.csv", table)
    parts = [pipes(models_in_words(table)), "What each difference adds:", pipes(effects_in_words(table))]
    tell(arguments.out / "memflex_ablation.md", "MemFlex without its differences", *parts)


if __name__ == "__main__":
    sys.exit(main())
