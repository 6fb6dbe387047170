"""Making a detoxified checkpoint through TRL."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from mechinterp.cli.chatting import in_chat_format
from mechinterp.cli.common import is_main, load, reporting, say, settings_of
from mechinterp.cli.options import Data, DeviceOption, Dtype, DtypeOption, LearningRate, Lora, Model, Seed
from mechinterp.cli.reading import Reading, of_pairs
from mechinterp.errors import InputError
from mechinterp.methods.method import Method
from mechinterp.methods.registry import METHODS, settings_for


class _Methods(TyperGroup):
    """The commands below, and one for every other method of the registry that makes one checkpoint from training data.

    They are told by the registry alone: what a method is made by is imported when its command runs.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of all commands."""
        return [*super().list_commands(ctx), *(name for name in _others() if name not in self.commands)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of a name, None if there is none."""
        own, method = super().get_command(ctx, cmd_name), _others().get(cmd_name)
        return own if own is not None or method is None else _command(method)


if TYPE_CHECKING:
    from mechinterp.models.text.chat import ChatChoice

commands = typer.Typer(cls=_Methods, no_args_is_help=True, help="Make a checkpoint by training.")


def _training(
    kind: str,
    model: str,
    data: Path,
    out: Path,
    seed: int,
    dtype: Dtype,
    device: str,
    lora: int | None,
    chat: ChatChoice,
    reading: Reading,
    **given: Any,
) -> None:
    from mechinterp.data.storage.places import check_replaceable, check_writable
    from mechinterp.methods.training.dpo import DpoSettings, train_dpo
    from mechinterp.methods.training.sft import SftSettings, train_sft
    from mechinterp.methods.training.trl_training import LoraSettings

    instances = reading.of(data)
    check_writable(out, kind="folder")
    check_replaceable(out)
    if lora is not None:
        given["lora"] = settings_of(LoraSettings, {"rank": lora, "alpha": 2 * lora})
    with reporting() as terminal:
        base, progress = load(model, dtype, device, chat=chat), terminal.progress(f"{kind}: training")
        if kind == "sft":
            settings = settings_of(SftSettings, given)
            tuned, _ = train_sft(base, instances, seed=seed, settings=settings, progress=progress)
        else:
            chosen = settings_of(DpoSettings, given)
            tuned, _ = train_dpo(base, instances, seed=seed, settings=chosen, progress=progress)
        if is_main():
            tuned.save(out)
    say(f"checkpoint: {out}")


Steps = Annotated[int | None, typer.Option(min=1, help="Optimiser steps.")]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Examples per step.")]
MaxLength = Annotated[
    int | None, typer.Option(min=2, help="Tokens of prompt and response; prompts are cut on the left.")
]
Only = Annotated[
    list[str] | None,
    typer.Option(help="Train only this component, by TransformerLens's name: mlp.out, blocks.3.mlp.out; repeatable."),
]
Freeze = Annotated[list[str] | None, typer.Option(help="Keep this component's weights, likewise; repeatable.")]
OutModel = Annotated[Path, typer.Option(help="Folder of the new checkpoint, new or empty.")]


@commands.command()
@in_chat_format
@of_pairs
def sft(
    model: Model,
    data: Data,
    out: OutModel,
    seed: Seed = 0,
    steps: Steps = None,
    learning_rate: LearningRate = None,
    batch_size: BatchSize = None,
    max_length: MaxLength = None,
    lora: Lora = None,
    only: Only = None,
    freeze: Freeze = None,
    dtype: DtypeOption = Dtype.auto,
    device: DeviceOption = "auto",
    *,
    chat: ChatChoice,
    reading: Reading,
) -> None:
    """Supervised fine-tuning on adversarial prompt -> safe response."""
    given = {"steps": steps, "learning_rate": learning_rate, "batch_size": batch_size, "max_length": max_length}
    chosen = {"only": only or None, "freeze": freeze or None}
    _training("sft", model, data, out, seed, dtype, device, lora, chat, reading, **given, **chosen)


@commands.command()
@in_chat_format
@of_pairs
def dpo(
    model: Annotated[str, typer.Option(help="The checkpoint to start from, as in the paper the SFT one.")],
    data: Data,
    out: OutModel,
    seed: Seed = 0,
    steps: Steps = None,
    learning_rate: LearningRate = None,
    batch_size: BatchSize = None,
    max_length: MaxLength = None,
    beta: Annotated[float | None, typer.Option(help="Weight of the divergence from the reference.")] = None,
    lora: Lora = None,
    only: Only = None,
    freeze: Freeze = None,
    dtype: DtypeOption = Dtype.auto,
    device: DeviceOption = "auto",
    *,
    chat: ChatChoice,
    reading: Reading,
) -> None:
    """Direct preference optimisation of safe over unsafe responses."""
    given = {"steps": steps, "learning_rate": learning_rate, "batch_size": batch_size, "max_length": max_length}
    chosen = {"only": only or None, "freeze": freeze or None}
    _training("dpo", model, data, out, seed, dtype, device, lora, chat, reading, beta=beta, **given, **chosen)


def _others() -> dict[str, Method]:
    return {name: method for name, method in METHODS.items() if method.takes == ("training",) and method.tunes}


def _command(method: Method) -> Any:
    """The command of a method that has no options of its own: its settings are given by name."""
    app = typer.Typer(add_completion=False)

    @app.command(method.name, help=f"{method.printed}: {method.line}.")
    @in_chat_format
    @of_pairs
    def make(
        model: Model,
        data: Data,
        out: OutModel,
        seed: Seed = 0,
        settings: Annotated[
            list[str] | None, typer.Option("--set", help="NAME=VALUE of a setting, as a config has it; repeatable.")
        ] = None,
        dtype: DtypeOption = Dtype.auto,
        device: DeviceOption = "auto",
        *,
        chat: ChatChoice,
        reading: Reading,
    ) -> None:
        import yaml

        from mechinterp.data.storage.places import check_replaceable, check_writable
        from mechinterp.methods.task import Task

        pairs = [one.partition("=") for one in settings or []]
        if wrong := [name for name, separator, _ in pairs if not separator]:
            raise InputError(f"--set takes NAME=VALUE, got {wrong[0]!r}")
        checked = settings_for(method.name, {name: yaml.safe_load(value) for name, _, value in pairs})
        instances = reading.of(data)
        check_writable(out, kind="folder")
        check_replaceable(out)
        with reporting() as terminal:
            base, given = load(model, dtype, device, chat=chat), {method.name: checked}
            task = Task((), {}, instances, settings=given, seed=seed, note=terminal.note, progress=terminal.progress)
            (made,) = method.recipe.make(base, task)
            tuned = made.checkpoint
            if made.delta is not None:
                tuned = made.delta.merged(base, name=method.name)
            assert tuned is not None
            if is_main():
                tuned.save(out)
        say(f"checkpoint: {out}")

    return typer.main.get_command(app)
