"""Edits of many instances: each on the unedited model, one on top of the other, or kept in a folder as they come.

    each          every instance's edit for itself, many side by side (the paper's protocol)
    sequential    every edit on the model that the edits before it left; what it yields is the sum so far
    batch         one edit for all instances, see `dinm.edit_batch`

The last two are the paper's future work.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd

from mechinterp.data.pairs import AnyPair
from mechinterp.errors import InputError
from mechinterp.methods.editing.dinm import DinmSettings, FailedEdit, checked, edit_together
from mechinterp.methods.editing.keys import edit_key, joint_key
from mechinterp.methods.editing.memory import allowed, bytes_of_edit
from mechinterp.methods.editing.texts import say_of_texts
from mechinterp.models import processes
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import EditStep, WeightDelta, edit_folders, kept_labels
from mechinterp.models.passes.upper_blocks import Component
from mechinterp.models.passes.watching import Progress
from mechinterp.models.text.batches import length_batches


def edit_each(
    checkpoint: Checkpoint,
    instances: Sequence[AnyPair],
    *,
    blocks: Mapping[int, int | Sequence[int]],
    settings: DinmSettings | None = None,
    component: Component = "mlp.out",
    together: int | None = None,
    progress: Progress | None = None,
) -> Iterator[WeightDelta | FailedEdit]:
    """The edit of every instance for itself; the model is left as it was.

    Instances with the same block and texts of similar length are edited side by side.

    Args:
        checkpoint: the model to edit.
        instances: see `dinm.edit`.
        blocks: the block, or blocks, of every instance, by its id.
        settings: see `DinmSettings`.
        component: what is trained there: W_V, or the whole MLP.
        together: the most that are edited side by side; by default as many as memory allows.
        progress: called with (edits done, edits in all) of this process's share.

    Yields:
        An edit per instance, or a `FailedEdit`, as they come: not in the order of the instances. Under several
        processes each yields its share.

    Raises:
        InputError: for an instance without a block, and as `dinm.edit`, but for losses.
    """
    settings = settings or DinmSettings()
    if together is not None and together < 1:
        raise InputError(f"together must be at least 1, got {together}")
    if missing := [instance.id for instance in instances if instance.id not in blocks]:
        raise InputError(f"no block is given for the instances {missing[:5]}; locate them first")
    say_of_texts(checkpoint, instances, settings)
    groups = _groups(checkpoint, instances, blocks, settings, component, together)
    own, done = processes.share(groups), 0
    total = sum(len(group) for group in own)
    for group in own:
        block = blocks[group[0].id]
        yield from edit_together(checkpoint, group, block=block, settings=settings, component=component)
        done += len(group)
        if progress is not None:
            progress(done, total)


def edit_sequentially(
    checkpoint: Checkpoint,
    instances: Sequence[AnyPair],
    *,
    blocks: Mapping[int, int | Sequence[int]],
    settings: DinmSettings | None = None,
    start: WeightDelta | None = None,
    progress: Progress | None = None,
) -> Iterator[WeightDelta]:
    """Edit after edit, each on the model that the ones before it left; the model itself is left as it was.

    L_c keeps each edit near the model it starts from, as when the released code is run once after the other.

    Args:
        checkpoint, instances, blocks, settings: as in `edit_each`.
        start: what was yielded last by an earlier call on the same instances: it goes on from there.
        progress: called with (edits done, edits in all).

    Yields:
        After every instance the sum of the changes so far, with the log of its own edit.

    Raises:
        InputError: as `dinm.edit`; edits yielded before stay valid. Also if `start` is not what these settings make of
            the first instances.
    """
    settings = settings or DinmSettings()
    say_of_texts(checkpoint, instances, settings)
    first = 0 if start is None else len(start.instances)
    keys = [edit_key(checkpoint, i, blocks[i.id], settings, "mlp.out") for i in instances[:first]]
    if start is not None:
        _check_start(start, instances[:first], joint_key("sequential", keys))
    own: dict[str, Any] = {"fingerprint": checkpoint.fingerprint, "tokenizer": checkpoint.tokenizer_fingerprint}
    so_far = start or WeightDelta({}, block=0, instance=0, **own)
    for done, instance in enumerate(instances[first:], first + 1):
        with so_far.applied(checkpoint) as current:
            (found,) = edit_together(
                current,
                [instance],
                block=blocks[instance.id],
                settings=settings,
                fingerprint=checkpoint.fingerprint,
            )
        new = checked(found)
        keys.append(new.key)
        changed = {name: so_far.tensors.get(name, 0) + change for name, change in new.tensors.items()}
        every = sorted({*([so_far.block, *so_far.also] if so_far.tensors else []), new.block, *new.also})
        so_far = replace(
            new,
            tensors={**so_far.tensors, **changed},
            block=every[0],
            also=tuple(every[1:]),
            instances=(*so_far.instances, instance.id),
            mode="sequential",
            key=joint_key("sequential", keys),
        )
        yield so_far
        if progress is not None:
            progress(done, len(instances))


def keep_edits(
    folder: Path,
    checkpoint: Checkpoint,
    instances: Sequence[AnyPair],
    *,
    blocks: Mapping[int, int | Sequence[int]],
    settings: DinmSettings | None = None,
    together: int | None = None,
    rank: int | None = None,
    progress: Progress | None = None,
) -> list[FailedEdit]:
    """`edit_each` into a folder, `FOLDER/INSTANCE/` each, written as they come; those already there are not redone.

    What is there counts if its weights, texts, blocks, settings, code and rank are the same.

    Args:
        rank: keep changes as factors of this rank, see `WeightDelta.save`.
        checkpoint, instances, blocks, settings, together, progress: as in `edit_each`.

    Returns:
        The edits that came to nothing.
    """
    settings = settings or DinmSettings()
    missing = []
    for instance in instances:
        key = edit_key(checkpoint, instance, blocks[instance.id], settings, "mlp.out")
        wanted = {"key": key, "fingerprint": checkpoint.fingerprint, "rank": rank}
        there = kept_labels(folder / str(instance.id))
        if {name: there.get(name) for name in wanted} != wanted:
            missing.append(instance)
    missing = processes.from_main(missing)
    failed = []
    for found in edit_each(
        checkpoint,
        missing,
        blocks=blocks,
        settings=settings,
        together=together,
        progress=progress,
    ):
        if isinstance(found, FailedEdit):
            failed.append(found)
        else:
            found.save(folder / str(found.instance), rank=rank)
    processes.wait()
    return processes.gather(failed)


def edits_in(folder: Path) -> list[Path]:
    """The edits in a folder, by the number of their instance.

    Raises:
        InputError: if there are none.
    """
    found = sorted(edit_folders(folder), key=lambda p: (len(p.name), p.name))
    if not found:
        raise InputError(f"{folder}: there is no edit in it (INSTANCE/edit.json)")
    return found


def edit_log(folders: Sequence[Path]) -> pd.DataFrame:
    """What was seen at every step of every edit, a row each: `instance,block,step` and the fields of `EditStep`."""
    rows: list[dict[str, Any]] = []
    for folder in folders:
        labels = kept_labels(folder)
        for step, seen in enumerate(labels.get("steps", ())):
            rows.append({"instance": labels["instance"], "block": labels["block"], "step": step, **seen})
    return pd.DataFrame(rows, columns=["instance", "block", "step", *(field.name for field in fields(EditStep))])


def _check_start(start: WeightDelta, instances: Sequence[AnyPair], key: str) -> None:
    """Raise `InputError` unless `start` is what would be made of the first instances here."""
    if start.mode != "sequential":
        raise InputError(f"edits one on top of the other do not go on from one of mode {start.mode or 'unknown'!r}")
    if list(start.instances) != [instance.id for instance in instances]:
        raise InputError(f"the edits to go on from are of the instances {start.instances}, not of the first ones here")
    if start.key != key:
        raise InputError(
            f"the edits to go on from, of the instances {start.instances}, were made of other texts, at other layers, "
            "with other settings or by another version of the code; choose another folder, or remove that one"
        )


def _several(block: int | Sequence[int]) -> list[int]:
    return [block] if isinstance(block, int) else list(block)


def _groups(
    checkpoint: Checkpoint,
    instances: Sequence[AnyPair],
    blocks: Mapping[int, int | Sequence[int]],
    settings: DinmSettings,
    component: Component,
    together: int | None,
) -> list[list[AnyPair]]:
    """Instances that are edited side by side: of the same blocks, and of similar length."""

    def place(instance: AnyPair) -> list[int]:
        return sorted(_several(blocks[instance.id]))

    groups: list[list[AnyPair]] = []
    for same, found in groupby(sorted(instances, key=place), key=place):
        members = list(found)
        sizes = [bytes_of_edit(checkpoint, instance, same, settings, component) for instance in members]
        most = together or max(1, allowed(checkpoint) // max(size for _, size in sizes))
        lengths = [length for length, _ in sizes]
        for order in length_batches(lengths, 2**31, most, apart=checkpoint.names.short_context):
            groups.append([members[i] for i in order])
    return groups
