"""What a model is fed of a prompt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mechinterp.cli.chatting import in_chat_format
from mechinterp.cli.common import reporting, say
from mechinterp.cli.loading import Loading, of_a_model
from mechinterp.cli.options import Model, Prompts, Truncate
from mechinterp.data.counting import many
from mechinterp.errors import InputError

if TYPE_CHECKING:
    from mechinterp.models.text.chat import ChatChoice

commands = typer.Typer()


@commands.command(name="show-tokens")
@in_chat_format
@of_a_model
def show_tokens(
    model: Model,
    prompt: Annotated[str | None, typer.Option(help="A prompt: the user's message.")] = None,
    prompts: Prompts = None,
    row: Annotated[int, typer.Option(min=1, help="Which of --prompts.")] = 1,
    response: Annotated[str | None, typer.Option(help="A response after it.")] = None,
    prefix: Annotated[str | None, typer.Option(help="Text before the prompt.")] = None,
    suffix: Annotated[str | None, typer.Option(help="Text after the prompt, as edited models are asked with.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the table.")] = None,
    truncate: Truncate = False,
    *,
    loading: Loading,
    chat: ChatChoice,
) -> None:
    """What a model is fed of a prompt, token by token: ids, parts, positions, and the first token of its answer."""
    if (prompt is None) == (prompts is None):
        raise InputError("give one prompt: --prompt TEXT, or --prompts FILE with --row")
    if prompts is None and row > 1:
        raise InputError("--row is one of --prompts FILE; leave it out")
    from mechinterp.answers.fed_tokens import fed_tokens
    from mechinterp.data.benign import read_benign
    from mechinterp.data.storage.places import check_replaceable, check_writable

    asked: str = prompt or ""
    if prompts is not None:
        listed = read_benign(prompts, what="prompts")
        if row > len(listed):
            raise InputError(f"{prompts}: has {many(len(listed), 'prompt')}, there is none of --row {row}")
        asked, response = listed[row - 1].prompt, listed[row - 1].answer if response is None else response
    if out is not None:
        check_writable(out, kind="folder")
        check_replaceable(out)
    with reporting():
        checkpoint = loading.of(model, chat)
        found = fed_tokens(checkpoint, asked, response, prefix=prefix, suffix=suffix, truncate=truncate)
    if out is not None:
        found.save(out)
    table = found.table.assign(token=[repr(text) for text in found.table["token"]])
    say(table.to_string(index=False, justify="left", formatters={"token": "{:<12}".format, "part": "{:<8}".format}))
    say(f"chat format: {found.chat}\n{found.said}")
    if out is not None:
        say(f"tables: {out}")
