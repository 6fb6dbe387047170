"""Editing value matrices on instances."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mechinterp.cli.chatting import in_chat_format
from mechinterp.cli.common import is_main, reporting, say, settings_of
from mechinterp.cli.edits import Edits, check_places, started, told
from mechinterp.cli.fact_editing import FactEditing, MethodName, edit_chosen, of_facts
from mechinterp.cli.loading import Loading, of_a_model
from mechinterp.cli.options import Constraint, DistanceName, LearningRate, Model
from mechinterp.cli.reading import Reading, of_pairs
from mechinterp.errors import InputError

if TYPE_CHECKING:
    from mechinterp.data.pairs import AnyPair
    from mechinterp.models.checkpoints import Checkpoint
    from mechinterp.models.deltas import WeightDelta
    from mechinterp.models.text.chat import ChatChoice

commands = typer.Typer()


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


class Direction(StrEnum):
    """Order of the two distributions in L_c."""

    edited_base = "edited||base"
    base_edited = "base||edited"


@commands.command()
@in_chat_format
@of_pairs
@of_a_model
@of_facts
def edit(
    model: Model,
    out: Annotated[Path, typer.Option(help="Folder of the edit; of several with --mode each, of OUT/INSTANCE/.")],
    data: Annotated[Path | None, typer.Option(help="Pairs, as every --data; what dinm edits.")] = None,
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
    kl_direction: Annotated[
        Direction | None, typer.Option(help="Order in L_c (in quotes); as the constraint has it if not given.")
    ] = None,
    norm_bound: Annotated[
        float | None, typer.Option(help="Largest norm of the change, relative to the weights.")
    ] = None,
    entry_bound: Annotated[float | None, typer.Option(help="Largest change of any entry.")] = None,
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
    merged: Annotated[
        Path | None, typer.Option(help="Also save the whole edited model into this folder, new or empty.")
    ] = None,
    *,
    loading: Loading,
    chat: ChatChoice,
    reading: Reading,
    facts: FactEditing,
) -> None:
    """Edit value matrices, by DINM on one instance or many, or by --method on facts; the result is a delta, the model
    is left alone.

    Of --all or several instances, OUT also gets edit_log.csv: losses, accuracy, norm and rank of the change at every
    step. Edits of --mode each that are already there are not computed again, unless what they are made of has changed;
    so are DINM's of --mode sequential. Folders that hold anything but an edit are never replaced.
    """
    from mechinterp.audit.location import locate
    from mechinterp.audit.toxic_layer import blocks_for
    from mechinterp.methods.editing.dinm import DinmSettings
    from mechinterp.methods.editing.texts import check_constraints
    from mechinterp.models.processes import decided

    own: dict[str, Any] = {
        "constraint": constraint is not Constraint.published,
        "c_edit": c_edit,
        "suffix": suffix is not None,
    }
    own |= {"without_constraint": without_constraint, "optimiser": optimiser, "kl_direction": kl_direction}
    own |= {"norm_bound": norm_bound, "stop_at_accuracy": stop_at_accuracy, "together": together, "data": data}
    facts.check({**own, "reuse_first_layer": reuse_first_layer})
    descent: dict[str, Any] = {"learning_rate": learning_rate, "steps": steps, "weight_decay": weight_decay}
    descent |= {"stop_below": stop_below, "entry_bound": entry_bound}
    descent |= {"max_input_tokens": max_input_tokens, "max_output_tokens": max_output_tokens}
    if facts.method is not MethodName.dinm:
        chosen_facts = facts.chosen(instance, every)
        several = mode is Mode.each and len(chosen_facts) > 1
        _check_kept(mode, merged, rank, several=several)
        check_places(out, merged, list(chosen_facts), many=several, log=False)
        kept: dict[str, Any] = {"mode": mode.value, "out": out, "rank": rank}
        with reporting(goes_on=several) as terminal:
            checkpoint = loading.of(model, chat)
            settings = facts.settings(checkpoint, {**descent, "blocks": _layers(layer)})
            edit, what = edit_chosen(checkpoint, chosen_facts, facts, settings, terminal, **kept)
            _save_merged(edit, checkpoint, merged)
        say(what)
        _say_merged(merged)
        return
    if data is None:
        raise InputError("Missing option '--data'.")
    chosen = _instances(reading.of(data), instance, every, data)
    if not without_constraint:
        check_constraints(chosen)
    dinm = {
        **descent,
        "constraint": constraint.value,
        "c_edit": c_edit,
        "use_constraint": False if without_constraint else None,
        "optimiser": optimiser and optimiser.value,
        "kl_direction": kl_direction and kl_direction.value,
        "norm_bound": norm_bound,
        "stop_at_accuracy": stop_at_accuracy,
    }
    dinm_settings = settings_of(DinmSettings, dinm)
    if suffix is not None:
        dinm_settings = dinm_settings.model_copy(update={"suffix": suffix or None})
    wanted = _layers(layer)
    many = mode is Mode.each and (every or len(chosen) > 1)
    _check_kept(mode, merged, rank, several=many)
    check_places(out, merged, [one.id for one in chosen], many=many)
    # as the main process finds it: the folder changes as soon as that one goes on
    start = decided(lambda: started(out, dinm_settings)) if mode is Mode.sequential else None
    with reporting(goes_on=many or mode is Mode.sequential) as terminal:
        checkpoint = loading.of(model, chat)
        if wanted is None:
            seen = chosen[:1] if reuse_first_layer else chosen
            located = locate(checkpoint, seen, truncate=True, progress=terminal.progress("locating"))
            found_blocks = blocks_for(located, chosen, distance.value, reuse_first_layer=reuse_first_layer)
        blocks = {i.id: found_blocks[i.id] if wanted is None else wanted for i in chosen}
        edits = Edits(checkpoint, chosen, blocks, dinm_settings, rank, terminal)
        if many:
            edits.each(out, together)
            return
        if mode is Mode.sequential:
            found = edits.sequential(out, start)
        else:
            found = edits.batch(out) if mode is Mode.batch else edits.one(out)
        _save_merged(found, checkpoint, merged)
    say(told(found, out))
    _say_merged(merged)


def _save_merged(edit: WeightDelta, checkpoint: Checkpoint, merged: Path | None) -> None:
    """Save the whole edited model, if that is asked for."""
    if merged is not None and is_main():
        edit.merged(checkpoint, name=merged.name).save(merged)


def _say_merged(merged: Path | None) -> None:
    """Say where the whole edited model lies, if it was saved."""
    if merged is not None:
        say(f"checkpoint: {merged}")


def _check_kept(mode: Mode, merged: Path | None, rank: int | None, *, several: bool) -> None:
    """Refuse what cannot be kept of several edits."""
    if merged is not None and several:
        raise InputError("--merged is for one edit: name one --instance, or choose --mode sequential or batch")
    if rank is not None and mode is Mode.sequential:
        raise InputError("--rank is not for --mode sequential: edits would stand on what was cut off")


def _instances(instances: Sequence[AnyPair], wanted: Sequence[int] | None, every: bool, data: Path) -> list[AnyPair]:
    """Those that --instance or --all choose."""
    if every and wanted:
        raise InputError("--all and --instance exclude each other")
    if every:
        return list(instances)
    if not wanted:
        return list(instances[:1])
    by_id = {instance.id: instance for instance in instances}
    if unknown := [number for number in wanted if number not in by_id]:
        known = f"{len(by_id)} have ids from {min(by_id)} to {max(by_id)}"
        raise InputError(f"{data}: no instance has the id {unknown[0]}; {known}")
    return [by_id[number] for number in dict.fromkeys(wanted)]


def _layers(layer: str) -> list[int] | None:
    """The blocks that --layer names, None for auto."""
    parts = layer.split(",")
    if layer == "auto":
        return None
    if not all(part.strip().isdecimal() for part in parts):
        raise InputError(f"--layer is auto or the number of a block, or several as in 3,5; got {layer!r}")
    return sorted({int(part) for part in parts})
