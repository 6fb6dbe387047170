"""The option that names the behaviour that is asked about, for every command that asks about any."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mechinterp.cli.added import adding
from mechinterp.cli.reading import Reading
from mechinterp.errors import InputError

if TYPE_CHECKING:
    from mechinterp.answers.behaviour import Behaviour
    from mechinterp.data.pairs import AnyPair

OPTIONS: dict[str, Any] = {
    "behaviour": Annotated[
        str,
        typer.Option(
            metavar="unsafe|refuses|facts|trait:NAME",
            help="What answers are judged for: unsafe ones; refusals; whether they give what was to be forgotten "
            "(--data: facts, or prompts with answers); whether they show a trait (--data: topics).",
        ),
    ],
}


@dataclass(frozen=True)
class Behaving:
    """Which behaviour."""

    behaviour: str = "unsafe"

    @property
    def which(self) -> Behaviour:
        """The behaviour.

        Raises:
            InputError: for an unknown one.
        """
        from mechinterp.answers.behaviour import Behaviour

        return Behaviour.named(self.behaviour)

    def pairs(self, reading: Reading, data: Path) -> list[AnyPair]:
        """The pairs of a file.

        Raises:
            InputError: as whoever reads it; for columns of pairs, where the file has none.
        """
        if self.which.of_pairs:
            return self.which.pairs(reading.of(data))
        self.check(reading)
        return self.which.pairs(data)

    def check(self, reading: Reading) -> None:
        """Raise `InputError` for columns of pairs, where the data are none."""
        if reading != Reading():
            raise InputError(f"of {self.behaviour} the data are no pairs; leave out what says how these are read")


of_behaviour = adding("behaving", OPTIONS, Behaving, {"behaviour": "unsafe"})
"""Gives a command this option, which it gets as one argument, `behaving`: a `Behaving`."""
