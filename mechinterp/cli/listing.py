"""Help that cuts nothing short and keeps within the window, however narrow it is."""

from __future__ import annotations

import shutil
from typing import Any

import typer
from typer.core import TyperGroup

_Formatter: Any = typer.Context.formatter_class  # click's, for which typer has no name


class _InWindow(_Formatter):
    """Where there is no room for two columns, what a name means stands below it."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**{**given, "width": min(shutil.get_terminal_size().columns, 80) - 2})

    def write_dl(self, rows: Any, col_max: int = 30, col_spacing: int = 2) -> None:
        """Write names with what they mean."""
        super().write_dl(rows, min(col_max, max(self.width - 48, 4)), col_spacing)


class _Context(typer.Context):
    formatter_class = _InWindow


class Commands(TyperGroup):
    """A group of commands whose help cuts nothing short."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the section of commands."""
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, _first_paragraph(each)) for name, each in found if each is not None])


def in_window(command: Any) -> Any:
    """A command, itself, whose help and that of all its own commands keeps within the window."""
    command.context_class = _Context
    for own in getattr(command, "commands", {}).values():
        in_window(own)
    return command


def _first_paragraph(command: Any) -> str:
    return " ".join((command.help or "").split("\n\n")[0].split())
