"""Options that several commands share, given to a command together and handed to it as one argument."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

Command = Callable[..., None]


def adding(
    name: str, options: Mapping[str, Any], make: Callable[..., Any], defaults: Mapping[str, Any] | None = None
) -> Callable[[Command], Command]:
    """A decorator that gives a command options, none of which need be given.

    Args:
        name: of the command's argument, a keyword one, that they become.
        options: name -> annotated type, as typer reads it.
        make: makes the argument, from the options by their names.
        defaults: name -> what an option is that is not given; None for those that are not named.
    """

    def decorate(command: Command) -> Command:
        @wraps(command)
        def with_options(*args: Any, **given: Any) -> None:
            command(*args, **{name: make(**{one: given.pop(one) for one in options})}, **given)

        signature = inspect.signature(command)
        kept = [
            parameter.replace(annotation=_evaluated(parameter.annotation, command))
            for parameter in signature.parameters.values()
            if parameter.name != name
        ]
        added = [
            inspect.Parameter(one, inspect.Parameter.KEYWORD_ONLY, default=(defaults or {}).get(one), annotation=option)
            for one, option in options.items()
        ]
        with_options.__signature__ = signature.replace(parameters=[*kept, *added])  # type: ignore[attr-defined]
        with_options.__annotations__ = {one.name: one.annotation for one in (*kept, *added)}
        del with_options.__wrapped__  # whose options are not these
        return with_options

    return decorate


def _evaluated(annotation: Any, command: Any) -> Any:
    """A type; one that is not loaded, of an argument that another of these decorators makes, as it is written."""
    try:
        return eval(annotation, command.__globals__) if isinstance(annotation, str) else annotation
    except NameError:
        return annotation
