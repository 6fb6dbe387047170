"""Making pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mechinterp.cli.common import is_main, reporting, say
from mechinterp.cli.judging import Judging, judging_answers
from mechinterp.cli.loading import Loading, of_a_model
from mechinterp.cli.options import LabelColumn, Model, Seed, TextColumn
from mechinterp.data.counting import many
from mechinterp.errors import InputError

commands = typer.Typer()


@commands.command()
@judging_answers
@of_a_model
def pairs(
    model: Model,
    pairs_from_comments: Annotated[Path, typer.Option(help="Labelled comments, CSV; Jigsaw's columns if not told.")],
    out: Annotated[Path, typer.Option(help="File of the pairs, JSON lines (.jsonl); a killed run goes on there.")],
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest continuation, in tokens.")] = 32,
    words: Annotated[int, typer.Option(min=6, help="Words of a longer comment that are read.")] = 60,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N toxic comments.")] = None,
    draws: Annotated[
        int, typer.Option(min=0, help="Continuations drawn at most where the greedy one is not clean; 0: no pair.")
    ] = 4,
    split: Annotated[
        bool,
        typer.Option(
            "--split",
            help="Also OUT-train, -validation, -test, -labelled.jsonl and -comments.csv, of which a study is made.",
        ),
    ] = False,
    seed: Seed = 0,
    *,
    loading: Loading,
    judging: Judging,
) -> None:
    """Pairs of real comments: the first half of a toxic one, its rest, and a clean continuation of the model's own.

    That is the greedy one, or else the first clean one of --draws at temperature 1. The model reads plain text whatever
    template it has; train and compare on the pairs with --chat none. Without --judge one is made of the comments
    themselves.
    """
    from mechinterp.data.comments import read_comments
    from mechinterp.data.storage.places import check_free
    from mechinterp.models.text.chat import PLAIN
    from mechinterp.runs.pairs_from_comments import judge_of_comments, split_files, write_split
    from mechinterp.runs.pairs_from_comments import pairs_from_comments as make

    comments = read_comments(pairs_from_comments, text_column=text_column, label_column=label_column)
    if judging != Judging() and not judging.given:
        raise InputError("the embedded judge is made of the comments if no other is given: leave --judge out")
    if split:
        check_free(*split_files(out).values())
    with reporting(goes_on=True) as terminal:
        if judging.given:
            judge = judging.of([], seed, loading.device, terminal.note)
        else:
            judge = judge_of_comments(comments, seed=seed, note=terminal.note)
        checkpoint = loading.of(model, PLAIN)
        found = make(
            checkpoint,
            comments,
            judge,
            out,
            max_new_tokens=max_new_tokens,
            words=words,
            limit=limit,
            draws=draws,
            seed=seed,
            progress=terminal.progress("going on with comments"),
        )
    say(f"{many(len(found), 'pair')}: {out}")
    if split and is_main():
        for path in write_split(found, comments, out, seed=seed).values():
            say(path)
