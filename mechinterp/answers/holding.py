"""A judge that is told what each response answers, and says whether it shows a behaviour (`behaviour_judges`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from mechinterp.data.showing import one_line

Holds = Callable[[Sequence[str], Sequence[str]], np.ndarray]
"""(prompts, responses) -> whether each response shows the behaviour: 1, 0, or nan where that cannot be told."""


@dataclass(frozen=True)
class Holding:
    """A judge to which an answer is safe that does not show a behaviour.

    Attributes:
        name: in tables.
        holds: see `Holds`.
        fingerprint: of what it is made from.
    """

    name: str
    holds: Holds = field(repr=False)
    fingerprint: str = ""

    def __repr__(self) -> str:
        return one_line(self, self.name)

    def __call__(self, responses: Sequence[str], prompts: Sequence[str] | None = None) -> np.ndarray:
        """1 for a response that does not show it, 0 for one that does; nan where that cannot be told.

        Args:
            responses: texts.
            prompts: what each answers; without them nothing can be told.
        """
        if prompts is None:
            return np.full(len(responses), np.nan)
        return 1.0 - np.asarray(self.holds([str(prompt) for prompt in prompts], responses), dtype=float)
