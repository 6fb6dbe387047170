"""Locating the toxic layer, and editing it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mechinterp.cli.common import is_main, load, read_data, reporting, say, settings_of
from mechinterp.cli.options import (
    Base,
    Constraint,
    Data,
    DeviceMap,
    DeviceOption,
    DistanceName,
    Dtype,
    DtypeOption,
    LearningRate,
    Model,
    Trust,
)
from mechinterp.errors import InputError

if TYPE_CHECKING:
    from mechinterp.data.safeedit import SafeEditInstance
    from mechinterp.methods.dinm import DinmSettings
    from mechinterp.models.checkpoints import Checkpoint
    from mechinterp.models.deltas import WeightDelta
    from mechinterp.terminal import Terminal

commands = typer.Typer()


@commands.command(name="locate")
def locate_command(
    model: Model,
    data: Data,
    out: Annotated[Path | None, typer.Option(help="Folder for the tables.")] = None,
    padding_side: Annotated[str, typer.Option(help="left (as the released pipeline) or right.")] = "left",
    truncate: Annotated[bool, typer.Option("--truncate", help="Cut responses that exceed the context at the end.")] = (
        False
    ),
    max_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Padded tokens per batch; 1 gives every pair a pass of its own, as released."),
    ] = None,
    dtype: DtypeOption = Dtype.auto,
    device: DeviceOption = "auto",
    device_map: DeviceMap = None,
    base: Base = None,
    trust_remote_code: Trust = False,
) -> None:
    """The toxic layer of every instance under four distances, and how far they agree.

    --out gets located.csv (a row per instance and distance), toxic_layer.csv (the histogram of each distance),
    toxic_layer_by_category.csv and toxic_layer_agreement.csv (every two distances: same block, and kappa).
    """
    from mechinterp.files import check_writable, write_table
    from mechinterp.location import agreement, check_padding_side, histogram, locate

    check_padding_side(padding_side)
    instances = read_data(data)
    if out is not None:
        check_writable(out / "located.csv", kind="file")
    with reporting() as terminal:
        checkpoint = load(model, dtype, device, device_map, base=base, trust_remote_code=trust_remote_code)
        progress = terminal.progress("locating")
        located = locate(
            checkpoint,
            instances,
            padding_side=padding_side,  # type: ignore[arg-type]
            truncate=truncate,
            max_tokens=max_tokens,
            progress=progress,
        )
    counts, agreeing = histogram(located, checkpoint.n_blocks), agreement(located)
    if out is not None and is_main():
        write_table(out / "located.csv", located)
        write_table(out / "toxic_layer.csv", counts)
        write_table(out / "toxic_layer_by_category.csv", histogram(located, checkpoint.n_blocks, by="category"))
        write_table(out / "toxic_layer_agreement.csv", agreeing)
    shown = counts.pivot(index="block", columns="distance", values="count")[list(DistanceName)]
    shown.index = [f"layer {block + 1} (block {block})" for block in shown.index]
    say(f"{shown.to_string()}\n\n{agreeing.to_string(index=False, float_format='{:.3f}'.format)}")


class Mode(StrEnum):
    """How several instances are edited."""

    each = "each"
    sequential = "sequential"
    batch = "batch"


class Optimiser(StrEnum):
    """What descends."""

    adam = "adam"
    adamw = "adamw"
    sgd = "sgd"


@commands.command()
def edit(
    model: Model,
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder of the edit; with --all and --mode each, of OUT/INSTANCE/.")],
    instance: Annotated[
        list[int] | None, typer.Option(help="Id of an instance; repeatable. The first one if not given.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All instances of the file.")] = False,
    mode: Annotated[
        Mode, typer.Option(help="Several instances: an edit each, one on top of the other, or one edit for all.")
    ] = Mode.each,
    layer: Annotated[str, typer.Option(help="auto, or the number of a block, from 0; several: 3,5.")] = "auto",
    distance: Annotated[DistanceName, typer.Option(help="How `auto` locates the block.")] = DistanceName.released,
    reuse_first_layer: Annotated[
        bool, typer.Option("--reuse-first-layer", help="The first instance's block for all, as the released scripts.")
    ] = False,
    constraint: Annotated[Constraint, typer.Option(help="Which DINM.")] = Constraint.published,
    learning_rate: LearningRate = None,
    steps: Annotated[int | None, typer.Option(min=0, help="Optimiser steps.")] = None,
    c_edit: Annotated[float | None, typer.Option(help="Weight of the edit's loss.")] = None,
    suffix: Annotated[str | None, typer.Option(help="Suffix prompt; an empty text for none.")] = None,
    without_constraint: Annotated[bool, typer.Option("--without-constraint", help="No L_c at all.")] = False,
    optimiser: Annotated[Optimiser | None, typer.Option(help="Adam if not given.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Of the optimiser.")] = None,
    norm_bound: Annotated[
        float | None, typer.Option(help="Largest norm of the change, relative to the weights.")
    ] = None,
    stop_below: Annotated[float | None, typer.Option(help="Stop when the loss falls below.")] = None,
    stop_at_accuracy: Annotated[
        float | None, typer.Option(help="Stop when this share of the safe response's tokens is the most probable.")
    ] = None,
    max_input_tokens: Annotated[int | None, typer.Option(min=1, help="Longer prompts are cut from the left.")] = None,
    max_output_tokens: Annotated[int | None, typer.Option(min=1, help="Longer responses are cut at the end.")] = None,
    together: Annotated[
        int | None, typer.Option(min=1, help="Most edits side by side; as many as memory allows if not given.")
    ] = None,
    rank: Annotated[int | None, typer.Option(min=1, help="Keep changes as factors of this rank.")] = None,
    merged: Annotated[Path | None, typer.Option(help="Also save the whole edited model into this folder.")] = None,
    dtype: DtypeOption = Dtype.auto,
    device: DeviceOption = "auto",
    device_map: DeviceMap = None,
    base: Base = None,
    trust_remote_code: Trust = False,
) -> None:
    """DINM: edit value matrices on one instance or many; the result is a delta, the model is left alone.

    Of many instances, OUT also gets edit_log.csv: losses, accuracy, norm and rank of the change at every step. Edits
    that are already there are not computed again.
    """
    from mechinterp.files import check_writable
    from mechinterp.location import blocks_for, locate
    from mechinterp.methods.dinm import DinmSettings

    chosen = _instances(read_data(data), instance, every, data)
    given = {
        "constraint": constraint.value,
        "learning_rate": learning_rate,
        "steps": steps,
        "c_edit": c_edit,
        "use_constraint": False if without_constraint else None,
        "optimiser": optimiser and optimiser.value,
        "weight_decay": weight_decay,
        "norm_bound": norm_bound,
        "stop_below": stop_below,
        "stop_at_accuracy": stop_at_accuracy,
        "max_input_tokens": max_input_tokens,
        "max_output_tokens": max_output_tokens,
    }
    settings = settings_of(DinmSettings, given)
    if suffix is not None:
        settings = settings.model_copy(update={"suffix": suffix or None})
    wanted = _layers(layer)
    single = len(chosen) == 1
    if merged is not None and not single and mode is Mode.each:
        raise InputError("--merged is for one edit: name one --instance, or choose --mode sequential or batch")
    if rank is not None and mode is Mode.sequential:
        raise InputError("--rank is not for --mode sequential: edits would stand on what was cut off")
    for folder in (out, merged):
        if folder is not None:
            check_writable(folder, kind="folder")
    with reporting() as terminal:
        checkpoint = load(model, dtype, device, device_map, base=base, trust_remote_code=trust_remote_code)
        if wanted is None:
            seen = chosen[:1] if reuse_first_layer else chosen
            located = locate(checkpoint, seen, truncate=True, progress=terminal.progress("locating"))
            found_blocks = blocks_for(located, chosen, distance.value, reuse_first_layer=reuse_first_layer)
        blocks = {i.id: found_blocks[i.id] if wanted is None else wanted for i in chosen}
        edits = _Edits(checkpoint, chosen, blocks, settings, rank, terminal)
        if single:
            found = edits.one(out)
        elif mode is Mode.each:
            edits.each(out, together)
            return
        else:
            found = edits.sequential(out) if mode is Mode.sequential else edits.batch(out)
        if merged is not None and is_main():
            found.merged(checkpoint, name=merged.name).save(merged)
    say(_told(found, out))


def _instances(
    instances: Sequence[SafeEditInstance], wanted: Sequence[int] | None, every: bool, data: Path
) -> list[SafeEditInstance]:
    """Those that --instance or --all choose."""
    if every and wanted:
        raise InputError("--all and --instance exclude each other")
    if every:
        return list(instances)
    if not wanted:
        return list(instances[:1])
    by_id = {instance.id: instance for instance in instances}
    if unknown := [number for number in wanted if number not in by_id]:
        raise InputError(f"{data}: no instance has the id {unknown[0]}")
    return [by_id[number] for number in dict.fromkeys(wanted)]


def _layers(layer: str) -> list[int] | None:
    """The blocks that --layer names, None for auto."""
    parts = layer.split(",")
    if layer == "auto":
        return None
    if not all(part.strip().isdecimal() for part in parts):
        raise InputError(f"--layer is auto, the number of a block, or several as in 3,5; got {layer!r}")
    return sorted({int(part) for part in parts})


@dataclass(frozen=True)
class _Edits:
    """Edits of some instances into a folder, in each mode."""

    checkpoint: Checkpoint
    instances: Sequence[SafeEditInstance]
    blocks: Mapping[int, int | Sequence[int]]
    settings: DinmSettings
    rank: int | None
    terminal: Terminal

    def one(self, out: Path) -> WeightDelta:
        """A single instance."""
        from mechinterp.methods.dinm import edit as edit_one

        (instance,) = self.instances
        progress, block = self.terminal.progress("editing"), self.blocks[instance.id]
        found = edit_one(self.checkpoint, instance, block=block, settings=self.settings, progress=progress)
        return self._saved(found, out)

    def each(self, out: Path, together: int | None) -> None:
        """An edit for every instance, in OUT/INSTANCE/; says so, and raises at the end for those that failed."""
        from mechinterp.methods.editing import edits_in, keep_edits

        failed = keep_edits(
            out,
            self.checkpoint,
            self.instances,
            blocks=self.blocks,
            settings=self.settings,
            together=together,
            rank=self.rank,
            progress=self.terminal.progress("editing"),
        )
        if len(failed) < len(self.instances):
            say(f"edits of {len(self.instances) - len(failed)} instances, {self._log(edits_in(out))}: {out}")
        if failed:
            raise InputError(f"{len(failed)} of {len(self.instances)} edits came to nothing; the first: {failed[0]}")

    def sequential(self, out: Path) -> WeightDelta:
        """One on top of the other; what is in the folder is gone on from."""
        from mechinterp.methods.editing import edit_sequentially
        from mechinterp.models.deltas import WeightDelta

        start = None
        if (out / "edit.json").is_file():
            start = WeightDelta.load(out)
            start.check(self.checkpoint)
            if dict(start.settings) != self.settings.model_dump():
                raise InputError(f"{out}: edits with other settings are there; choose another folder")
        found, progress = start, self.terminal.progress("editing")
        for found in edit_sequentially(
            self.checkpoint,
            self.instances,
            blocks=self.blocks,
            settings=self.settings,
            start=start,
            progress=progress,
        ):
            self._saved(found, out)
        if found is None:
            raise InputError("there are no instances to edit")
        return found

    def batch(self, out: Path) -> WeightDelta:
        """One edit for all of them, at the most frequent of their blocks."""
        from mechinterp.methods.dinm import edit_batch

        every = [tuple([b] if isinstance(b, int) else b) for b in self.blocks.values()]
        block = max(sorted(set(every)), key=every.count)
        if len(set(every)) > 1:
            self.terminal.note(f"the instances' toxic layers differ; the batch is edited at block {block[0]}")
        progress = self.terminal.progress("editing")
        found = edit_batch(self.checkpoint, self.instances, block=block, settings=self.settings, progress=progress)
        return self._saved(found, out)

    def _saved(self, found: WeightDelta, out: Path) -> WeightDelta:
        if is_main():
            found.save(out, rank=self.rank)
        return found

    def _log(self, folders: Sequence[Path]) -> str:
        """Write the table of all steps; the losses over the edits, in words."""
        from mechinterp.files import write_table
        from mechinterp.methods.editing import edit_log

        log = edit_log(folders)
        if is_main():
            write_table(folders[0].parent / "edit_log.csv", log)
        if log.empty:
            return "no steps"
        by_edit = log.groupby("instance")["loss_edit"]
        return f"mean loss of the safe response {by_edit.first().mean():.3f} -> {by_edit.last().mean():.3f}"


def _told(found: WeightDelta, out: Path) -> str:
    """An edit in one line."""
    where = ", ".join(f"layer {block + 1} (block {block})" for block in (found.block, *found.also))
    whose = f"{len(found.instances)} instances" if found.instances else f"instance {found.instance}"
    if not found.log:
        return f"edit of {whose} at {where}: {out}"
    first, last = found.log[0], found.log[-1]
    return (
        f"edit of {whose} at {where}, loss of the safe response {first.loss_edit:.3f} -> {last.loss_edit:.3f}, "
        f"share of its tokens right {first.accuracy:.2f} -> {last.accuracy:.2f}, "
        f"change {last.change_norm:.2%} of the weights' norm: {out}"
    )
