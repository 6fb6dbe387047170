"""Messages name what a Python user gives, `max_new_tokens`; on the command line they name what was typed for it.

That is an option, or an argument by its name in the usage line. A command's parameters are called as in Python,
whatever they are typed as: `attacks` is typed as NAME, `options` as --set.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

_MARKED = re.compile(r"`(\w+)(?:\.\w+)*(?:=([^`]*))?`")
"""An argument, alone, or with a value, or one of several things in it: `truncate`, `dtype=float32`, `lora.rank`."""

_ALSO = {"block": "layer", "blocks": "layer"}
"""What is given by an option of another name, where the command has none of its own."""

_typed: dict[str, Any] = {}
"""Options and arguments of the command that was called, by the parameter that each gives; of click's class."""


def learn_options(command: Any, words: Sequence[str]) -> None:
    """Take note of the options and arguments of the command that is called.

    Args:
        command: the group of all, of click's class.
        words: what follows the program's name.
    """
    for word in words:
        if word not in getattr(command, "commands", {}):
            break
        command = command.commands[word]
    _typed.clear()
    _typed.update({each.name: each for each in command.params})


def as_options(text: str) -> str:
    """A message with each parameter of the command that was called written as it is typed."""
    return _MARKED.sub(_spelled, text)


def _spelled(found: re.Match[str]) -> str:
    name, value = found.groups()
    typed = _typed.get(name) or _typed.get(_ALSO.get(name, ""))
    if typed is None:
        return found[0]
    if typed.param_type_name == "argument":
        return str(typed.metavar or typed.name.upper())
    if value == "False":
        return str(typed.secondary_opts[0]) if typed.secondary_opts else found[0]
    return str(typed.opts[0]) if value in (None, "True") else f"{typed.opts[0]} {value}"
