"""What every analysis script does with its command line: a run folder in, a table out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from mechinterp.audit.evidence import Baseline, Evidence
from mechinterp.audit.tables import MechanismComparison, compare
from mechinterp.data.storage.tables import write_table
from mechinterp.errors import InputError
from mechinterp.runs.study import Study


def compared(study: Study) -> MechanismComparison:
    """The comparison of all methods, from the evidence that the run recorded."""
    folder = study.folder / "evidence"
    return compare(
        Baseline.load(folder / "base"), ((method, Evidence.load(folder / method)) for method in study.config.studied)
    )


def write_analysis(
    description: str | None, analyse: Callable[[Study], pd.DataFrame | dict[str, pd.DataFrame]], name: str
) -> None:
    """Run `analyse` on the study in the folder given on the command line, and write and print its table.

    Several tables are given by the endings of their names: "" for the one that --out names, the others beside it.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("run", type=Path, help="folder that `mechinterp reproduce` wrote")
    parser.add_argument("--out", type=Path, help=f"file of the table; RUN/tables/{name}.csv if not given")
    arguments = parser.parse_args()
    try:
        tables = analyse(Study.open(arguments.run))
        out: Path = arguments.out or arguments.run / "tables" / f"{name}.csv"
        for ending, table in ({"": tables} if isinstance(tables, pd.DataFrame) else tables).items():
            path = write_table(out.with_name(f"{out.stem}{ending}{out.suffix}"), table)
            print(f"{table.to_string(index=False)}\n{path}")  # noqa: T201 - a script, not the library
    except InputError as error:
        print(error, file=sys.stderr)  # noqa: T201
        sys.exit(2)
