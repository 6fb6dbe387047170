"""The options of a chat format, for every command that feeds text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mechinterp.cli.added import adding
from mechinterp.cli.speaking import say

if TYPE_CHECKING:
    from mechinterp.models.text.chat import ChatChoice, ChatFormat

OPTIONS: dict[str, Any] = {
    "chat": Annotated[
        str | None,
        typer.Option(
            metavar="auto|none|FILE",
            help="How prompts are fed: in the tokenizer's chat template, as plain text, or in a file's template; auto "
            "where the tokenizer has one, if not given.",
        ),
    ],
    "system": Annotated[
        str | None, typer.Option(help="System message of the chat format; an empty one is not an absent one.")
    ],
    "thinking": Annotated[
        bool | None,
        typer.Option("--thinking/--no-thinking", help="Whether a reasoning model's template lets it think first."),
    ],
    "date": Annotated[
        str | None, typer.Option(metavar="YYYY-MM-DD", help="The day that a template is told; one of its own if not.")
    ],
}


def _choice(**given: Any) -> ChatChoice:
    from mechinterp.models.text.chat import ChatChoice

    return ChatChoice(**given)


in_chat_format = adding("chat", OPTIONS, _choice)
"""Gives a command the options of a chat format, which it gets as one argument, `chat`: a `ChatChoice`."""


def tell(chat: ChatFormat | None, *, templates: bool) -> None:
    """Say in which format texts are fed.

    Args:
        chat: the format.
        templates: whether there is a template that it could have been; without one nothing is said of plain text.
    """
    if chat is not None:
        say(f"chat format: {chat}", err=True)
    elif templates:
        say("chat format: none, though the tokenizer has a template: texts are fed as they are", err=True)
