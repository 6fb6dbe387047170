"""Make one table of a study again from what the study recorded, and print it.

    python analyses/table.py verdict runs/seed0
    python analyses/table.py toxic_layer runs/seed0 --out elsewhere.csv
    python analyses/table.py --list

Nothing is trained and no model answers again: the tables of the comparison come from the recorded evidence, `defense`
and `relapse` from the saved answers, which are judged again, `verdict` from the other tables; `probe` and `toxic_layer`
feed comments and responses to the vanilla model. What every column holds: `analyses/columns.md`, which `--columns`
prints.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd
from scripts import Given, script

from mechinterp.answers.judged import judge_again
from mechinterp.audit.directions.probe_training import fit_probe
from mechinterp.audit.evidence import Baseline, Evidence
from mechinterp.audit.location import agreement, histogram, locate
from mechinterp.audit.relapse.results import RelapseTest, decomposed_verdicts, relapse_tables
from mechinterp.audit.tables import COMPARED, TABLES, compare
from mechinterp.audit.tables.table import KEYS
from mechinterp.audit.tables.verdicts import VERDICT, verdict_table
from mechinterp.data.storage.tables import write_table
from mechinterp.errors import InputError
from mechinterp.runs.study import Study


def compared(study: Study, name: str) -> dict[str, pd.DataFrame]:
    """From the recorded evidence of every checkpoint."""
    folder = study.folder / "evidence"
    tuned = ((method, Evidence.load(folder / method)) for method in study.config.studied)
    found = compare(Baseline.load(folder / "base"), tuned, top_neurons=study.config.comparison.top_neurons).tables
    if name not in found:
        raise InputError(f"{study.folder}: its checkpoints have nothing to fill the table {name} with")
    return {"": found[name]}


def defense(study: Study) -> dict[str, pd.DataFrame]:
    """Every response in `responses/METHOD.jsonl` gets the judge's score; a row per method, as in the run."""
    saved = (study.folder / "responses" / f"{method}.jsonl" for method in study.table("defense")["method"])
    return {"": pd.DataFrame([judge_again(path, study.judge).row() for path in saved])}


def relapse(study: Study) -> dict[str, pd.DataFrame]:
    """From the saved answers, judged again; beside the doses, the verdicts."""
    tests = [RelapseTest.load(study.folder / "relapse" / method).judged(study.judge) for method in study.config.studied]
    found = relapse_tables(tests, decomposed_verdicts(study.table("local_verdict")))
    return {"": found["relapse"], "_verdict": found["relapse_verdict"]}


def probe(study: Study) -> dict[str, pd.DataFrame]:
    """Mean residual stream of every comment, a logistic regression without bias, a tenth held out."""
    config = study.config
    fitted = fit_probe(
        study.checkpoint("vanilla"),
        study.comments,
        seed=study.seed,
        final_norm=config.final_norm,
        without_sinks=config.without_sinks,
    )
    return {"": fitted.table}


def toxic_layer(study: Study) -> dict[str, pd.DataFrame]:
    """Beside the counts: the same by category, and how often two distances name the same block."""
    vanilla, config = study.checkpoint("vanilla"), study.config
    instances = study.instances("test")
    located = locate(vanilla, instances, truncate=config.truncate, without_sinks=config.without_sinks)
    return {
        "_by_category": histogram(located, vanilla.n_blocks, by="category"),
        "_agreement": agreement(located),
        "": histogram(located, vanilla.n_blocks),
    }


def verdict(study: Study) -> dict[str, pd.DataFrame]:
    """From the run's other tables."""
    there = {name: study.table(name) for name in TABLES if study.place_of(name).is_file()}
    made = verdict_table(there)
    return {"": made[VERDICT.reading_order(made.columns)]}


MADE_AGAIN: Mapping[str, Callable[[Study], dict[str, pd.DataFrame]]] = {
    "verdict": verdict,
    "defense": defense,
    "relapse": relapse,
    "probe": probe,
    "toxic_layer": toxic_layer,
}
"""What is not of the comparison; by the endings of the files' names, "" for the table of that name."""


def columns() -> str:
    """What every table of a run is, column by column, as a Markdown document."""
    common = "\n".join(f"- `{key}`: {text}" for key, text in KEYS.items())
    return "\n\n".join(
        [
            "# The tables of a run",
            "`tables/NAME.csv` in the folder of a run; written by `python analyses/table.py --columns`. A column with "
            "a 95% interval has two more beside it, `NAME_low` and `NAME_high`, "
            "empty where one unit alone was there to draw from. An *optional* table is there where a "
            "run has something to fill it with.",
            f"In many tables, and the same in each:\n\n{common}",
            *(table.markdown() for table in TABLES.values()),
        ]
    )


@script
def main(given: Given) -> None:
    """Make the table that the command line names, write it and print it."""
    names = [name for name in TABLES if name in COMPARED or name in MADE_AGAIN]
    width = max(map(len, names))
    listed = "\n".join(f"{name:{width}}  {TABLES[name].title}; a row: {TABLES[name].row}" for name in names)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="version", version=listed, help="list the tables, and stop")
    parser.add_argument("--columns", action="version", version=columns(), help="say what all columns hold, and stop")
    parser.add_argument("name", choices=names, metavar="NAME", help="of the table, one of --list")
    parser.add_argument("run", type=Path, metavar="RUN", help="folder that `mechinterp reproduce` wrote")
    parser.add_argument("--out", type=Path, help="file of the table [RUN/tables/NAME.csv]")
    arguments = parser.parse_args(given)
    name: str = arguments.name
    study = Study.open(arguments.run)
    tables = MADE_AGAIN[name](study) if name in MADE_AGAIN else compared(study, name)
    out: Path = arguments.out or arguments.run / "tables" / f"{name}.csv"
    for ending, table in tables.items():
        path = write_table(out.with_name(f"{out.stem}{ending}{out.suffix}"), table)
        print(f"{table.to_string(index=False)}\n{path}")  # noqa: T201 - a script, not the library


if __name__ == "__main__":
    sys.exit(main())
