"""The options that name the judge, for every command that has answers judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mechinterp.cli.added import adding

if TYPE_CHECKING:
    from mechinterp.answers.behaviour import Behaviour
    from mechinterp.answers.judges import Judge
    from mechinterp.data.pairs import AnyPair

OPTIONS: dict[str, Any] = {
    "judge": Annotated[
        list[str] | None,
        typer.Option(
            metavar="FOLDER|embedded|keywords[:FILE]",
            help="A sequence classifier, the one made here (of --judge-responses, else of the data: the default), or "
            "keywords: what begins like a refusal is safe, or what has no word of FILE. Twice: the first decides, how "
            "often the second disagrees is reported.",
        ),
    ],
    "judge_responses": Annotated[
        Path | None,
        typer.Option(help='Labelled responses that a judge is made of, JSON lines of {"response": ..., "safe": true}.'),
    ],
    "judge_safe_label": Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A classifier's label that means safe, where its config does not tell."),
    ],
}


@dataclass(frozen=True)
class Judging:
    """Which judge."""

    judge: Sequence[str] | None = None
    judge_responses: Path | None = None
    judge_safe_label: str | None = None

    @property
    def given(self) -> bool:
        """Whether there is one without the data."""
        return self.judge_responses is not None or (bool(self.judge) and "embedded" not in (self.judge or ()))

    def of(
        self,
        instances: Sequence[AnyPair],
        seed: int,
        device: str,
        note: Callable[[str], None],
        behaviour: Behaviour | None = None,
    ) -> Judge:
        """The judge; tells which (`answers.choosing`). Of another behaviour than answering unsafely its own."""
        from mechinterp.answers.behaviour import UNSAFE, judge_of

        return judge_of(
            behaviour or UNSAFE,
            self.judge or None,
            instances,
            seed=seed,
            device=device,
            note=note,
            responses=self.judge_responses,
            safe_label=self.judge_safe_label,
        )


judging_answers = adding("judging", OPTIONS, Judging)
"""Gives a command these options, which it gets as one argument, `judging`: a `Judging`."""
