"""The options of a chat format, for every command that feeds text."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mechinterp.cli.speaking import say

if TYPE_CHECKING:
    from mechinterp.models.text.chat import ChatFormat

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


def in_chat_format(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of a chat format, which it gets as one argument, `chat`: a `ChatChoice`."""

    @wraps(command)
    def with_options(*args: Any, **given: Any) -> None:
        from mechinterp.models.text.chat import ChatChoice

        command(*args, chat=ChatChoice(**{name: given.pop(name) for name in OPTIONS}), **given)

    command.__annotations__ = {name: kind for name, kind in command.__annotations__.items() if name != "chat"}
    signature = inspect.signature(command, eval_str=True)  # but for `chat`, whose type is loaded when it is needed
    kept = [parameter for parameter in signature.parameters.values() if parameter.name != "chat"]
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option)
        for name, option in OPTIONS.items()
    ]
    with_options.__signature__ = signature.replace(parameters=[*kept, *added])  # type: ignore[attr-defined]
    with_options.__annotations__ = {one.name: one.annotation for one in (*kept, *added)}
    del with_options.__wrapped__  # whose options are not these
    return with_options


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
