"""Which changed weights carry a change of behaviour."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mechinterp.cli.behaving import Behaving, of_behaviour
from mechinterp.cli.chatting import in_chat_format
from mechinterp.cli.common import read_direction, reporting, say, settings_of
from mechinterp.cli.judging import Judging, judging_answers
from mechinterp.cli.loading import Loading, of_whole_models
from mechinterp.cli.options import Data, Seed, Truncate
from mechinterp.cli.reading import Reading, of_pairs

if TYPE_CHECKING:
    from mechinterp.models.text.chat import ChatChoice

commands = typer.Typer()


class GroupingName(StrEnum):
    """How fine the groups of weights are."""

    kinds = "kinds"
    attention = "split"
    blocks = "blocks"


class GameName(StrEnum):
    """Whether the game over hybrids is played."""

    auto = "auto"
    always = "always"
    never = "never"


class AnswersName(StrEnum):
    """Whose unsafe answers are read."""

    base = "base"
    data = "data"


class PositionName(StrEnum):
    """Where a write is read."""

    prompt_last = "prompt_last"
    response = "response"


@commands.command()
@in_chat_format
@of_pairs
@judging_answers
@of_behaviour
@of_whole_models
def origins(
    base: Annotated[str, typer.Option(help="The unedited model.")],
    checkpoint: Annotated[
        list[str], typer.Option(help="NAME=PATH of a tuned model, adapter, edit or state dict; repeatable.")
    ],
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder for tables and figures.")],
    readouts: Annotated[
        list[str] | None, typer.Option("--readout", help="log_odds (if none is given) or unsafe_logprob; repeatable.")
    ] = None,
    direction: Annotated[
        list[str] | None,
        typer.Option(help="FILE or NAME=FILE of a direction: the write along it is a read-out too; repeatable."),
    ] = None,
    position: Annotated[PositionName, typer.Option(help="Where that write is read.")] = PositionName.prompt_last,
    answers: Annotated[
        AnswersName,
        typer.Option(help="Whose unsafe answers are read: the base's own where it gives any, or the data's."),
    ] = AnswersName.base,
    groups: Annotated[
        GroupingName, typer.Option(help="Groups of weights: kinds, attention split in two, or a group for each block.")
    ] = GroupingName.kinds,
    game: Annotated[
        GameName, typer.Option(help="The exact game over groups; auto: where it takes a minute of one core at most.")
    ] = GameName.auto,
    nodes: Annotated[int, typer.Option(min=1, help="Along the path; each costs a forward and a backward pass.")] = 4,
    most_nodes: Annotated[
        int,
        typer.Option(min=0, help="Spent at most, halving pieces of the path, where its sum is off by more than 2%."),
    ] = 20,
    prompts: Annotated[int, typer.Option(min=2, help="At most so many prompts.")] = 32,
    tokens: Annotated[int, typer.Option(min=1, help="First tokens of each answer that are read.")] = 16,
    top: Annotated[int, typer.Option(min=1, help="Neurons, and heads, that are listed.")] = 20,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer that is judged, in tokens.")] = 32,
    truncate: Truncate = False,
    seed: Seed = 0,
    *,
    loading: Loading,
    chat: ChatChoice,
    reading: Reading,
    judging: Judging,
    behaving: Behaving,
) -> None:
    """Which changed weights carry the change of behaviour: embeddings, attention, MLPs, value vectors, norms?

    --out gets tables/origins.csv (a row per group), origins_blocks.csv (per block and group), origins_neurons.csv (the
    neurons and heads that carry most), origins_controls.csv (what is known beforehand), and their figures.
    """
    from mechinterp.audit.origins.settings import OriginsSettings
    from mechinterp.report.origins_in_words import origins_in_words
    from mechinterp.runs.origins import attribute_checkpoints

    before, tuned, _ = loading.candidates(base, checkpoint)
    more = [read_direction(text) for text in direction or []]
    chosen = {"groups": groups.value, "game": game.value, "prompts": prompts, "tokens": tokens, "nodes": nodes}
    settings = settings_of(
        OriginsSettings, {**chosen, "most_nodes": most_nodes, "top": top, "readouts": readouts or None}
    )
    pairs = behaving.pairs(reading, data)
    with reporting(goes_on=True) as terminal:
        own = answers is AnswersName.base
        judge = judging.of(pairs, seed, loading.device, terminal.note, behaving.which) if own else None
        found = attribute_checkpoints(
            before,
            tuned,
            pairs,
            judge,
            out=out,
            settings=settings,
            behaviour=behaving.which,
            directions=more,
            position=position.value,
            max_new_tokens=max_new_tokens,
            seed=seed,
            truncate=truncate,
            chat=chat,
            reporter=terminal,
        )
    for line in origins_in_words(found.table("origins")):
        say(found.wording.worded(line))
    say(f"tables: {out / 'tables'}")
