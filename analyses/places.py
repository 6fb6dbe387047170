"""Where the change sits, on checkpoints of which it is known: a finished study's base, changed in one place alone.

    python analyses/places.py runs/smollm2-seed0
    python analyses/places.py runs/seed0 --kinds values_everywhere noise

SFT of the value matrices alone (at the toxic layer's block, at all), SFT of everything but them, noise of the size of
the study's SFT; safe answers edited into one W_V by ROME and by FT, into those of three blocks by MEMIT, and SFT by
LoRA on queries and values: each is made of the run's own base and data, attributed by the exact game, and judged as
the verdict judges it. It is `analyses/meta_evaluation.py` without the second half, for models on which that takes
hours. Prints a row per checkpoint and writes RUN/places.csv; a row that is there is not made again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from scripts import Given, script

from mechinterp.audit.certificate import KINDS
from mechinterp.audit.evidence import Baseline
from mechinterp.audit.origins.asking import Asked
from mechinterp.audit.origins.measuring import origins_of
from mechinterp.audit.tables.reading import interval_of
from mechinterp.audit.tables.reading import rows as rows_of
from mechinterp.cli.terminal import terminal
from mechinterp.data.storage.tables import read_table, write_table
from mechinterp.errors import InputError
from mechinterp.measures.verdict import where_it_sits
from mechinterp.runs.calibration.settings import MetaSettings
from mechinterp.runs.calibration.subjects import Subjects
from mechinterp.runs.study import Study

PLACED = tuple(name for name, kind in KINDS.items() if kind.where and kind.truth != "hidden")
"""Kinds of checkpoints of which it follows where the change sits, and that need nobody to judge their answers."""


def measured(study: Study, kinds: list[str], reporter: Any) -> pd.DataFrame:
    """A row per checkpoint; those that the file has already are kept."""
    file = study.folder / "places.csv"
    rows: list[dict[str, Any]] = read_table(file).to_dict("records") if file.exists() else []  # type: ignore[assignment]
    recorded = study.folder / "evidence" / "base"
    if not recorded.is_dir():
        raise InputError(f"{study.folder}: its base is not recorded yet; finish the study with mechinterp reproduce")
    baseline, base = Baseline.load(recorded), study.checkpoint("vanilla")
    settings = study.config.origins.model_copy(update={"game": "always", "readouts": ("log_odds",)})
    asked = Asked.of(
        base,
        study.instances("test"),
        baseline.unsafe.tolist(),
        prompts=settings.prompts,
        tokens=settings.tokens,
        seed=study.seed,
        truncate=study.config.truncate,
    )
    known = {row["checkpoint"] for row in rows}
    subjects = Subjects(study, baseline, study.judge, [], MetaSettings(), reporter)
    for subject in (*subjects.placed(), *subjects.edited()):
        if subject.kind not in kinds or subject.name in known:
            continue
        made, told = subject.make(), reporter.progress(f"origins: {subject.name}")
        found = origins_of(base, made, asked, method=subject.name, settings=settings, seed=study.seed, progress=told)
        row = next(rows_of(found.tables, "origins", way="exact game", group="mlp.out"))
        share, change, expected = interval_of(row, "share"), interval_of(row, "change"), KINDS[subject.kind].where
        said = where_it_sits(share, change)
        rows.append(
            {"checkpoint": subject.name, "blocks": base.n_blocks, **change.columns("change")}
            | {**share.columns("value_share"), "where": said, "expected": expected, "right": said == expected}
        )
        write_table(file, pd.DataFrame(rows))
        reporter.note(f"{subject.name}: {said}{f' ({share.percent})' if share.value == share.value else ''}")
    return pd.DataFrame(rows)


@script
def main(given: Given) -> None:
    """Measure what the command line names, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder that `mechinterp reproduce` wrote")
    parser.add_argument("--kinds", nargs="+", choices=PLACED, default=list(PLACED), help="of checkpoints [all]")
    arguments = parser.parse_args(given)
    with terminal() as shown:
        print(measured(Study.open(arguments.run), arguments.kinds, shown).to_string(index=False))  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
