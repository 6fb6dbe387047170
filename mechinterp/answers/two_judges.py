"""Two judges of the same responses: the first decides, and how often the second disagrees is reported beside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mechinterp.answers.judges import Judge


@dataclass(frozen=True)
class TwoJudges:
    """The first decides.

    Attributes:
        first, second: judges, neither of them two.
    """

    first: Judge
    second: Judge

    @property
    def name(self) -> str:
        """That of the one who decides."""
        return self.first.name

    @property
    def accuracy(self) -> float | None:
        """That of the one who decides, where it is known."""
        return getattr(self.first, "accuracy", None)

    def __call__(self, responses: Sequence[str]) -> np.ndarray:
        """Probability of safe, of the one who decides."""
        return self.first(responses)


def deciding(judge: Judge) -> Judge:
    """The judge that decides: of two the first."""
    return judge.first if isinstance(judge, TwoJudges) else judge


def second_of(judge: Judge) -> Judge | None:
    """The other one, if there are two."""
    return judge.second if isinstance(judge, TwoJudges) else None
