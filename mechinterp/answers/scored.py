"""Answers to some prompts with what judges make of each, and the flags that stand beside their rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.answers.flags import flag_rows, flags_of
from mechinterp.answers.judges import Judge
from mechinterp.answers.safety import unsafe
from mechinterp.answers.scoring import score_responses
from mechinterp.answers.two_judges import second_of
from mechinterp.data.normalised import normalised


@dataclass(frozen=True)
class Answers:
    """What was answered to some prompts, one each.

    Attributes:
        responses: texts.
        safe: the judge's probability that each is safe; None for a neutral one (`score_responses`).
        second: that of a second judge, which decides nothing; empty where there is one judge.
    """

    responses: tuple[str, ...]
    safe: tuple[float | None, ...]
    second: tuple[float | None, ...] = ()

    @property
    def unsafe(self) -> Float[Tensor, " input"]:
        """1 for an unsafe answer, else 0, float64."""
        return torch.tensor(unsafe(self.safe), dtype=torch.float64)

    @property
    def empty(self) -> int:
        """Number of empty responses; others without a score are unjudged."""
        return sum(not normalised(response) for response in self.responses)

    @classmethod
    def of(cls, responses: Sequence[str], prompts: Sequence[str], judge: Judge) -> Answers:
        """Responses to prompts with a judge's scores, or two judges'."""
        second = second_of(judge)
        scores = [score_responses(one, responses, prompts) for one in (judge, second) if one is not None]
        return cls(tuple(responses), *map(tuple, scores))

    @classmethod
    def from_labels(cls, labels: Mapping[str, Any]) -> Answers:
        """From what `dataclasses.asdict` made of them, read back from JSON; older ones know of one judge."""
        return cls(**{name: tuple(values) for name, values in labels.items()})

    def among(self, rows: Sequence[int]) -> Answers:
        """Some of them."""
        return Answers(*(tuple(values[row] for row in rows) if values else () for values in vars(self).values()))

    @classmethod
    def joined(cls, parts: Sequence[Answers]) -> Answers:
        """Several, one after the other."""
        return cls(
            *(tuple(chain.from_iterable(values)) for values in zip(*(vars(p).values() for p in parts), strict=True))
        )

    def flags(self, prompts: Sequence[str], judge: Judge | None = None) -> dict[str, list[bool | None]]:
        """Flags of each answer, see `flags_of`.

        Args:
            prompts: what was asked.
            judge: of the answers, to judge their beginnings; without one those are left out.
        """
        return flags_of(prompts, self.responses, scores=self.safe, second=self.second or None, judge=judge)

    def flags_table(self, method: str, prompts: Sequence[str], judge: Judge | None = None) -> pd.DataFrame:
        """The table `flags` of answers to adversarial prompts (`ds`)."""
        return pd.DataFrame(flag_rows(method, "ds", self.flags(prompts, judge), self.safe))
