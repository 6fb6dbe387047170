"""Locating the toxic layer, and editing it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mechinterp.cli.common import block_of_layer, load, rank, read_data, reporting, say, settings_of
from mechinterp.cli.options import (
    Base,
    Constraint,
    Data,
    DeviceMap,
    DeviceOption,
    DistanceName,
    Dtype,
    DtypeOption,
    Model,
    Trust,
)
from mechinterp.errors import InputError

commands = typer.Typer()


@commands.command(name="locate")
def locate_command(
    model: Model,
    data: Data,
    out: Annotated[Path | None, typer.Option(help="Folder for located.csv and toxic_layer.csv.")] = None,
    padding_side: Annotated[str, typer.Option(help="left (as the released pipeline) or right.")] = "left",
    truncate: Annotated[bool, typer.Option("--truncate", help="Cut responses that exceed the context at the end.")] = (
        False
    ),
    dtype: DtypeOption = Dtype.auto,
    device: DeviceOption = "auto",
    device_map: DeviceMap = None,
    base: Base = None,
    trust_remote_code: Trust = False,
) -> None:
    """The toxic layer of every instance under four distances, and how far they agree."""
    from mechinterp.files import check_writable, write_table
    from mechinterp.location import histogram, locate

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
            progress=progress,
        )
    counts = histogram(located, checkpoint.n_blocks)
    if out is not None and rank() == 0:
        write_table(out / "located.csv", located)
        write_table(out / "toxic_layer.csv", counts)
    shown = counts.pivot(index="block", columns="distance", values="count")[list(DistanceName)]
    shown.index = [f"layer {block + 1} (block {block})" for block in shown.index]
    say(shown.to_string())


@commands.command()
def edit(
    model: Model,
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder for delta.safetensors and edit.json.")],
    instance: Annotated[int | None, typer.Option(help="Id of the instance; the first one if not given.")] = None,
    layer: Annotated[str, typer.Option(help="auto, or the number of a block, from 0.")] = "auto",
    distance: Annotated[DistanceName, typer.Option(help="How `auto` locates the block.")] = DistanceName.released,
    constraint: Annotated[Constraint, typer.Option(help="Which DINM.")] = Constraint.published,
    learning_rate: Annotated[float | None, typer.Option("--lr", help="Learning rate.")] = None,
    steps: Annotated[int | None, typer.Option(min=0, help="Optimiser steps.")] = None,
    c_edit: Annotated[float | None, typer.Option(help="Weight of the edit's loss.")] = None,
    suffix: Annotated[str | None, typer.Option(help="Suffix prompt; an empty text for none.")] = None,
    merged: Annotated[Path | None, typer.Option(help="Also save the whole edited model into this folder.")] = None,
    dtype: DtypeOption = Dtype.auto,
    device: DeviceOption = "auto",
    device_map: DeviceMap = None,
    base: Base = None,
    trust_remote_code: Trust = False,
) -> None:
    """DINM: edit one block's value matrix on one instance; the result is a delta, the model is left alone."""
    from mechinterp.files import check_writable
    from mechinterp.location import locate, toxic_block
    from mechinterp.methods.dinm import DinmSettings
    from mechinterp.methods.dinm import edit as dinm_edit

    instances = read_data(data)
    found = [i for i in instances if instance is None or i.id == instance]
    if not found:
        raise InputError(f"{data}: no instance has the id {instance}")
    given = {"constraint": constraint.value, "learning_rate": learning_rate, "steps": steps, "c_edit": c_edit}
    settings = settings_of(DinmSettings, given)
    if suffix is not None:
        settings = settings.model_copy(update={"suffix": suffix or None})
    wanted = block_of_layer(layer)
    for folder in (out, merged):
        if folder is not None:
            check_writable(folder, kind="folder")
    with reporting() as terminal:
        checkpoint = load(model, dtype, device, device_map, base=base, trust_remote_code=trust_remote_code)
        block = toxic_block(locate(checkpoint, found[:1], truncate=True), distance.value) if wanted is None else wanted
        progress = terminal.progress("editing")
        delta = dinm_edit(checkpoint, found[0], block=block, settings=settings, progress=progress)
        if rank() == 0:
            delta.save(out)
        if merged is not None and rank() == 0:
            delta.merged(checkpoint, name=merged.name).save(merged)
    losses = (
        f", loss of the safe response {delta.log[0].loss_edit:.3f} -> {delta.log[-1].loss_edit:.3f}"
        if delta.log
        else ""
    )
    say(f"edit of instance {delta.instance} at layer {block + 1} (block {block}){losses}: {out}")
