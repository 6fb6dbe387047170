"""Edit, and edit back, on a finished study: what is left of the answers, of the weights and of what the MLPs write.

    python analyses/there_and_back.py runs/seed0 --out runs/there_and_back

Every instance that the study edits is edited to its safe answer and then to what the base says itself, by DINM as the
study makes it, by FT-M and by ROME at the last prompt token. Beside it stand two controls, of the same first edits: the
way back of another instance (`swapped`), and edits that change nothing (`never made`). Writes into --out
`there_and_back.csv`, rows of the table `round_trip` with the run and the way back, and `there_and_back.md`: medians
over the instances, since shares of next to no change have no mean, and of the divergence the means divided.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from scripts import Given, script, tell
from tables import pipes

from mechinterp.answers.rounds_of_pairs import rounds_of_pairs
from mechinterp.audit.round_trips import round_trips
from mechinterp.cli.terminal import terminal
from mechinterp.data.facts.conflicts import Round
from mechinterp.data.facts.queries import Change
from mechinterp.data.storage.tables import write_table
from mechinterp.methods.editors import Editor, editor_of
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import WeightDelta
from mechinterp.models.progress import Reporter
from mechinterp.runs.study import Study

METHODS = ("dinm", "ft_m", "rome")
WAYS = ("back", "swapped", "never made")
WORDS = ("undone", "covered up", "not undone")
MEDIANS = ("true_before", "true_away", "true_back", "weights_left", "write_left", "erasure_left")
TEXTS = ("kind", "prompt", "true", "new")
HARMLESS = 10
"""Prompts that are asked beside those of the instances."""


def there_and(way: str, editor: Editor, rounds: Sequence[Round]) -> Editor:
    """An editor that goes there as the given one does, and comes back in one of `WAYS`.

    Args:
        rounds: of pairs; the way back of each is that of the next one where they are swapped.
    """
    backs = [one.back[0] for one in rounds]
    other: Mapping[Any, Change] = dict(zip((_key(back) for back in backs), [*backs[1:], *backs[:1]], strict=True))
    made: dict[Any, WeightDelta] = {}

    def make(current: Checkpoint, changes: Sequence[Change]) -> WeightDelta:
        key = _key(changes[0])
        if way == "swapped" and key in other:
            return editor.make(current, [other[key]])
        if key not in made:
            made[key] = editor.make(current, changes)
        if way == "never made":
            nothing = {name: torch.zeros_like(change) for name, change in made[key].tensors.items()}
            return replace(made[key], tensors=nothing, factors={}, fingerprint=current.fingerprint)
        return made[key]

    return Editor(editor.name, make, editor.suffix)


def _key(change: Any) -> tuple[int, str]:
    return change.id, change.safe


def measured(study: Study, method: str, limit: int | None, reporter: Reporter) -> Iterator[dict[str, Any]]:
    """Rows of the table: of each way back what is left of each instance's edit, place by place."""
    base, pairs = study.checkpoint("vanilla"), study.edit_instances()[:limit]
    settings: Any = {"dinm": study.config.dinm, "rome": {"fact_token": "last"}}.get(method)
    editor = editor_of(method, base, settings=settings, blocks=study.blocks, seed=study.seed)
    asked: dict[str, Any] = {"suffix": editor.suffix, "truncate": study.config.truncate}
    asked |= {"max_new_tokens": study.config.max_new_tokens, "seed": study.seed}
    rounds = rounds_of_pairs(base, pairs, benign=[one.prompt for one in study.benign[:HARMLESS]], **asked)
    for way in WAYS:
        reporter.note(f"{study.folder}: {method}, {way}")
        trips = round_trips(base, rounds, there_and(way, editor, rounds), truncate=study.config.truncate)
        for number, found in enumerate(trips, 1):
            for row in found.rows(method, number):
                yield {"run": str(study.folder), "way": way, **{k: v for k, v in row.items() if k not in TEXTS}}


def in_words(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each method, way back and place, over the runs."""
    rows = []
    for (method, way, place), part in table.groupby(["method", "way", "on"], sort=False):
        row = {"method": method, "way back": way, "asked at": place, "n": str(len(part))}
        row |= {name: _told(part[name].median()) for name in MEDIANS}
        row["jsd_away (bits)"] = f"{part['jsd_away'].mean():.2g}"
        row["jsd_left"] = _told(part["jsd"].mean() / part["jsd_away"].mean() if part["jsd_away"].any() else math.nan)
        row["ir"] = _told(part["ir"].mean())
        counts = [int((part["undone"] == word).sum()) for word in WORDS]
        rows.append(row | {"undone, covered up, not": ", ".join(map(str, counts)) if any(counts) else "–"})
    return pd.DataFrame(rows)


def _told(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:z.2f}"


@script
def main(given: Given) -> None:
    """Edit, edit back, and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder that `mechinterp reproduce` wrote")
    parser.add_argument("--method", action="append", choices=METHODS, help="one of them alone; repeatable")
    parser.add_argument("--limit", type=int, help="only the first N of the edited instances")
    parser.add_argument("--out", type=Path, default=Path("runs/there_and_back"))
    arguments = parser.parse_args(given)
    logging.getLogger("mechinterp.models").setLevel(logging.ERROR)  # that an edit changes nothing is what is wanted
    with terminal() as shown:
        rows = [
            row
            for run in arguments.runs
            for method in arguments.method or METHODS
            for row in measured(Study.open(run), method, arguments.limit, shown)
        ]
    table = pd.DataFrame(rows)
    write_table(arguments.out / "there_and_back.csv", table)
    tell(arguments.out / "there_and_back.md", "Edit, and edit back", pipes(in_words(table)))


if __name__ == "__main__":
    sys.exit(main())
