"""Asking a checkpoint the benchmark's questions."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from mechinterp.cli.common import judge_of, load, rank, read_data, reporting, say
from mechinterp.cli.options import (
    Base,
    DeviceMap,
    DeviceOption,
    Dtype,
    DtypeOption,
    JudgeOption,
    Model,
    Seed,
    Truncate,
    Trust,
)

commands = typer.Typer()


@commands.command()
def evaluate(
    model: Model,
    data: Annotated[Path, typer.Option(help="SafeEdit test instances, with generalisation prompts.")],
    out: Annotated[Path | None, typer.Option(help="Folder for defense.csv and the responses.")] = None,
    edit: Annotated[Path | None, typer.Option(help="Folder of an edit, applied to the model.")] = None,
    suffix: Annotated[str | None, typer.Option(help="Suffix prompt appended to every query.")] = None,
    judge: JudgeOption = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest response, in tokens.")] = 32,
    limit: Annotated[int | None, typer.Option(min=1, help="Evaluate the first N instances.")] = None,
    truncate: Truncate = False,
    seed: Seed = 0,
    dtype: DtypeOption = Dtype.auto,
    device: DeviceOption = "auto",
    device_map: DeviceMap = None,
    base: Base = None,
    trust_remote_code: Trust = False,
) -> None:
    """Defense success, its generalisation, and fluency."""
    import pandas as pd

    from mechinterp.defense import defend
    from mechinterp.files import check_writable, write_table
    from mechinterp.models.deltas import WeightDelta

    instances = read_data(data)
    if out is not None:
        check_writable(out / "defense.csv", kind="file")
    with reporting() as terminal:
        chosen_judge = judge_of(judge, instances, seed, device, terminal.note)
        checkpoint = load(model, dtype, device, device_map, base=base, trust_remote_code=trust_remote_code)
        progress = terminal.progress("answering")
        applied = WeightDelta.load(edit).applied(checkpoint) if edit else nullcontext(checkpoint)
        with applied as evaluated:
            result = defend(
                evaluated,
                instances[:limit],
                chosen_judge,
                max_new_tokens=max_new_tokens,
                suffix=suffix or None,
                truncate=truncate,
                progress=progress,
            )
    table = pd.DataFrame([result.row()])
    if out is not None and rank() == 0:
        write_table(out / "defense.csv", table)
        result.save(out / "responses.jsonl")
    say(table.T.to_string(header=False))
