"""A plan as text: tables on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mechinterp.errors import InputError
from mechinterp.runs.planning.plan import Plan, PlannedStage, make_plan
from mechinterp.runs.study import Study


def print_plan(study: Study, say: Callable[[str], None] = typer.echo) -> None:
    """Print the plan of a study, a line at a time.

    Raises:
        InputError: listing everything that keeps it from running.
    """
    plan = make_plan(study)
    show(plan, study.folder, say)
    if plan.problems:
        listed = "; ".join(f"({number}) {problem}" for number, problem in enumerate(plan.problems, 1))
        raise InputError(f"the study cannot run, {len(plan.problems)} to put right: {listed}")


def show(plan: Plan, folder: Path, say: Callable[[str], None] = typer.echo) -> None:
    """Print a plan on standard output.

    Args:
        plan: to print.
        folder: of the run.
        say: prints a line.
    """
    _show_table(
        say,
        f"The study in {folder}",
        ("stage", "state", "does", "makes", "time", "memory", "disk"),
        [_stage_row(stage) for stage in plan.stages],
    )
    if plan.requirements:
        _show_table(
            say, "It needs", ("what", "where", "state"), [(r.what, r.place, r.state) for r in plan.requirements]
        )
    for line in plan.assumptions:
        say(line)
    if plan.seconds is not None:
        say(f"what is still to be done takes about {_duration(plan.seconds)}")
    say("stages go by their markers here; the run itself hashes what they made")
    for warning in plan.warnings:
        say(f"warning: {warning}")


def _stage_row(stage: PlannedStage) -> tuple[str, ...]:
    cost = stage.cost
    time = "?" if cost is None or cost.seconds is None else _duration(cost.seconds)
    sizes = ("?", "?") if cost is None else (_size(cost.memory), _size(cost.disk))
    return stage.name, stage.state, stage.does, _briefly(stage.makes), time, *sizes


def _briefly(paths: Sequence[str]) -> str:
    """Files and folders, several of one folder counted."""
    by_folder: dict[str, list[str]] = {}
    for path in paths:
        by_folder.setdefault(path.rpartition("/")[0], []).append(path)
    return ", ".join(
        f"{folder}/ ({len(p)})" if folder and len(p) > 1 else ", ".join(p) for folder, p in by_folder.items()
    )


def _show_table(say: Callable[[str], None], title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on a terminal, a line for each row elsewhere."""
    if not Console().is_terminal:
        say(f"{title}: {' | '.join(headings)}")
        for row in rows:
            say(f"  {' | '.join(row)}")
        return
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for heading in headings:
        number = heading in ("time", "memory", "disk")
        table.add_column(heading, justify="right" if number else "left", overflow="fold", no_wrap=number)
    for row in rows:
        table.add_row(*map(escape, row))
    Console(highlight=False).print(table)


def _duration(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.1f} {unit}" if seconds < 10 * length else f"{seconds / length:.0f} {unit}"
    return f"{max(1, round(seconds))} s"


def _size(size: float) -> str:
    for unit, length in (("GiB", 2**30), ("MiB", 2**20)):
        if size >= length:
            return f"{size / length:.1f} {unit}"
    return f"{size / 2**10:.0f} KiB"
