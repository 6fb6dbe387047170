"""Messages name what a Python user gives, `max_new_tokens`; on the command line they name the option for it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

_MARKED = re.compile(r"`(\w+)(?:=([^`]*))?`")
"""An argument, alone or with a value: `truncate`, `dtype=float32`, `check=False`."""

_options: dict[str, Any] = {}
"""Those of the command that was called, by the argument that each gives; of click's class."""


def learn_options(command: Any, words: Sequence[str]) -> None:
    """Take note of the options of the command that is called.

    Args:
        command: the group of all, of click's class.
        words: what follows the program's name.
    """
    for word in words:
        if word not in getattr(command, "commands", {}):
            break
        command = command.commands[word]
    _options.clear()
    _options.update({each.name: each for each in command.params if each.param_type_name == "option"})


def as_options(text: str) -> str:
    """A message with each argument that is an option of the command that was called written as that option."""
    return _MARKED.sub(_spelled, text)


def _spelled(found: re.Match[str]) -> str:
    name, value = found.groups()
    option = _options.get(name)
    if option is None or (value == "False" and not option.secondary_opts):
        return found[0]
    if value == "False":
        return str(option.secondary_opts[0])
    return str(option.opts[0]) if value in (None, "True") else f"{option.opts[0]} {value}"
