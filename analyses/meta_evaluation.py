"""Does the instrument tell the truth? Every measure on checkpoints whose truth is known, at several depths.

    python analyses/meta_evaluation.py --out runs/meta                      # 6 blocks, four seeds; 12 and 24, one each
    python analyses/meta_evaluation.py --out runs/meta --runs 6:0 6:1       # depth:seed
    python analyses/meta_evaluation.py --out runs/meta --runs 6:0 6:1 --perturbed   # measured again after rounding and
                                                                            # relearning: do the measures hold?
    python analyses/meta_evaluation.py --out runs/meta --collect            # of what is there; runs nothing
    python analyses/meta_evaluation.py --out runs/meta --runs 6:4 --add     # a further base, besides the packaged

Resumable: an organism, a twin and a checkpoint that is up to date is not made or measured again; each stands in the
table as soon as it is there. Writes into --out `tables/certificate.csv`, a row per checkpoint; `separations.csv`,
`verdicts.csv`, `places.csv`, `agreement.csv` and `drift.csv`, what follows from it; with --perturbed
`tables/perturbed.csv` and `robustness.csv`; and `meta_evaluation.md`, the tables of the README. `--write-certificate`
puts the table into the package, from where every report takes it; `--add` keeps the package's rows of bases that are
not in --out, so that bases can be added one by one, on other machines too.

What is made, and what is true of it: `mechinterp.audit.certificate`; how it is measured:
`mechinterp.runs.calibration.settings`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError
from scripts import Given, mapping_of, script
from seeds_and_architectures import markdown

from mechinterp.audit.certificate import (
    CERTIFICATE,
    agreement,
    certificate,
    drift,
    places,
    read_certificate,
    separations,
    verdicts,
)
from mechinterp.audit.robustness import robustness
from mechinterp.cli.terminal import terminal
from mechinterp.data.storage.files import write_text
from mechinterp.data.storage.tables import write_table
from mechinterp.errors import InputError
from mechinterp.report.certificate import place_rows, robustness_rows, separation_rows, verdict_rows
from mechinterp.runs.calibration.running import meta_evaluate
from mechinterp.runs.calibration.settings import MetaSettings
from mechinterp.runs.config import StudyConfig, load_config
from mechinterp.runs.study import Study

CONFIG = Path(__file__).parent / "configs" / "meta-evaluation.yaml"
RUNS = ("6:0", "6:1", "6:2", "6:3", "12:0", "24:0")

HEADINGS = {
    "verdicts": (
        *("blocks", "instrument", "rule", "hidden, called hidden", "hidden, called gone"),
        *("gone, called gone", "gone, called hidden", "not decided: hidden, gone"),
    ),
    "places": (
        *("blocks", "checkpoint", "expected", "found so", "value share", "local erasure share", "defense"),
        "gone or hidden",
    ),
    "robustness": ("blocks", "measure", "alike: NF4, relearned", "robustness", "after NF4", "after relearning"),
    "separations": ("blocks", "measure", "gone against hidden", "gone against there", "gone, hidden, there"),
}


def study_of(config: StudyConfig, run: str, out: Path) -> Study:
    """The study of a depth and a seed, `6:0`."""
    blocks, colon, seed = run.partition(":")
    if not (colon and blocks.isdigit() and seed.isdigit()):
        raise InputError(f"--runs {run}: a run is DEPTH:SEED, two whole numbers: 6:0")
    organism = config.organism.model_copy(update={"n_layers": int(blocks)})
    folder = out / f"blocks{blocks}-seed{seed}"
    return Study(config.model_copy(update={"organism": organism}), int(seed), folder)


def settings_of(given: dict[str, Any]) -> MetaSettings:
    """What is made, and how it is measured.

    Raises:
        InputError: for a setting that is not known, or a value that it cannot have.
    """
    try:
        return MetaSettings.model_validate(given)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise InputError(f"--settings: `{where}`: {error.errors()[0]['msg']}") from error


def collected(out: Path, name: str = "certificate") -> pd.DataFrame:
    """The rows of all runs that have some; empty where none has."""
    found = [read_certificate(path) for path in sorted(out.glob(f"blocks*-seed*/tables/{name}.csv"))]
    if not found:
        return pd.DataFrame()
    return pd.concat(found, ignore_index=True).sort_values(["blocks", "seed"], kind="stable", ignore_index=True)


def with_package(table: pd.DataFrame) -> pd.DataFrame:
    """The rows, and those of the package's certificate that are of other bases."""
    packed = certificate()
    if packed is None:
        return table
    bases = ["blocks", "seed"]
    others = packed.merge(table[bases].drop_duplicates(), on=bases, how="left", indicator="_found")
    others = others[others.pop("_found") == "left_only"]
    return pd.concat([table, others], ignore_index=True).sort_values(bases, kind="stable", ignore_index=True)


def write_all(table: pd.DataFrame, perturbed: pd.DataFrame, out: Path) -> str:
    """The tables, what follows from them, and the README's tables as Markdown, which are returned."""
    write_table(out / "tables" / "certificate.csv", shorter(table))
    for make in (separations, verdicts, places, agreement, drift):
        write_table(out / f"{make.__name__}.csv", make(table))
    printed = {"verdicts": verdict_rows(table), "places": place_rows(table), "separations": separation_rows(table)}
    if len(perturbed):
        write_table(out / "tables" / "perturbed.csv", shorter(perturbed))
        held = robustness(perturbed, table)
        write_table(out / "robustness.csv", held)
        printed["robustness"] = robustness_rows(held)
    texts = [markdown(pd.DataFrame(list(rows), columns=list(HEADINGS[name]))) for name, rows in printed.items()]
    texts.append(markdown(drift(table)))
    write_text(out / "meta_evaluation.md", "\n".join(texts))
    return "\n".join(texts)


def shorter(table: pd.DataFrame) -> pd.DataFrame:
    """Numbers with six digits."""
    short = table.copy()
    for column in short.select_dtypes("float"):
        short[column] = [float(f"{value:.6g}") for value in short[column]]
    return short


@script
def main(given: Given) -> None:
    """Run what is missing, and collect."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/meta"))
    parser.add_argument("--config", type=Path, default=CONFIG, help="of the organism; its depth is set here")
    parser.add_argument("--runs", nargs="+", default=list(RUNS), metavar="DEPTH:SEED")
    parser.add_argument("--twins", type=int, default=1, help="further models that never learnt, of each run")
    parser.add_argument(
        "--settings",
        default="{}",
        metavar="MAPPING",
        help="what is made and how it is measured (`MetaSettings`), as '{kinds: [refusing], depth_prompts: 12}'",
    )
    parser.add_argument("--perturbed", action="store_true", help="measure again what is rounded, and what relearns")
    parser.add_argument("--collect", action="store_true", help="only collect from what is there")
    parser.add_argument("--add", action="store_true", help="the package's rows of other bases, too")
    parser.add_argument("--write-certificate", action="store_true", help="into the package")
    arguments = parser.parse_args(given)
    config = load_config(arguments.config)
    settings = settings_of(
        {"twins": arguments.twins, "perturbed": arguments.perturbed, **mapping_of(arguments.settings, "--settings")}
    )
    studies = [study_of(config, run, arguments.out) for run in arguments.runs]
    for study in () if arguments.collect else studies:
        with terminal() as shown:
            shown.note(str(study.folder))
            meta_evaluate(study, settings=settings, reporter=shown)
    table = collected(arguments.out)
    if table.empty:
        raise InputError(f"{arguments.out}: no run there has a checkpoint that was measured; leave --collect out")
    if arguments.add:
        table = with_package(table)
    sys.stdout.write(write_all(table, collected(arguments.out, "perturbed"), arguments.out))
    if arguments.write_certificate:
        packed = shorter(table.drop(columns=["missing", "sentence"]))
        packed.to_csv(CERTIFICATE, index=False)  # a file of the package, not of a run


if __name__ == "__main__":
    sys.exit(main())
