"""What is drawn when intervals are: prompts of one question together, or the groups of prompts that gradients keep.

Contributions are kept as their mean over the prompts of each unit, with the number of prompts behind it; a mean over
all prompts, and every bootstrap draw of it, is a weighted mean over units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

GROUPS_OF_PROMPTS = 16
"""Units whose gradients are kept apart."""


@dataclass(frozen=True)
class Units:
    """The prompts of every unit.

    Attributes:
        prompts: their numbers.
    """

    prompts: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, questions: Sequence[int], at_most: int | None = None) -> Units:
        """Units of prompts that are never parted.

        Args:
            questions: of every prompt, the number of what it shares with others.
            at_most: that many units: the questions are dealt out in turn.
        """
        numbers = {question: place for place, question in enumerate(dict.fromkeys(questions))}
        count = len(numbers) if at_most is None else min(at_most, len(numbers))
        found: list[list[int]] = [[] for _ in range(count)]
        for prompt, question in enumerate(questions):
            found[numbers[question] % count].append(prompt)
        return cls(tuple(map(tuple, found)))

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def sizes(self) -> Float[Tensor, " unit"]:
        """Prompts of each."""
        return torch.tensor([len(own) for own in self.prompts], dtype=torch.float64)

    def means(self, values: Float[Tensor, " prompt"]) -> Float[Tensor, " unit"]:
        """Mean over the prompts of each."""
        return torch.stack([values[list(own)].mean() for own in self.prompts])
