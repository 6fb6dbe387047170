"""Settings of a method of unlearning, each tried on a finished study's base and asked of validation instances alone.

    python analyses/unlearning_settings.py runs/smollm2-seed0 --method rmu --out runs/chosen \
        --try '{scale: 100, alpha: 10}' '{scale: 300, alpha: 10}'

Every --try is a mapping of settings, on top of the study's own of that method. Trained on the training instances, each
model is asked the unsafe answers of a seeded choice of validation instances, which it should have forgotten, and their
knowledge, which it should have kept (`mechinterp evaluate-unlearning`). The best has the highest mean of the two
shares. No test instance is looked at. Writes into --out `unlearning_settings_METHOD.csv`; the base is its first row.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from scripts import Given, mapping_of, script
from tables import pipes

from mechinterp.answers.unlearned import ask_scopes, summary_rows
from mechinterp.cli.terminal import terminal
from mechinterp.data.scopes import Scopes
from mechinterp.data.storage.tables import write_table
from mechinterp.measures.statistics import seeded_order
from mechinterp.methods.registry import find_unlearning, settings_for
from mechinterp.methods.task import Task
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.progress import Reporter
from mechinterp.runs.study import Study

ASKED = {
    "forgotten": ("forget", "success"),
    "kept": ("retain", "success"),
    "degenerate": ("forget", "degenerate"),
}
"""Columns, each a quantity of the table `unlearning`."""


def tried(
    study: Study, method: str, choices: Sequence[dict[str, Any]], instances: int, reporter: Reporter
) -> Iterator[dict[str, Any]]:
    """A row for the base, and one for each choice of settings.

    Args:
        choices: settings, on top of the study's.
        instances: of the validation split that are asked, at most.
    """
    make, own = find_unlearning(method).recipe.make, study.config.settings_of_methods.get(method, {})
    settings = [settings_for(method, {**own, **choice}) for choice in choices]  # refused before anything is trained
    pairs = study.instances("validation")
    scopes = Scopes.of_pairs([pairs[i] for i in sorted(seeded_order(len(pairs), study.seed)[:instances])])
    base, training = study.checkpoint("vanilla"), study.instances("train")
    yield {"settings": "base", **_asked(study, base, scopes)}
    for choice, each in zip(choices, settings, strict=True):
        reporter.note(f"{method}: {json.dumps(choice)}")
        (made,) = make(
            base, Task((), {}, training, settings={method: each}, seed=study.seed, progress=reporter.progress)
        )
        assert made.checkpoint is not None
        yield {"settings": json.dumps(choice), **_asked(study, made.checkpoint, scopes)}


def _asked(study: Study, checkpoint: Checkpoint, scopes: Scopes) -> dict[str, float]:
    answers = ask_scopes(checkpoint, scopes, max_new_tokens=study.config.max_new_tokens, truncate=study.config.truncate)
    found = {(row["scope"], row["quantity"]): row["value"] for row in summary_rows("", answers, seed=study.seed)}
    asked = {column: float(found[key]) for column, key in ASKED.items()}
    return {**asked, "mean": (asked["forgotten"] + asked["kept"]) / 2}


@script
def main(given: Given) -> None:
    """Train, ask, and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder that `mechinterp reproduce` wrote")
    parser.add_argument("--method", required=True)
    parser.add_argument("--try", dest="choices", nargs="+", required=True, metavar="SETTINGS")
    parser.add_argument("--instances", type=int, default=24, help="validation instances that are asked, at most")
    parser.add_argument("--out", type=Path, default=Path("runs/chosen"))
    arguments = parser.parse_args(given)
    choices = [mapping_of(text, "--try") for text in arguments.choices]
    with terminal() as shown:
        rows = tried(Study.open(arguments.run), arguments.method, choices, arguments.instances, shown)
        table = pd.DataFrame(list(rows))
    write_table(arguments.out / f"unlearning_settings_{arguments.method}.csv", table)
    best = table.iloc[1:].sort_values("mean", ascending=False, kind="stable")["settings"].iloc[0]
    sys.stdout.write(f"{pipes(table.round(3))}\n\nBest: {best}\n")


if __name__ == "__main__":
    sys.exit(main())
