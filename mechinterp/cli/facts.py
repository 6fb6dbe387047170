"""Asking a checkpoint facts, before and after a change of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mechinterp.cli.chatting import in_chat_format
from mechinterp.cli.common import reporting, say
from mechinterp.cli.loading import Loading, of_whole_models
from mechinterp.cli.options import Model, Seed, Truncate
from mechinterp.errors import InputError

if TYPE_CHECKING:
    from mechinterp.models.text.chat import ChatChoice
    from mechinterp.runs.candidate import Candidate

commands = typer.Typer()


@commands.command("evaluate-facts")
@in_chat_format
@of_whole_models
def evaluate_facts(
    model: Model,
    facts: Annotated[
        Path,
        typer.Option(
            help="Facts: JSON lines or a list (prompt, target_new, ground_truth), a set of KnowEdit, a relation of "
            "LRE, or `common`: sixty of our own."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the tables, and for what is said.")],
    base: Annotated[
        str | None,
        typer.Option(help="The model before its change: locality is against it; an edit or adapter stands on it."),
    ] = None,
    edit: Annotated[
        Path | None,
        typer.Option(
            help="Folder of an edit of the model, which is then the base; or of many, each asked its own fact."
        ),
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Let it answer by itself too, by so many tokens: what it says, and fluency."),
    ] = None,
    known: Annotated[
        bool, typer.Option("--known", help="Only facts whose ground truth the model before its change answers right.")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N facts.")] = None,
    truncate: Truncate = False,
    seed: Seed = 0,
    *,
    loading: Loading,
    chat: ChatChoice,
) -> None:
    """What a checkpoint answers to facts: edit success, in other words too, portability, locality; with intervals.

    --out gets tables/facts.csv, a row per fact, and tables/facts_summary.csv, a row per quantity; with
    --max-new-tokens also answers/NAME.json.
    """
    from mechinterp.answers.edits_found import find_edits
    from mechinterp.data.facts.named import named_facts
    from mechinterp.report.facts_in_words import facts_in_words
    from mechinterp.runs import facts as running
    from mechinterp.runs.candidate import Candidate

    if edit is not None and base is not None:
        raise InputError("--edit changes the --model, which is its base; leave --base out")
    asked = named_facts(facts)[:limit]
    before: Candidate | None = None
    tuned: list[Candidate] = []
    edits: dict[str, running.Edits] = {}
    if edit is not None:
        before = Candidate.of(model, name="base", **loading.options)
        if found := find_edits(edit):
            edits[edit.name] = {number: folder for number, folder in found.items() if number <= len(asked)}
        else:
            tuned.append(running.named_apart(Candidate.of(edit, base=before, **loading.options), before))
    else:
        before = None if base is None else Candidate.of(base, name="base", **loading.options)
        tuned.append(running.named_apart(Candidate.of(model, base=before, **loading.options), before))
    with reporting() as terminal:
        result = running.evaluate_facts(
            before,
            tuned,
            asked,
            edits=edits,
            known=known,
            out=out,
            max_new_tokens=max_new_tokens,
            seed=seed,
            truncate=truncate,
            chat=chat,
            reporter=terminal,
        )
    for line in facts_in_words(result.table("facts_summary")):
        say(line)
    say(f"tables: {out / 'tables'}")
