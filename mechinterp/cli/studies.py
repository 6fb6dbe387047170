"""The whole study in one command, its plan, and the organism alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mechinterp.cli.common import refuse, reporting, say
from mechinterp.cli.deciding import say_what_a_study_lacks
from mechinterp.cli.options import Seed
from mechinterp.errors import InputError

commands = typer.Typer()


@commands.command()
def reproduce(
    config: Annotated[Path | None, typer.Option(help="YAML of a study; the embedded organism if not given.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder; runs/seedN, or runs/CONFIG-seedN, if not given.")
    ] = None,
    seed: Seed = 0,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print the plan, the files, memory and time it takes, and what is missing."),
    ] = False,
) -> None:
    """Every stage of the study, resumable: checkpoints, tables, figures, report."""
    from mechinterp.runs.config import default_folder, default_study, load_config
    from mechinterp.runs.folder import RunFolder
    from mechinterp.runs.planning.plan import make_plan, missing
    from mechinterp.runs.study import Study

    settings = default_study() if config is None else load_config(config)
    study = Study(settings, seed, out or default_folder(config, seed))
    with reporting(goes_on=True) as terminal:
        if dry_run:
            plan = make_plan(study)
        elif problems := missing(study):
            refuse(problems)
        else:
            report = study.run(terminal)
    if dry_run:
        plan.show(say)
        refuse(plan.problems)
    else:
        found = RunFolder(study.folder)
        say(found)
        if found.methods:
            say_what_a_study_lacks(found.verdict, settings)
        say(f"report: {report}")


@commands.command()
def organism(
    out: Annotated[Path, typer.Option(help="Folder for the model and its data.")],
    config: Annotated[Path | None, typer.Option(help="YAML of a study; its corpus and organism are used.")] = None,
    seed: Seed = 0,
) -> None:
    """The embedded model and its data, without the rest of the study."""
    from mechinterp.runs.config import default_study, load_config
    from mechinterp.runs.study import Study

    settings = default_study() if config is None else load_config(config)
    if settings.model is not None:
        raise InputError(f"{config}: names a model of its own; there is no organism to train")
    with reporting(goes_on=True) as terminal:
        Study(settings, seed, out).run(terminal, until="organism")
    say(f"model: {out / 'checkpoints' / 'vanilla'}\ndata: {out / 'data'}")
