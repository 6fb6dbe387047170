"""Making a detoxified checkpoint through TRL."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mechinterp.cli.common import is_main, load, read_data, reporting, say, settings_of
from mechinterp.cli.options import Data, DeviceOption, Dtype, DtypeOption, LearningRate, Lora, Model, Seed

commands = typer.Typer(no_args_is_help=True, help="Make a detoxified checkpoint through TRL.")


def _training(
    kind: str, model: str, data: Path, out: Path, seed: int, dtype: Dtype, device: str, lora: int | None, **given: Any
) -> None:
    from mechinterp.data.storage.places import check_replaceable, check_writable
    from mechinterp.methods.training.dpo import DpoSettings, train_dpo
    from mechinterp.methods.training.sft import SftSettings, train_sft
    from mechinterp.methods.training.trl_training import LoraSettings

    instances = read_data(data)
    check_writable(out, kind="folder")
    check_replaceable(out)
    if lora is not None:
        given["lora"] = settings_of(LoraSettings, {"rank": lora, "alpha": 2 * lora})
    with reporting() as terminal:
        progress = terminal.progress(f"{kind}: training")
        if kind == "sft":
            settings = settings_of(SftSettings, given)
            tuned, _ = train_sft(load(model, dtype, device), instances, seed=seed, settings=settings, progress=progress)
        else:
            chosen = settings_of(DpoSettings, given)
            tuned, _ = train_dpo(load(model, dtype, device), instances, seed=seed, settings=chosen, progress=progress)
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
) -> None:
    """Supervised fine-tuning on adversarial prompt -> safe response."""
    given = {"steps": steps, "learning_rate": learning_rate, "batch_size": batch_size, "max_length": max_length}
    chosen = {"only": only or None, "freeze": freeze or None}
    _training("sft", model, data, out, seed, dtype, device, lora, **given, **chosen)


@commands.command()
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
) -> None:
    """Direct preference optimisation of safe over unsafe responses."""
    given = {"steps": steps, "learning_rate": learning_rate, "batch_size": batch_size, "max_length": max_length}
    chosen = {"only": only or None, "freeze": freeze or None}
    _training("dpo", model, data, out, seed, dtype, device, lora, beta=beta, **given, **chosen)
