"""Options that several commands share, given to a command together and handed to it as one argument."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

Command = Callable[..., None]


def adding(name: str, options: Mapping[str, Any], make: Callable[..., Any]) -> Callable[[Command], Command]:
    """A decorator that gives a command options, none of which need be given.

    Args:
        name: of the command's argument, a keyword one, that they become.
        options: name -> annotated type, as typer reads it; each is None if it is not given.
        make: makes the argument, from the options by their names.
    """

    def decorate(command: Command) -> Command:
        @wraps(command)
        def with_options(*args: Any, **given: Any) -> None:
            command(*args, **{name: make(**{one: given.pop(one) for one in options})}, **given)

        command.__annotations__ = {one: kind for one, kind in command.__annotations__.items() if one != name}
        signature = inspect.signature(command, eval_str=True)  # but for the argument, whose type need not be loaded
        kept = [parameter for parameter in signature.parameters.values() if parameter.name != name]
        added = [
            inspect.Parameter(one, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option)
            for one, option in options.items()
        ]
        with_options.__signature__ = signature.replace(parameters=[*kept, *added])  # type: ignore[attr-defined]
        with_options.__annotations__ = {one.name: one.annotation for one in (*kept, *added)}
        del with_options.__wrapped__  # whose options are not these
        return with_options

    return decorate
