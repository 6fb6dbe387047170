"""Options that several commands share, by their types."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Dtype(StrEnum):
    """Precision in which a model is loaded; auto keeps that of the files."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Constraint(StrEnum):
    """The published DINM, or the one of the released code."""

    published = "published"
    released = "released"


class TextName(StrEnum):
    """Whose greedy tokens are measured."""

    fixed = "fixed"
    on_policy = "on_policy"
    both = "both"


class DistanceName(StrEnum):
    """Distances by which the toxic layer is located."""

    released = "released"
    residual = "residual"
    pooled = "pooled"
    relative = "relative"


class RankingName(StrEnum):
    """How value vectors are ranked."""

    cosine = "cosine"
    projection = "projection"


Model = Annotated[
    str,
    typer.Option(
        help="A transformers folder, an adapter's or edit's folder, a state-dict file, or a hub id (which alone needs "
        "the network)."
    ),
]
Data = Annotated[
    Path, typer.Option(help="Pairs: SafeEdit's JSON list, JSON lines or CSV of prompt, unsafe and safe, or a chat log.")
]
Prompts = Annotated[
    Path | None,
    typer.Option(help='Prompts, one a line; in a file named .jsonl or .json texts, {"prompt"} or {"messages": [...]}.'),
]
TextColumn = Annotated[str | None, typer.Option(help="Column of the text.")]
LabelColumn = Annotated[str | None, typer.Option(help="Column of the label: 0/1, True/False, Toxic/Not Toxic.")]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of every random choice.")]
DtypeOption = Annotated[Dtype, typer.Option(help="Precision of the weights; auto keeps that of the files.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
DeviceMap = Annotated[str | None, typer.Option(help="auto: spread the model over devices.")]
Base = Annotated[
    str | None, typer.Option(help="What an adapter, an edit or a bare state dict stands on; adapters may name it.")
]
Truncate = Annotated[
    bool, typer.Option("--truncate", help="Cut texts that exceed the context on the left; otherwise an error.")
]
WithoutSinks = Annotated[
    bool, typer.Option("--without-sinks", help="Leave tokens with massive activations out of distances and means.")
]
Never = Annotated[
    str | None,
    typer.Option(help="A model that never learnt the behaviour (its twin, taught without it; or what it was before)."),
]
Trust = Annotated[bool, typer.Option("--trust-remote-code", help="Run code that comes with the checkpoint.")]
Layer = Annotated[str, typer.Option(help="auto (most frequent toxic layer), or the number of a block, from 0.")]
Distance = Annotated[DistanceName, typer.Option(help="How `auto` locates the block.")]
Lora = Annotated[int | None, typer.Option(help="Rank of LoRA adapters; full fine-tuning if not given.")]
LearningRate = Annotated[float | None, typer.Option("--lr", help="Learning rate.")]
