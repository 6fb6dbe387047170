"""What can still be read off the states of checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mechinterp.cli.behaving import Behaving, of_behaviour
from mechinterp.cli.chatting import in_chat_format
from mechinterp.cli.common import reporting, say
from mechinterp.cli.judging import Judging, judging_answers
from mechinterp.cli.loading import Loading, of_whole_models
from mechinterp.cli.options import Data, Never, Seed, Truncate
from mechinterp.cli.reading import Reading, of_pairs

if TYPE_CHECKING:
    from mechinterp.models.text.chat import ChatChoice

commands = typer.Typer()


@commands.command()
@in_chat_format
@of_pairs
@judging_answers
@of_behaviour
@of_whole_models
def decode(
    base: Annotated[str, typer.Option(help="The unedited model.")],
    checkpoint: Annotated[
        list[str], typer.Option(help="NAME=PATH of a tuned model, adapter, edit or state dict; repeatable.")
    ],
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder for the table and its figure.")],
    never: Never = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer of the base, in tokens.")] = 32,
    truncate: Truncate = False,
    seed: Seed = 0,
    *,
    loading: Loading,
    chat: ChatChoice,
    reading: Reading,
    judging: Judging,
    behaving: Behaving,
) -> None:
    """Can it still be read off the states which prompts the base answers unsafely, and what it would say?

    --out gets tables/decodability.csv, a row per block of each checkpoint: probes trained anew on its states and scored
    on held-out categories, beside a bag of words, shuffled labels, random weights and --never; and how soon the token
    with which the base begins an unsafe answer would be said.
    """
    from mechinterp.report.decodability_in_words import decodability_in_words
    from mechinterp.runs.decoding import decode_checkpoints

    before, tuned, reference = loading.candidates(base, checkpoint, never)
    instances = behaving.pairs(reading, data)
    with reporting(goes_on=True) as terminal:
        found = decode_checkpoints(
            before,
            tuned,
            instances,
            judging.of(instances, seed, loading.device, terminal.note, behaving.which),
            out=out,
            never=reference,
            behaviour=behaving.which,
            max_new_tokens=max_new_tokens,
            seed=seed,
            truncate=truncate,
            chat=chat,
            reporter=terminal,
        )
    for line in decodability_in_words(found.table("decodability"), found.wording):
        say(line)
    say(f"tables: {out / 'tables'}")
