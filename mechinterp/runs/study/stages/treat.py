"""Stages `sft`, `dpo`, `dinm`, ...: what a method of the registry makes, a checkpoint or an edit for each instance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd
from pydantic import BaseModel

from mechinterp.data.storage.files import replacing, write_json
from mechinterp.methods.method import Method
from mechinterp.methods.task import Task, Treatment
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.progress import Reporter
from mechinterp.runs.study.checkpoints import checkpoint_of, edits_at
from mechinterp.runs.study.edited import edited_instances
from mechinterp.runs.study.instances import instances_of
from mechinterp.runs.study.rates import with_chosen_rate
from mechinterp.runs.study.run import Run
from mechinterp.runs.study.toxic_layer import block_of, blocks_of


def make(run: Run, reporter: Reporter, method: Method, settings: Mapping[str, BaseModel]) -> None:
    """Make what a method makes.

    Args:
        method: of the registry; it changes weights.
        settings: of the methods whose settings it reads, by name.
    """
    start = checkpoint_of(run, method.after or "vanilla")
    instances, blocks = [], dict[int, int]()
    if "instances" in method.takes:
        instances, blocks, block = edited_instances(run), blocks_of(run), block_of(run)
        # the one that stands for the method is edited where the others are compared with it
        instances.sort(key=lambda instance: blocks[instance.id] != block)
        blocks[instances[0].id] = block
    task = Task(
        instances=instances,
        blocks=blocks,
        training=instances_of(run, "train") if "training" in method.takes else (),
        settings=with_chosen_rate(run, settings),
        made={method.after: start} if method.after else {},
        seed=run.seed,
        progress=reporter.progress,
    )
    made = method.recipe.make(start, task)
    if method.per_instance:
        with replacing(run.folder / edits_at(method.name)) as partial_folder:
            partial_folder.mkdir()
            for treatment in made:
                assert treatment.delta is not None
                treatment.delta.save(partial_folder / str(treatment.delta.instance))
            write_json(partial_folder / "order.json", [instance.id for instance in instances])
    else:
        _save(run, start, method.name, made)


def _save(run: Run, start: Checkpoint, name: str, made: Iterable[Treatment]) -> None:
    """Save the one checkpoint that a method made, and its trainer's log where there is one."""
    (treatment,) = made
    tuned = treatment.checkpoint
    if tuned is None:
        assert treatment.delta is not None
        tuned = treatment.delta.merged(start, name=name)
    tuned.save(run.folder / "checkpoints" / name)
    if treatment.log:
        run.write_table(f"training_{name}", pd.DataFrame(treatment.log))
