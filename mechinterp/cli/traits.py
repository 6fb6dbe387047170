"""Edits towards traits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mechinterp.cli.chatting import in_chat_format
from mechinterp.cli.common import reporting, say
from mechinterp.cli.edits_in_conflict import Method, of_an_editor
from mechinterp.cli.loading import Loading, of_whole_models
from mechinterp.cli.options import Seed, Truncate

if TYPE_CHECKING:
    from mechinterp.models.text.chat import ChatChoice

commands = typer.Typer()


@commands.command()
@in_chat_format
@of_an_editor
@of_whole_models
def traits(
    base: Annotated[str, typer.Option(help="The unedited model.")],
    topics: Annotated[Path, typer.Option(help="PersonalityEdit's topics, or ConvSent: JSON.")],
    out: Annotated[Path, typer.Option(help="Folder for the tables.")],
    checkpoint: Annotated[
        list[str] | None, typer.Option(help="TRAIT=PATH of what was edited towards it; repeatable. Else --method.")
    ] = None,
    released: Annotated[bool, typer.Option("--released", help="Score as the released code, too.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N topics.")] = None,
    truncate: Truncate = False,
    seed: Seed = 0,
    *,
    loading: Loading,
    chat: ChatChoice,
    editor: Method,
) -> None:
    """What does an edit towards one trait do to it, to the others, and to another topic?

    --out gets tables/traits.csv, a row per trait edited towards and trait measured, and traits_topics.csv. With
    --method the model is edited towards each trait, topic by topic.
    """
    from mechinterp.data.personality import read_personality
    from mechinterp.report.traits_in_words import traits_in_words
    from mechinterp.runs.personality import run_personality

    before, tuned, _ = loading.candidates(base, checkpoint or [])
    asked = read_personality(topics)[:limit]
    editing = None
    if editor != Method() or not tuned:
        editing = editor.editing(seed, pairs=False, otherwise="models edited towards traits: --checkpoint")
    with reporting() as terminal:
        run = run_personality(
            before,
            tuned,
            asked,
            editing,
            out=out,
            released=released,
            truncate=truncate,
            seed=seed,
            chat=chat,
            reporter=terminal,
        )
    for line in traits_in_words(run.table("traits")):
        say(line)
    say(f"tables: {out / 'tables'}")
