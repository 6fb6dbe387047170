"""DINM as a way to detoxify, what is left of it when one part is taken away (Wang et al. 2024, Table 2), and variants.

    dinm                  every instance's edit at its toxic layer, evaluated with the suffix S after every query
    dinm_wo_suffix        trained and evaluated without S (wo/SyPrompt)
    dinm_wo_constraint    without L_c (wo/Constraint)
    dinm_wo_location      at a block drawn at random for every instance (wo/Location)
    dinm_at_block         every edit at one given block (Table 13)
    dinm_batch            one edit for all instances together, dinm_sequential: one edit on top of the other (future
                          work in the paper); both are evaluated on all of them once the last is in

What is left without any tuning (wo/Tune) is in `methods.unchanged`.

All take the settings of `dinm`; an ablation differs from it in exactly one thing. What an ablation loses is what a part
is worth beside all others, not what it is worth alone.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from mechinterp.data.counting import many
from mechinterp.errors import InputError
from mechinterp.methods.editing.dinm import DinmSettings, FailedEdit, edit_batch
from mechinterp.methods.editing.many_edits import edit_each, edit_sequentially
from mechinterp.methods.method import Recipe
from mechinterp.methods.task import NoSettings, Task, Treatment, Way
from mechinterp.methods.work import Texts, Work
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import WeightDelta
from mechinterp.models.passes.upper_blocks import Component

ABOVE = 0.25
"""Share of the blocks above an edited one: Wang et al. find the toxic layer among the last four of 32."""


class AtBlockSettings(BaseModel):
    """Settings of an edit at one block, beside those of `dinm`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    block: int = Field(ge=0, description="the block that is edited, from 0")


def dinm(checkpoint: Checkpoint, task: Task) -> Iterator[Treatment]:
    """The edit of every instance at its toxic layer."""
    return edited_each("dinm", checkpoint, task, _dinm_settings(task), task.blocks)


def dinm_wo_suffix(checkpoint: Checkpoint, task: Task) -> Iterator[Treatment]:
    """DINM trained and evaluated without the suffix."""
    settings = _dinm_settings(task)
    _check_present(settings.suffix, "dinm_wo_suffix", "suffix")
    return edited_each("dinm_wo_suffix", checkpoint, task, settings.model_copy(update={"suffix": None}), task.blocks)


def dinm_wo_constraint(checkpoint: Checkpoint, task: Task) -> Iterator[Treatment]:
    """DINM without L_c. With `constraint="released"`, whose L_c has no gradient, only the stop test changes."""
    settings = _dinm_settings(task)
    _check_present(settings.use_constraint, "dinm_wo_constraint", "constraint")
    without = settings.model_copy(update={"use_constraint": False})
    return edited_each("dinm_wo_constraint", checkpoint, task, without, task.blocks)


def dinm_wo_location(checkpoint: Checkpoint, task: Task) -> Iterator[Treatment]:
    """DINM at a block drawn for every instance, all blocks being as likely (its toxic layer too).

    The paper's row for Mistral-7B-v0.1 is one draw for all instances, its block 0: see `dinm_at_block`. The draw of an
    instance depends on the seed and its id alone, and is written in the edit's settings.
    """
    blocks = drawn_blocks(task, checkpoint.n_blocks)
    drawn = {"location": {"drawn_from": checkpoint.n_blocks, "seed": task.seed}}
    return edited_each("dinm_wo_location", checkpoint, task, _dinm_settings(task), blocks, also_noted=drawn)


def dinm_at_block(checkpoint: Checkpoint, task: Task) -> Iterator[Treatment]:
    """The edit of every instance at one given block."""
    block = checkpoint.names.check_block(task.settings_of("dinm_at_block", AtBlockSettings).block)
    blocks = {instance.id: block for instance in task.instances}
    return edited_each("dinm_at_block", checkpoint, task, _dinm_settings(task), blocks)


def dinm_batch(checkpoint: Checkpoint, task: Task) -> Iterator[Treatment]:
    """One edit for all instances, on the mean of their losses, at the block that is toxic for most of them."""
    settings = _dinm_settings(task)
    blocks = _toxic_blocks("dinm_batch", task)
    counts = Counter(blocks.values())
    block = min(counts, key=lambda b: (-counts[b], b))  # the earliest of equals, as `toxic_layer.toxic_block`
    task.note(f"dinm_batch: one edit of {many(len(task.instances), 'instance')} at block {block}")
    delta = edit_batch(checkpoint, task.instances, block=block, settings=settings)
    yield Treatment("dinm_batch", tuple(task.instances), delta=delta, suffix=settings.suffix)


def dinm_sequential(checkpoint: Checkpoint, task: Task) -> Iterator[Treatment]:
    """Every instance's edit at its toxic layer on top of those before it; the sum of them all, for all instances.

    Where the task has a folder for it, the sum is kept after every edit, and a run that was killed goes on from it.
    """
    settings = _dinm_settings(task)
    blocks = _toxic_blocks("dinm_sequential", task)
    kept = None if task.kept is None else task.kept / "so_far"
    start = WeightDelta.load(kept) if kept is not None and (kept / "edit.json").is_file() else None
    delta, first = start, 1 if start is None else len(start.instances) + 1
    edits = edit_sequentially(checkpoint, task.instances, blocks=blocks, settings=settings, start=start)
    for done, delta in enumerate(edits, first):
        task.note(f"dinm_sequential: instance {delta.instances[-1]} ({done} of {len(task.instances)})")
        if kept is not None:
            delta.save(kept)
    yield Treatment("dinm_sequential", tuple(task.instances), delta=delta, suffix=settings.suffix)


def drawn_blocks(task: Task, n_blocks: int) -> dict[int, int]:
    """A block for every instance, uniform over all blocks, from the task's seed and the instance's id."""
    return {i.id: random.Random(f"{task.seed}, {i.id}").randrange(n_blocks) for i in task.instances}


def edited_each(
    method: str,
    checkpoint: Checkpoint,
    task: Task,
    settings: DinmSettings,
    blocks: Mapping[int, int],
    *,
    component: Component = "mlp.out",
    also_noted: Mapping[str, Any] | None = None,
) -> Iterator[Treatment]:
    """A treatment per instance, its edit, to be evaluated with the suffix that it was trained with.

    Args:
        blocks: block of every instance, by its id.
        also_noted: goes into the edits' settings.

    Yields:
        As `editing.edit_each`: in the order in which edits come, under several processes each its share.

    Raises:
        InputError: for an edit that came to nothing, with its instance and step, and as `editing.edit_each`.
    """
    _check_instances(method, task)
    instances = {instance.id: instance for instance in task.instances}
    progress = task.progress(f"{method}: edits")
    edits = edit_each(
        checkpoint, task.instances, blocks=blocks, settings=settings, component=component, progress=progress
    )
    for found in edits:
        if isinstance(found, FailedEdit):
            raise InputError(f"{method}: {found}")
        delta = replace(found, settings={**found.settings, **(also_noted or {})})
        yield Treatment(method, (instances[delta.instance],), delta=delta, suffix=settings.suffix)


def _dinm_settings(task: Task) -> DinmSettings:
    return task.settings_of("dinm", DinmSettings)


def _check_present(part: object, method: str, name: str) -> None:
    """Raise `InputError` where an ablation would be the same as what it is set against."""
    if not part:
        raise InputError(f"{method}: dinm's settings have no {name} to take away; give one or leave the method out")


def _check_instances(method: str, task: Task) -> None:
    if not task.instances:
        raise InputError(f"{method}: there are no instances to edit")


def _toxic_blocks(method: str, task: Task) -> dict[int, int]:
    """The toxic layers of the task's own instances."""
    _check_instances(method, task)
    if missing := [instance.id for instance in task.instances if instance.id not in task.blocks]:
        raise InputError(f"{method}: no block is given for the instances {missing[:5]}; locate them first")
    return {instance.id: task.blocks[instance.id] for instance in task.instances}


def _work(settings: DinmSettings, texts: Texts) -> Work:
    """An edit reads its texts through the model once, and at every step through the blocks above the edited one."""
    target = min(texts.prompt, settings.max_input_tokens) + min(texts.safe, settings.max_output_tokens)
    return Work(
        f"{texts.edited:,} edits of up to {many(settings.steps, 'step')}",
        tokens=texts.edited * target * (1 + 3 * ABOVE * settings.steps),
        held=settings.max_input_tokens + settings.max_output_tokens,
        held_share=ABOVE,
        values_kept=texts.edited,
    )


def _recipe(make: Way, settings: type[BaseModel] = NoSettings) -> Recipe:
    return Recipe(make, settings, shares=("dinm",))


DINM = Recipe(dinm, DinmSettings, work=_work)
WITHOUT_SUFFIX, WITHOUT_CONSTRAINT = _recipe(dinm_wo_suffix), _recipe(dinm_wo_constraint)
WITHOUT_LOCATION, AT_BLOCK = _recipe(dinm_wo_location), _recipe(dinm_at_block, AtBlockSettings)
BATCH, SEQUENTIAL = _recipe(dinm_batch), _recipe(dinm_sequential)
