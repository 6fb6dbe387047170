"""Tables 1, 2, 11 and 13 over several organisms, each from a seed of its own: what holds whatever the seed.

python analyses/tables_over_seeds.py --seeds 0 1 2

Runs the tables' own scripts for every seed (what is there already is not made again), and writes
runs/tables_over_seeds.csv and .md: the mean over the seeds, the smallest and the largest.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pandas as pd
from scripts import Given, script
from tables import QUANTITIES, number, pipes

from mechinterp.data.storage.files import write_text
from mechinterp.data.storage.tables import read_table, write_table
from mechinterp.errors import InputError
from mechinterp.runs.config import default_folder

TABLES = {
    "table1_methods": (("method",), ("ds", "dg_avg", "fluency", "kqa", "over_refusal")),
    "table2_ablations": (("method",), ("ds", "avg", "fluency", "kqa", "over_refusal")),
    "table13_blocks": (("block",), ("ds", "avg", "fluency", "kqa")),
    "table11_categories": (("where",), ("ds",)),
}


@script
def main(given: Given) -> None:
    """Run, collect, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the run folders")
    parser.add_argument("--config", type=Path, help="YAML of a study; the embedded organism if not given")
    arguments = parser.parse_args(given)
    parts, pages = [], [f"# The tables over the seeds {', '.join(map(str, arguments.seeds))}"]
    for name, (keys, shown) in TABLES.items():
        found = []
        for seed in arguments.seeds:
            run = arguments.runs / default_folder(arguments.config, seed).name
            command = [
                sys.executable,
                str(Path(__file__).with_name(f"{name}.py")),
                "--seed",
                str(seed),
                "--run",
                str(run),
            ]
            command += ["--config", str(arguments.config)] if arguments.config else []
            if subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode:
                raise InputError(f"{name} stopped at seed {seed}: what it says stands above")
            found.append(_read(run / "benchmark" / f"{name}.csv").assign(seed=seed))
        every = pd.concat(found)
        groups = every.groupby([*keys, "quantity"], sort=False)["value"]
        table = groups.agg(["mean", "min", "max", "count"]).reset_index()
        parts.append(table.rename(columns={keys[0]: "row"}).assign(table=name))
        pages += [f"## {name}", pipes(_short(table, keys[0], shown))]
    write_table(arguments.runs / "tables_over_seeds.csv", pd.concat(parts))
    pages.append("Mean over the seeds, in brackets the smallest and the largest. Rates in percent.")
    page = write_text(arguments.runs / "tables_over_seeds.md", "\n\n".join(pages) + "\n")
    print(f"{page.read_text(encoding='utf-8')}\n{page}")  # noqa: T201 - a script, not the library


def _read(path: Path) -> pd.DataFrame:
    """Our own values of a table; Table 11 as one rate within the edits' category and one outside of it."""
    table = read_table(path).dropna(subset=["value"])
    if "edited" not in table:
        return table
    same = table["edited"] == table["category"]
    table = table.assign(where=same.map({True: "same category", False: "other category"}))
    table["safe"] = table["value"] * table["n"]
    sums = table.groupby(["where", "quantity"], as_index=False)[["safe", "n"]].sum()
    return sums.assign(value=sums["safe"] / sums["n"])


def _short(table: pd.DataFrame, key: str, shown: tuple[str, ...]) -> pd.DataFrame:
    rows: dict[str, dict[str, str]] = {}
    for row in table[table["quantity"].isin(shown)].to_dict("records"):
        cell = f"{number(row['mean'])} [{number(row['min'])}, {number(row['max'])}]"
        rows.setdefault(str(row[key]), {key: str(row[key])})[QUANTITIES[row["quantity"]]] = cell
    return pd.DataFrame(rows.values()).fillna("")


if __name__ == "__main__":
    sys.exit(main())
