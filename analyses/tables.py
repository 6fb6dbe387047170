"""What the scripts of the paper's tables share: their command line, and tables with the paper's numbers beside ours.

A script makes what it needs in a run folder (the model organism's, unless --config names a model and files) and leaves
CSV and Markdown in its `benchmark/`. Rates are in percent there, as in the paper.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from published import notes, published, source
from scripts import Given, script

from mechinterp.answers.judged import Defense
from mechinterp.answers.judged_response import KINDS
from mechinterp.answers.judges import EmbeddedJudge
from mechinterp.cli.terminal import terminal
from mechinterp.data.storage.files import write_text
from mechinterp.data.storage.tables import write_table
from mechinterp.errors import InputError
from mechinterp.runs.benchmark import HARMLESS_EDITS, Benchmark, Made
from mechinterp.runs.config import StudyConfig, default_folder, load_config
from mechinterp.runs.study import Study

QUANTITIES = {
    "ds": "DS",
    "dg_only_q": "DG onlyQ",
    "dg_other_a": "DG otherA",
    "dg_other_q": "DG otherQ",
    "dg_other_aq": "DG otherAQ",
    "dg_avg": "DG-Avg",
    "avg": "Avg",
    "fluency": "fluency",
    "kqa": "KQA",
    "csum": "CSum",
    "empty": "empty",
    "unjudged": "unjudged",
    "over_refusal": "over-refusal",
    "jsd_last": "JSD (bits)",
    "seconds": "seconds",
    "gpu_memory_gb": "memory (GB)",
}
PERCENT = {*KINDS, "dg_avg", "avg", "kqa", "empty", "unjudged", "over_refusal"}


@dataclass(frozen=True)
class PaperTable:
    """A table of ours and what the paper prints for it.

    Attributes:
        ours: tidy: the columns `keys`, then quantity, value, low, high, n; rates as shares.
        keys: what a row is of.
        paper: name in `published.yaml`, None where there is nothing to set beside.
        shown: the quantities of the short Markdown table.
        remarks: said below it.
        paper_rows: the paper's rows, where they are not simply `published(paper)`.
        matrix: the short table has the first key in its rows and the second in its columns.
    """

    ours: pd.DataFrame
    keys: Sequence[str]
    paper: str | None
    shown: Sequence[str]
    remarks: Sequence[str] = ()
    paper_rows: pd.DataFrame | None = field(default=None)
    matrix: bool = False

    def beside(self) -> pd.DataFrame:
        """Ours in percent where they are rates, and a column for each model of the paper."""
        ours = self.ours.copy()
        scale = ours["quantity"].isin(PERCENT).map({True: 100.0, False: 1.0})
        for column in ("value", "low", "high"):
            ours[column] = ours[column] * scale
        if self.paper is None:
            return ours
        theirs = published(self.paper) if self.paper_rows is None else self.paper_rows
        keys = [*self.keys, "quantity"]
        quantities = [column for column in theirs if column in QUANTITIES]
        if theirs[quantities].isna().all(axis=None):  # a figure whose bars have no numbers
            return ours
        tidy = theirs.melt(id_vars=["model", *self.keys], value_vars=quantities, var_name="quantity")
        wide = tidy.pivot_table(index=keys, columns="model", values="value", aggfunc="first").reset_index()
        wide = wide.rename(columns={model: f"paper {model}" for model in tidy["model"].unique()})
        wide.columns.name = None
        spread = [f"{name}_sd" for name in quantities if f"{name}_sd" in theirs]
        if spread and theirs[spread].notna().any(axis=None):
            tidy = theirs.melt(id_vars=["model", *self.keys], value_vars=spread, var_name="quantity").dropna()
            tidy["quantity"] = tidy["quantity"].str.removesuffix("_sd")
            deviations = tidy.pivot_table(index=keys, columns="model", values="value", aggfunc="first")
            deviations.columns = [f"sd paper {model}" for model in deviations.columns]
            wide = wide.merge(deviations.reset_index(), on=keys, how="left")
        for key in self.keys:  # numbers stay numbers, words words
            wide[key] = wide[key].astype(ours[key].dtype)
        both = ours.merge(wide, on=keys, how="outer", sort=False)
        rows = pd.concat([ours, wide])[list(self.keys)].drop_duplicates()  # ours first, in our order
        place = {tuple(values): i for i, values in enumerate(rows.itertuples(index=False, name=None))}
        order = {name: i for i, name in enumerate(QUANTITIES)}
        both["row"] = [place[values] for values in both[list(self.keys)].itertuples(index=False, name=None)]
        both["column"] = both["quantity"].map(order)
        return both.sort_values(["row", "column"]).drop(columns=["row", "column"]).reset_index(drop=True)

    def markdown(self, title: str, about: str) -> str:
        """The page: a short table of the main quantities, what must be known to read it, and every number."""
        table = self.beside()
        models = [str(column) for column in table.columns if str(column).startswith("paper ")]
        lines = []
        for values, part in table.groupby(list(self.keys), sort=False):
            cells = {key: str(value) for key, value in zip(self.keys, values, strict=True)}
            found = {str(row["quantity"]): row for row in part.to_dict("records")}
            for quantity in self.shown:
                row = found.get(quantity)
                cells[QUANTITIES[quantity]] = _with_interval(row)
                printed = table.loc[table["quantity"] == quantity, models].notna().any(axis=None) if models else False
                if printed:
                    theirs = [number(None if row is None else row[model]) for model in models]
                    cells[f"{QUANTITIES[quantity]}, paper"] = "" if set(theirs) == {"–"} else " / ".join(theirs)
            lines.append(cells)
        short = pd.DataFrame(lines).fillna("")
        if self.matrix:
            short = self._as_matrix(table, models)
        every = table.copy()
        every["quantity"] = every["quantity"].map(QUANTITIES)
        for column in every.columns.difference([*self.keys, "quantity", "n"]):
            every[column] = every[column].map(number)
        every["n"] = every["n"].map(lambda n: "" if pd.isna(n) else f"{n:.0f}")
        parts = [f"# {title}", about, pipes(short)]
        if models:
            names = " / ".join(model.removeprefix("paper ") for model in models)
            parts.append(
                f"*paper* columns are other models on another set: {names}, as printed in {source(str(self.paper))}. "
                "A number that is missing there was not printed, or was not measured here."
            )
        parts += [f"- {remark}" for remark in (*self.remarks, *(notes(self.paper) if self.paper else ()))]
        parts += ["## Every number", pipes(every)]
        return "\n\n".join(parts) + "\n"

    def _as_matrix(self, table: pd.DataFrame, models: Sequence[str]) -> pd.DataFrame:
        """One quantity over two keys: ours, and in brackets the paper's."""
        rows: dict[str, dict[str, str]] = {}
        for row in table[table["quantity"] == self.shown[0]].to_dict("records"):
            theirs = " / ".join(number(row[model]) for model in models)
            first, second = (str(row[key]) for key in self.keys)
            rows.setdefault(first, {self.keys[0]: first})[second] = f"{number(row['value'])} ({theirs})"
        return pd.DataFrame(rows.values())


def tidy(defense: Defense, made: Made, more: pd.DataFrame | None = None, **keys: Any) -> pd.DataFrame:
    """A treated model's rates, with what else was measured on it (`Benchmark.side_effects`); `keys` name the row."""
    parts = [defense.table().drop(columns="method")]
    if more is not None and len(more):
        parts.append(more)
    if made.seconds is not None:
        parts.append(pd.DataFrame([{"quantity": "seconds", "value": made.seconds}]))
    table = pd.concat(parts, ignore_index=True)
    for position, (name, value) in enumerate(keys.items()):
        table.insert(position, name, value)
    return table


def harmless(bench: Benchmark) -> str:
    """What is to be known of over-refusal and JSD in a table."""
    return (
        f"Over-refusal and JSD: {len(bench.harmless)} harmless prompts; of ways that edit instance by instance the "
        f"mean over {min(HARMLESS_EDITS, len(bench.instances))} edits. Units of their intervals are the prompts "
        "(Wilson for over-refusal, bootstrap for JSD), not the edits."
    )


def table_parser(title: str) -> argparse.ArgumentParser:
    """The options that every table has."""
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--config", type=Path, help="YAML of a study; the embedded organism if not given")
    parser.add_argument("--run", type=Path, help="run folder; runs/seedN, or runs/CONFIG-seedN, if not given")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def study_of(arguments: argparse.Namespace) -> Study:
    """The study that the options name."""
    config = StudyConfig() if arguments.config is None else load_config(arguments.config)
    return Study(config, arguments.seed, arguments.run or default_folder(arguments.config, arguments.seed))


def each_way(bench: Benchmark, ways: Sequence[str]) -> pd.DataFrame:
    """How each of several ways defends, and what it does to harmless prompts; keyed by `method`."""
    parts = []
    for way in ways:
        defense, made = bench.evaluate(way), bench.make(way)
        parts.append(tidy(defense, made, bench.side_effects(made), method=way))
    return pd.concat(parts, ignore_index=True)


def run_table(
    name: str,
    title: str,
    make: Callable[[Benchmark, argparse.Namespace], PaperTable],
    ways: Sequence[str],
    *,
    add_arguments: Callable[[argparse.ArgumentParser], None] = lambda parser: None,
) -> None:
    """The command line of one table.

    Args:
        name: of the files it writes.
        title: its heading.
        make: computes it.
        ways: what must be there first.
        add_arguments: further options.
    """
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    parser = table_parser(title)
    parser.add_argument("--dry-run", action="store_true", help="what it would do, need and cost; nothing is done")
    add_arguments(parser)

    @script
    def main(given: Given) -> None:
        arguments = parser.parse_args(given)
        study = study_of(arguments)
        if arguments.dry_run:
            from mechinterp.runs.planning.plan import make_plan

            plan = make_plan(study)
            plan.show(print)
            if plan.problems:
                raise InputError("; ".join(plan.problems))
            return
        with terminal() as reporter:
            bench, folder = Benchmark(study, reporter), study.folder / "benchmark"
            with bench.prepared(ways):
                table = make(bench, arguments)
                path = write_table(folder / f"{name}.csv", table.beside())
                page = write_text(folder / f"{name}.md", table.markdown(title, _about(bench)))
        sys.stdout.write(f"{page.read_text(encoding='utf-8').split('## Every number')[0]}{path}\n{page}\n")

    if code := main():
        sys.exit(code)


def _about(bench: Benchmark) -> str:
    """On what, by whom judged, under which settings."""
    config, judge = bench.study.config, bench.study.judge
    knowledge = f" KQA: {len(bench.knowledge)} questions, which are its units." if bench.knowledge else ""
    accuracy = f", accuracy {judge.accuracy:.3f} held out" if isinstance(judge, EmbeddedJudge) else ""
    return (
        f"{config.title}, seed {bench.study.seed}: {len(bench.instances)} test instances, greedy answers of at most "
        f"{config.max_new_tokens} tokens, judge {judge.name}{accuracy}. DINM: {config.dinm.constraint} constraint, "
        f"{config.dinm.steps} steps, learning rate {config.dinm.learning_rate:g}, c_edit {config.dinm.c_edit:g}. "
        "Rates in percent with 95% intervals in brackets (Wilson; means of rates: bootstrap over instances). Empty "
        "responses are left out of the rates, and counted apart; the released script counts each as half safe."
        f"{knowledge}"
    )


def _with_interval(row: Any) -> str:
    if row is None or math.isnan(row["value"]):
        return ""
    if math.isnan(row["low"]):
        return number(row["value"])
    return f"{number(row['value'])} [{number(row['low'])}, {number(row['high'])}]"


def number(value: Any) -> str:
    """Three figures or so; a dash for what is missing."""
    if value is None or math.isnan(value):
        return "–"
    number = float(value)
    return f"{number:.1f}" if abs(number) >= 10 else f"{number:.2f}" if abs(number) >= 0.1 else f"{number:.2g}"


def pipes(table: pd.DataFrame) -> str:
    """A Markdown table."""
    rows = [list(table.columns), ["---"] * len(table.columns), *table.astype(str).values.tolist()]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
