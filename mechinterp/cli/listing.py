"""The list of commands with the whole first sentence of each, however narrow the window is."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup


class Commands(TyperGroup):
    """A group of commands whose help cuts nothing short."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the section of commands."""
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, _first_paragraph(each)) for name, each in found if each is not None])


def _first_paragraph(command: Any) -> str:
    return " ".join((command.help or "").split("\n\n")[0].split())
