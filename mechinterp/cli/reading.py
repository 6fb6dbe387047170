"""The options that say how a file of pairs is read, for every command that has one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mechinterp.cli.added import Command, adding

if TYPE_CHECKING:
    from mechinterp.data.pairs import AnyPair


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


_FIELDS = {"prompt": "prompt", "unsafe": "unsafe answer", "safe": "safe answer", "category": "category"}


def of_pairs_under(option: str) -> Callable[[Command], Command]:
    """Gives a command these options, which it gets as one argument, `reading`: a `Reading`.

    Args:
        option: of the command, under which the file is given.
    """
    told = {field: f"Column or key of the {what} in {option}." for field, what in _FIELDS.items()}
    options: dict[str, Any] = {
        f"{field}_column": Annotated[str | None, typer.Option(metavar="NAME", help=text)]
        for field, text in told.items()
    }
    log = f"{option} is a chat log with unsafe answers; the same conversations with safe ones."
    options["safe_log"] = Annotated[Path | None, typer.Option(help=log)]
    return adding("reading", options, Reading)


of_pairs = of_pairs_under("--data")
