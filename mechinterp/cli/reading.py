"""The options that say how the file of --data is read, for every command that has one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mechinterp.cli.added import adding

if TYPE_CHECKING:
    from mechinterp.data.pairs import AnyPair


def _column(what: str) -> Any:
    return Annotated[str | None, typer.Option(metavar="NAME", help=f"Column or key of the {what} in --data.")]


OPTIONS: dict[str, Any] = {
    **{f"{field}_column": _column(what) for field, what in (("prompt", "prompt"), ("unsafe", "unsafe answer"))},
    **{f"{field}_column": _column(what) for field, what in (("safe", "safe answer"), ("category", "category"))},
    "safe_log": Annotated[
        Path | None,
        typer.Option(help="--data is a chat log with unsafe answers; the same conversations with safe ones."),
    ],
}


@dataclass(frozen=True)
class Reading:
    """How a file of pairs is read; which kind it is shows in its content."""

    prompt_column: str | None = None
    unsafe_column: str | None = None
    safe_column: str | None = None
    category_column: str | None = None
    safe_log: Path | None = None

    def of(self, path: Path) -> list[AnyPair]:
        """The pairs of a file.

        Raises:
            InputError: for a file that is none of pairs, or a malformed row.
        """
        from mechinterp.data.pair_files import Columns, read_pairs

        columns = Columns(self.prompt_column, self.unsafe_column, self.safe_column, self.category_column)
        return read_pairs(path, columns=columns, safe_log=self.safe_log)


of_pairs = adding("reading", OPTIONS, Reading)
"""Gives a command these options, which it gets as one argument, `reading`: a `Reading`."""
