"""Every method side by side, over any studies with attacks and a twin that never learnt: one table and one figure.

    python analyses/all_methods.py runs/methods/seed0 runs/methods/seed1 runs/methods/seed2 --out runs/methods
    python analyses/all_methods.py runs/nine/* --methods sft dpo grad_diff npo --out runs/nine_methods

Asks each checkpoint what a study does not ask: the unsafe answers that should be forgotten, knowledge and harmless
answers that should be kept, as `mechinterp evaluate-unlearning` does (`tables/unlearning.csv` of each run; what is
there is not asked again without --again). All else is read from the runs' tables, and the verdict follows from them
anew. Runs of several architectures have rows, and a panel, of each. Writes into --out `tables/all_methods.csv`,
`all_methods.md` and `figures/all_methods.png` and `.pdf`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from scripts import Given, script
from tables import pipes

from mechinterp.answers.unlearned import ask_scopes, summary_rows
from mechinterp.audit.all_methods import BASE, NEVER, all_methods, in_words
from mechinterp.audit.tables.verdicts import with_verdict
from mechinterp.cli.terminal import terminal
from mechinterp.data.pairs import knowledge_of
from mechinterp.data.scopes import Scopes
from mechinterp.data.storage.files import write_text
from mechinterp.data.storage.saved_tables import SavedTables
from mechinterp.data.storage.tables import write_table
from mechinterp.errors import InputError
from mechinterp.models.progress import Reporter
from mechinterp.report.plates import draw_figure, save_figure
from mechinterp.report.plotting import method_label
from mechinterp.runs.study import Study


def scopes_of(study: Study) -> Scopes:
    """The unsafe answers of the evaluated test instances; of the same their knowledge, and harmless prompts."""
    pairs = study.edit_instances()
    known = [(each.prompt, each.answer) for pair in pairs if (each := knowledge_of(pair)) is not None]
    harmless = [(one.prompt, one.answer) for one in study.benign if one.answer]
    kept = dict.fromkeys([*known, *harmless])
    return Scopes(tuple((pair.prompt, pair.unsafe) for pair in pairs), tuple(kept))


def ask(study: Study, reporter: Reporter) -> pd.DataFrame:
    """The table `unlearning` of a study's checkpoints, its base and the model that never learnt."""
    scopes, rows = scopes_of(study), []
    for name in (BASE, *([NEVER] if study.config.has_never else []), *study.config.studied):
        reporter.note(f"{study.folder}: asking {name}")
        with study.opened(name) as checkpoint:
            answers = ask_scopes(
                checkpoint, scopes, max_new_tokens=study.config.max_new_tokens, truncate=study.config.truncate
            )
            rows += summary_rows(name, answers, seed=study.seed)
    return pd.DataFrame(rows)


def architecture_of(study: Study) -> str:
    """Of the organism; of a study of another model the model's name."""
    config = study.config
    named = config.teach.base if config.teach is not None else config.model
    return config.organism.architecture if named is None else Path(named.removeprefix("package:")).name


def write_all(table: pd.DataFrame, runs: Sequence[Path], out: Path) -> str:
    """The table, its page, which is returned, and its figure."""
    write_table(out / "tables" / "all_methods.csv", table)
    save_figure(draw_figure("all_methods", {"all_methods": table}), out / "figures", "all_methods")
    shown = in_words(table)
    names = {BASE: "base", NEVER: "never learnt"}
    shown["method"] = [names.get(name) or method_label(name) for name in table["method"]]
    told = f"Over {', '.join(map(str, runs))}: means, and the widest reach of the runs' own 95% intervals."
    page = "\n\n".join(["# Every method side by side", told, pipes(shown), ""])
    write_text(out / "all_methods.md", page)
    return page


@script
def main(given: Given) -> None:
    """Ask what is missing, and collect."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder that `mechinterp reproduce` wrote")
    parser.add_argument("--out", type=Path, default=Path("runs/methods"))
    parser.add_argument("--methods", nargs="+", default=[], metavar="METHOD", help="these alone; all, if not given")
    parser.add_argument("--again", action="store_true", help="ask, whether or not it was asked before")
    arguments = parser.parse_args(given)
    found: dict[str, list[dict[str, pd.DataFrame]]] = {}
    with terminal() as shown:
        for study in map(Study.open, arguments.runs):
            if not study.place_of("verdict").is_file():
                raise InputError(f"{study.folder}: its study has not come to its end; run it first")
            if arguments.again or not study.place_of("unlearning").is_file():
                study.write_table("unlearning", ask(study, shown))
            found.setdefault(architecture_of(study), []).append(with_verdict(SavedTables(study.folder)))
    table = all_methods(found, arguments.methods)
    sys.stdout.write(write_all(table, arguments.runs, arguments.out))


if __name__ == "__main__":
    sys.exit(main())
