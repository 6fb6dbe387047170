"""Locating the toxic layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mechinterp.cli.chatting import in_chat_format
from mechinterp.cli.common import is_main, reporting, say
from mechinterp.cli.loading import Loading, of_a_model
from mechinterp.cli.options import Data, DistanceName, Model, WithoutSinks
from mechinterp.cli.reading import Reading, of_pairs

if TYPE_CHECKING:
    from mechinterp.models.text.chat import ChatChoice

commands = typer.Typer()


@commands.command(name="locate")
@in_chat_format
@of_pairs
@of_a_model
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
    without_sinks: WithoutSinks = False,
    *,
    loading: Loading,
    chat: ChatChoice,
    reading: Reading,
) -> None:
    """The toxic layer of every instance under four distances, and how far they agree.

    --out gets located.csv (a row per instance and distance), toxic_layer.csv (the histogram of each distance),
    toxic_layer_by_category.csv and toxic_layer_agreement.csv (every two distances: same block, and kappa).
    """
    from mechinterp.audit.location import agreement, check_padding_side, histogram, locate, sinks_in_words
    from mechinterp.data.storage.places import check_free, check_writable
    from mechinterp.data.storage.tables import write_table

    check_padding_side(padding_side)
    instances = reading.of(data)
    if out is not None:
        check_writable(out / "located.csv", kind="file")
        check_free(*(out / f"toxic_layer{ending}.csv" for ending in ("", "_by_category", "_agreement")))
    with reporting() as terminal:
        checkpoint = loading.of(model, chat)
        progress = terminal.progress("locating")
        located = locate(
            checkpoint,
            instances,
            padding_side=padding_side,  # type: ignore[arg-type]
            truncate=truncate,
            max_tokens=max_tokens,
            without_sinks=without_sinks,
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
    for line in sinks_in_words(located):
        say(f"{line}; see --without-sinks")
    if out is not None:
        say(f"tables: {out}")
