"""Messages name what a Python user gives, `max_new_tokens`; on the command line they name the option for it."""

from __future__ import annotations

import re
import sys
from typing import Any

_MARKED = re.compile(r"`(\w+)(?:=([^`]*))?`")
"""An argument, alone or with a value: `truncate`, `dtype=float32`, `check=False`."""


def as_options(text: str) -> str:
    """A message with each argument that is an option of the command that was called written as that option."""
    if not _MARKED.search(text):
        return text
    options = {option.name: option for option in _command().params if option.param_type_name == "option"}

    def spelled(found: re.Match[str]) -> str:
        name, value = found.groups()
        option = options.get(name)
        if option is None or (value == "False" and not option.secondary_opts):
            return found[0]
        if value == "False":
            return str(option.secondary_opts[0])
        return str(option.opts[0]) if value in (None, "True") else f"{option.opts[0]} {value}"

    return _MARKED.sub(spelled, text)


def _command() -> Any:
    """The command that was called, of click's; the group of all where that cannot be told."""
    from typer.main import get_command

    from mechinterp.cli.app import app

    found: Any = get_command(app)
    for word in sys.argv[1:]:
        if word not in getattr(found, "commands", {}):
            break
        found = found.commands[word]
    return found
