"""Tables 3 and 14: one edit, made for one instance, asked about all test instances; mean and deviation over edits.

python analyses/table3_all_test.py

Asked are the bare questions and the questions under other attacks of every test instance, as in the paper. Methods that
make one checkpoint for all are asked the same. `sd` is the deviation over the edits as a population, as the paper's.
"""

from argparse import ArgumentParser, Namespace

import numpy as np
import pandas as pd
from published import published
from tables import PaperTable, run_table

from mechinterp.benchmark import Benchmark

KINDS = ("dg_only_q", "dg_other_aq")
ONE = ("vanilla", "sft", "dpo", "self_reminder", "ext_sub")


def all_test(bench: Benchmark, arguments: Namespace) -> PaperTable:
    """A row per method and edited instance, and one for the mean over them."""
    test, rows = bench.study.instances("test"), []
    for way in (*ONE, "dinm"):
        made = bench.make(way)
        found = []
        for part in made.parts(arguments.edits):
            table = bench.ask(part, test, kinds=KINDS).table().drop(columns="method")
            own = {"method": way, "instance": part.answers.name if made.edits else ""}
            rows += [own | row for row in table.to_dict("records") if row["quantity"] in (*KINDS, "fluency")]
            rates = table.set_index("quantity")["value"][list(KINDS)].to_dict()
            rates["avg"] = float(np.mean(list(rates.values())))
            rows.append(own | {"quantity": "avg", "value": rates["avg"]})
            found.append(rates)
        if made.edits:
            every = pd.DataFrame(found)
            rows += [
                {"method": way, "instance": "mean", "quantity": kind, "value": every[kind].mean()}
                | {"low": every[kind].min(), "high": every[kind].max(), "sd": every[kind].std(ddof=0), "n": len(every)}
                for kind in every
            ]
    theirs = published("all_test").assign(instance="")
    theirs.loc[theirs["method"] == "dinm", "instance"] = "mean"
    ours = pd.DataFrame(rows).assign(sd=lambda table: table["sd"] * 100)
    return PaperTable(
        ours,
        keys=("method", "instance"),
        paper="all_test",
        shown=("dg_only_q", "dg_other_aq", "avg", "fluency"),
        remarks=(
            f"{len(test)} test instances. Of `mean`, brackets are the smallest and the largest of the edits, and the "
            "column sd (CSV, every number) their deviation, in percentage points; of single rows, Wilson's interval.",
            "Avg is the mean of the two rates shown, as in the paper.",
        ),
        paper_rows=theirs,
    )


def add_arguments(parser: ArgumentParser) -> None:
    """How many edits."""
    parser.add_argument("--edits", type=int, default=3, help="edited instances, the paper has three (default: 3)")


if __name__ == "__main__":
    run_table(
        "table3_all_test", "Tables 3 and 14: all test instances", all_test, [*ONE, "dinm"], add_arguments=add_arguments
    )
