"""The plan of a study: its stages, the files it needs, the memory, disk and time it expects, and what is missing.

No weight is loaded, nothing written and the network not used. A stage counts as up to date by its marker; one that
reads what an earlier one will make anew is taken to change. What refuses a study is certain; an expected memory above
what is free only warns, because it is an order of magnitude.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mechinterp.errors import InputError
from mechinterp.methods.work import Work
from mechinterp.models.devices import resolve_device
from mechinterp.models.progress import Silent
from mechinterp.runs.planning.machine import Machine, cost
from mechinterp.runs.planning.materials import Materials
from mechinterp.runs.planning.shape import Shape
from mechinterp.runs.planning.texts import texts_of, too_long
from mechinterp.runs.planning.works import works
from mechinterp.runs.stages import Runner, Stage
from mechinterp.runs.study import Study
from mechinterp.runs.study.made import methods_of

GIB = 2**30
TIMES = {"d": 86400, "h": 3600, "min": 60, "s": 1}
SIZES = {"GiB": GIB, "MiB": 2**20, "KiB": 2**10}


@dataclass(frozen=True)
class Plan:
    """What a study would do, need and cost.

    Attributes:
        stages: a row each: stage, state, does, seconds, bytes of memory and disk (NaN where not known).
        found: what it needs, where that is, and what is there.
        notes: what the estimates stand on, and warnings.
        problems: everything that keeps the study from running; empty if it can run.
    """

    stages: pd.DataFrame
    found: tuple[tuple[str, str, str], ...]
    notes: tuple[str, ...]
    problems: tuple[str, ...]

    def show(self, say: Callable[[str], None]) -> None:
        """Print all but the problems; `say` prints a line."""
        _show_table(
            say,
            "stage state does time memory disk",
            [
                (*said, _of(seconds, TIMES), _of(memory, SIZES), _of(disk, SIZES))
                for *said, seconds, memory, disk in self.stages.itertuples(index=False)
            ],
        )
        _show_table(say, "needs where state", self.found)
        for line in self.notes:
            say(line)


def missing(study: Study) -> tuple[str, ...]:
    """Everything that keeps a study from running, within seconds; a finished run, by its markers, needs nothing."""
    if all(_done(study, stage) for stage in study.stages(Silent())):
        return ()
    return tuple(_problems(study, Materials.of(study.config)))


def make_plan(study: Study) -> Plan:
    """Plan a study, whose folder need not be there."""
    config, runner = study.config, Runner(study.folder)
    materials = Materials.of(config, seed=study.seed)
    texts, shape, machine = texts_of(materials, config), None, None
    try:
        if materials.skeleton is not None:
            shape = Shape.of(materials.skeleton, config.dtype)
            machine = Machine.measure(resolve_device(config.device), shape.dtype, config.device_map is not None)
    except InputError:  # no such device, or no value matrix: among the problems
        pass
    does, rows = works(config, methods_of(study), texts, shape), []
    for stage in study.stages(Silent()):
        work = does.get(stage.name, Work(stage.name))
        again = "to be done again" if _done(study, stage) else "to be done"
        state = "up to date" if runner.foresee(stage) else again
        rows.append((stage.name, state, work.does, *cost(work, shape, machine, texts.prompt)))
    stages = pd.DataFrame(rows, columns=["stage", "state", "does", "seconds", "memory", "disk"])
    needed = stages[stages["state"] != "up to date"]
    lengths = (f"{kind} {getattr(texts, kind):.0f}" for kind in ("prompt", "safe", "unsafe", "comment"))
    notes = [f"tokens on average: {', '.join(lengths)}"]
    if not all((materials.train, materials.validation, materials.test, materials.comments)):
        notes[0] += "; published sizes stand for files that are not here, the longest allowed for their texts"
    problems, disk, free = _problems(study, materials), needed["disk"].sum() / GIB, free_disk(study.folder) / GIB
    if disk > free:
        problems.append(
            f"disk: checkpoints, edits and recordings take {disk:.1f} GiB, {study.folder} has {free:.1f} GiB free; "
            "choose another folder or fewer `edit_instances`"
        )
    if shape is not None:
        weights, dtype = f"{shape.weights / GIB:.2f} GiB", str(shape.dtype).removeprefix("torch.")
        notes.append(f"model: {shape.parameters:,} parameters, {weights} in {dtype}, {shape.n_blocks} blocks")
    if shape is not None and machine is not None:
        there, tight = f"{machine.memory / GIB:.1f} GiB of {machine.device}", needed[needed["memory"] > machine.memory]
        notes.append(f"{there}; {machine.speed / 1e12:.2f} Tflop/s measured now; times are orders of magnitude")
        if len(needed) and shape.weights > machine.memory:
            problems.append(
                f"memory: the weights alone take {weights}, more than the {there}; choose a narrower `dtype`, a larger "
                "device or `device_map: auto`"
            )
        elif len(tight):
            notes.append(
                f"warning: {', '.join(tight['stage'])} may not fit into the {there}; smaller batches, `lora`, `extra: "
                "{gradient_checkpointing: true}`, a narrower `dtype` or `device_map: auto` help"
            )
    if (left := needed["seconds"].sum(skipna=False)) > 0:  # NaN is not
        notes.append(f"what is still to be done takes about {_of(left, TIMES)}")
    return Plan(stages, tuple(materials.found), tuple(notes), tuple(problems))


def _done(study: Study, stage: Stage) -> bool:
    return (study.folder / "stages" / f"{stage.name}.json").is_file()


def _problems(study: Study, materials: Materials) -> list[str]:
    found = [*materials.problems, *too_long(materials, study.config, methods_of(study))]
    try:
        resolve_device(study.config.device)
    except InputError as error:
        found.append(str(error))
    return found


def free_disk(folder: Path) -> int:
    """Free bytes where a folder is or would be."""
    return shutil.disk_usage(next(path for path in (folder, *folder.absolute().parents) if path.exists())).free


def _of(amount: float, units: dict[str, int]) -> str:
    """In the largest of the units that it fills, with two digits that count; `?` for NaN."""
    unit, size = next((one for one in units.items() if amount >= one[1]), list(units.items())[-1])
    return f"{float(f'{amount / size:.2g}'):g} {unit}" if amount == amount else "?"


def _show_table(say: Callable[[str], None], headings: str, rows: Sequence[Sequence[str]]) -> None:
    """A table, in a file or pipe so wide that a row is mostly a line."""
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    table = Table(box=None, pad_edge=False)
    for heading in headings.split():
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    with console.capture() as captured:
        console.print(table)
    say("\n".join(line.rstrip() for line in captured.get().splitlines()))
