"""All commands in one application."""

from __future__ import annotations

import typer

from mechinterp.cli import (
    attacking,
    attributing,
    benchmarking,
    circuits,
    comparing,
    decoding,
    directions,
    editing,
    edits_in_conflict,
    evaluating,
    facts,
    locating,
    measuring,
    pairing,
    relapsing,
    showing_tokens,
    studies,
    training,
    traits,
    unlearning,
    vectors,
)
from mechinterp.cli.listing import Commands

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # whose columns cut options and words short in narrow windows
    help="Did a detoxified language model have its toxicity erased, or does it only walk around it?",
)
app.add_typer(studies.commands)
app.add_typer(training.commands, name="train")
for part in (
    showing_tokens,
    pairing,
    locating,
    editing,
    measuring,
    directions,
    vectors,
    comparing,
    attributing,
    relapsing,
    attacking,
    decoding,
    unlearning,
    circuits,
):
    app.add_typer(part.commands)
app.add_typer(evaluating.commands)
app.add_typer(facts.commands)
app.add_typer(edits_in_conflict.commands)
app.add_typer(traits.commands)
app.add_typer(benchmarking.commands)
