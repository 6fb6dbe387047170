"""Calibration of the instruments: both verdicts on checkpoints whose truth is known, over seeds and architectures.

    python analyses/calibration.py --out runs/robustness --seeds 0 1 2
    python analyses/calibration.py --out runs/mine --studies runs/seed0 runs/seed1

The folders of the studies are those of `seeds_and_architectures.py`; a study that is not there yet is run first.
Resumable: what is up to date costs seconds; `--collect` reads what is there and runs nothing. Writes into --out
`calibration.csv`, a row per checkpoint and direction; `calibration_kinds.csv`, expected against found;
`calibration_rates.csv`, sensitivity and specificity; `calibration_monotony.csv`, of the interpolations; and
`calibration.md`, the tables of the README. `--write-certificate` puts the table into the package, from where every
report takes its rates: only of the embedded organisms.

What is made, and what is expected of it, and why: `mechinterp.audit.certificate`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd
from seeds_and_architectures import CONFIGS, markdown

from mechinterp.audit.certificate import CERTIFICATE, by_kind, monotony, rates, read_calibration
from mechinterp.cli.terminal import terminal
from mechinterp.data.storage.files import write_text
from mechinterp.data.storage.tables import write_table
from mechinterp.errors import InputError
from mechinterp.runs.calibration.keeping import calibrated
from mechinterp.runs.config import load_config
from mechinterp.runs.study import Study


def studies(arguments: argparse.Namespace) -> list[Study]:
    """The studies that are asked for; made or not."""
    if arguments.studies:
        return [Study.open(folder) for folder in arguments.studies]
    configs = Path(__file__).parent / "configs"
    return [
        Study(load_config(configs / CONFIGS[architecture]), seed, arguments.out / f"{architecture}-seed{seed}")
        for seed in arguments.seeds
        for architecture in arguments.architectures
    ]


def calibration_of(study: Study, *, run: bool, collect: bool) -> pd.DataFrame:
    """The calibration of one study.

    Args:
        run: bring the study itself up to date first.
        collect: read what is there.
    """
    if collect:
        return read_calibration(study.folder / "tables" / "calibration.csv")
    with terminal() as shown:
        shown.note(f"{study.folder}")
        if run:
            study.run(shown)
        return calibrated(study, reporter=shown)


def with_intervals(table: pd.DataFrame) -> pd.DataFrame:
    """Rates as text, with their intervals."""
    text = table[["instrument", "direction", "verdict", "measure", "among"]].copy()
    text["rate"] = [f"{row.rate:.2f} ({row.low:.2f} to {row.high:.2f})" if row.n else "-" for row in table.itertuples()]
    return text.assign(n=table["n"])


def moving(table: pd.DataFrame) -> pd.DataFrame:
    """The interpolations in few rows: steps against the direction of the end, over all organisms."""
    grouped = table.groupby(["start", "direction", "quantity"], sort=False)
    columns = {"steps": ("steps", "sum"), "violations": ("violations", "sum"), "largest": ("largest", "max")}
    return grouped.agg(**columns).reset_index()


def without_reasons(table: pd.DataFrame) -> pd.DataFrame:
    """The table in fewer bytes: numbers with six digits, and no sentences."""
    short = table.drop(columns=["reason", "relapse_reason"])
    for column in short.select_dtypes("float"):
        short[column] = [float(f"{value:.6g}") for value in short[column]]
    return short


def main() -> None:
    """Calibrate what is missing, collect and sum up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/robustness"), help="folder of studies and tables")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the studies")
    parser.add_argument(
        "--architectures", nargs="+", choices=list(CONFIGS), default=list(CONFIGS), help="of the studies"
    )
    parser.add_argument("--studies", type=Path, nargs="+", help="folders of finished studies, instead of those")
    parser.add_argument("--collect", action="store_true", help="only collect what was calibrated before")
    parser.add_argument("--write-certificate", action="store_true", help="put the table into the package")
    arguments = parser.parse_args()
    try:
        if arguments.write_certificate and arguments.studies:
            raise InputError("the certificate is of the embedded organisms: --write-certificate goes without --studies")
        found = [
            calibration_of(study, run=not arguments.studies, collect=arguments.collect) for study in studies(arguments)
        ]
        table = pd.concat(found, ignore_index=True)
        tables = {"": table, "_kinds": by_kind(table), "_rates": rates(table), "_monotony": monotony(table)}
        for ending, part in tables.items():
            write_table(arguments.out / f"calibration{ending}.csv", part)
        shown_tables = (tables["_kinds"], with_intervals(tables["_rates"]), moving(tables["_monotony"]))
        write_text(arguments.out / "calibration.md", "\n".join(map(markdown, shown_tables)))
        if arguments.write_certificate:
            without_reasons(table).to_csv(CERTIFICATE, index=False)  # a file of the package, not of a run
    except InputError as error:
        print(error, file=sys.stderr)  # noqa: T201 - a script, not the library
        sys.exit(2)
    sys.stdout.write((arguments.out / "calibration.md").read_text())


if __name__ == "__main__":
    main()
