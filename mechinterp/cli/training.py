"""Making a checkpoint by training: a command for every method of the registry that makes one from training data.

Methods are told by the registry alone: what one is made by is imported when its command runs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mechinterp.cli.added import adding
from mechinterp.cli.chatting import in_chat_format
from mechinterp.cli.common import is_main, load, reporting, say
from mechinterp.cli.listing import Commands
from mechinterp.cli.options import Data, DeviceOption, Dtype, DtypeOption, LearningRate, Lora, Model, Seed
from mechinterp.cli.reading import Reading, of_pairs
from mechinterp.errors import InputError
from mechinterp.methods.method import Method
from mechinterp.methods.registry import METHODS, settings_for

if TYPE_CHECKING:
    from mechinterp.models.text.chat import ChatChoice

commands = typer.Typer(cls=Commands, no_args_is_help=True, help="Make a checkpoint by training.")

OPTIONS: dict[str, Any] = {
    "steps": Annotated[int | None, typer.Option(min=1, help="Optimiser steps.")],
    "learning_rate": LearningRate,
    "batch_size": Annotated[int | None, typer.Option(min=1, help="Examples per step.")],
    "max_length": Annotated[
        int | None, typer.Option(min=2, help="Tokens of prompt and response; prompts are cut on the left.")
    ],
    "lora": Lora,
    "only": Annotated[
        list[str] | None,
        typer.Option(
            help="Train only this component, by TransformerLens's name: mlp.out, blocks.3.mlp.out; repeatable."
        ),
    ],
    "freeze": Annotated[list[str] | None, typer.Option(help="Keep this component's weights, likewise; repeatable.")],
    "others": Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE of a setting, as a config has it; repeatable.")
    ],
}
"""Settings that most methods have, and `--set` for all others."""

OWN: dict[str, dict[str, Any]] = {
    "dpo": {"beta": Annotated[float | None, typer.Option(help="Weight of the divergence from the reference.")]}
}
"""Further settings of a method that are options."""


def settings_given(*, lora: int | None, others: list[str] | None, **given: Any) -> dict[str, Any]:
    """The settings that were given, by their names."""
    import yaml

    pairs = [one.partition("=") for one in others or []]
    if wrong := [name for name, separator, _ in pairs if not separator]:
        raise InputError(f"--set takes NAME=VALUE, got {wrong[0]!r}")
    given["lora"] = None if lora is None else {"rank": lora, "alpha": 2 * lora}
    chosen = {name: value for name, value in given.items() if value not in (None, [])}
    return chosen | {name: yaml.safe_load(value) for name, _, value in pairs}


def _command(method: Method) -> Callable[..., None]:
    """The command of a method; one that starts from another's checkpoint is given it."""

    def train(
        model: Model,
        data: Data,
        out: Annotated[Path, typer.Option(help="Folder of the new checkpoint, new or empty.")],
        seed: Seed = 0,
        dtype: DtypeOption = Dtype.auto,
        device: DeviceOption = "auto",
        *,
        given: dict[str, Any],
        chat: ChatChoice,
        reading: Reading,
    ) -> None:
        from mechinterp.data.storage.places import check_replaceable, check_writable
        from mechinterp.methods.task import Task

        settings = {method.name: settings_for(method.name, given)}
        instances = reading.of(data)
        check_writable(out, kind="folder")
        check_replaceable(out)
        with reporting() as terminal:
            base = load(model, dtype, device, chat=chat)
            made = {method.after: base} if method.after else {}
            note, progress = terminal.note, terminal.progress
            task = Task((), {}, instances, settings=settings, made=made, seed=seed, note=note, progress=progress)
            (found,) = method.recipe.make(base, task)
            tuned = found.checkpoint if found.delta is None else found.delta.merged(base, name=method.name)
            assert tuned is not None
            if is_main():
                tuned.save(out)
        say(f"checkpoint: {out}")

    if method.after:
        start = f"The checkpoint to start from, as in the paper the {METHODS[method.after].printed} one."
        train.__annotations__["model"] = Annotated[str, typer.Option(help=start)]
    own = adding("given", {**OPTIONS, **OWN.get(method.name, {})}, settings_given)
    return in_chat_format(of_pairs(own(train)))


for _method in METHODS.values():
    if _method.takes == ("training",) and _method.tunes:
        commands.command(_method.name, help=f"{_method.printed}: {_method.line}.")(_command(_method))
