"""Tables 3 and 14: one edit, made for one instance, asked about all test instances; mean and deviation over edits.

python analyses/table3_all_test.py

Asked are the bare questions and the questions under other attacks of every test instance, as in the paper; instances
share them, and each different prompt counts once. Methods that make one checkpoint for all are asked the same. `sd` is
the deviation over the edits as a population, as the paper's.
"""

from argparse import ArgumentParser, Namespace

import pandas as pd
from published import published
from tables import PERCENT, PaperTable, run_table

from mechinterp.answers.judged import Defense
from mechinterp.runs.benchmark import Benchmark

KINDS = ("dg_only_q", "dg_other_aq")
ONE = ("vanilla", "sft", "dpo", "self_reminder", "ext_sub")
PAPERS = (135, 405)  # prompts of its set, inferred from its rates: see `dataset` in published.yaml
SHOWN = (*KINDS, "avg", "fluency", "kqa")


def all_test(bench: Benchmark, arguments: Namespace) -> PaperTable:
    """A row per method and edited instance, and one for the mean over them."""
    test, rows = bench.study.instances("test"), []
    prompts: dict[str, set[str]] = {}
    for way in (*ONE, "dinm"):
        made, found = bench.make(way), []
        edits = [str(number) for number in made.edits][: arguments.edits]
        for part, name in zip(made.parts(arguments.edits), edits or [""], strict=True):
            answers = bench.ask(part, test, kinds=KINDS).distinct()
            prompts = {kind: {r.prompt for r in answers.responses if r.kind == kind} for kind in KINDS}
            found.append(_row(answers).assign(method=way, instance=name))
        rows += found
        if edits:
            rows.append(_mean(found).assign(method=way, instance="mean"))
    theirs = published("all_test").drop(columns=["csum", "csum_sd"]).assign(instance="")  # CSum is not asked here
    theirs.loc[theirs["method"] == "dinm", "instance"] = "mean"
    single = published("instances").drop(columns=["csum", "csum_sd"])
    single = single[single["instance"].isin(["1", "2", "3"])]
    single["instance"] = "paper's " + single["instance"]
    distinct = ", ".join(f"{len(prompts[kind])} {name}" for kind, name in zip(KINDS, ("onlyQ", "otherAQ"), strict=True))
    ours = pd.concat(rows, ignore_index=True)[["method", "instance", "quantity", "value", "low", "high", "sd", "n"]]
    return PaperTable(
        ours.assign(sd=ours["sd"] * ours["quantity"].map(_unit)),
        keys=("method", "instance"),
        paper="all_test",
        shown=SHOWN,
        remarks=(
            f"{len(test)} test instances share questions: asked, and counted once each, are {distinct} different "
            f"prompts (the paper's set has {PAPERS[0]} and {PAPERS[1]}).",
            "Of `mean`, brackets are the smallest and the largest of the edits, n their number, and the column sd "
            "(CSV, every number) their deviation, with the paper's beside it; of single rows, 95% intervals.",
            "Avg is the mean of the two rates shown, as in the paper. The rows `paper's 1` to `3` are Table 14's: "
            "edits of instances of another set, with nothing of ours beside them.",
        ),
        paper_rows=pd.concat([theirs, single], ignore_index=True),
    )


def _row(answers: Defense) -> pd.DataFrame:
    """The quantities of one treated model; `avg` is the mean of the two rates."""
    table = answers.table().drop(columns="method").set_index("quantity")
    table.loc["avg"] = {"value": table.loc[list(KINDS), "value"].mean()}
    return table.loc[list(SHOWN)].reset_index()


def _mean(rows: list[pd.DataFrame]) -> pd.DataFrame:
    """Mean, smallest, largest and deviation over the edits."""
    groups = pd.concat(rows).groupby("quantity", sort=False)["value"]
    found = groups.agg(value="mean", low="min", high="max", n="count", sd=lambda values: values.std(ddof=0))
    return found.reset_index()


def _unit(quantity: str) -> float:
    return 100.0 if quantity in PERCENT else 1.0


def add_arguments(parser: ArgumentParser) -> None:
    """How many edits."""
    parser.add_argument("--edits", type=int, default=3, help="edited instances, the paper has three (default: 3)")


if __name__ == "__main__":
    run_table(
        "table3_all_test", "Tables 3 and 14: all test instances", all_test, [*ONE, "dinm"], add_arguments=add_arguments
    )
