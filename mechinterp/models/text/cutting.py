"""Prompts that are cut on the left to fit: what stays, and what is said of it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from mechinterp.models.text.special_tokens import shown

logger = logging.getLogger(__name__)


def keep_right(ids: Sequence[int], length: int, left: int) -> list[int]:
    """At most `length` tokens: the first `left` of a text, and as many of its last ones as fit."""
    left = min(left, length - 1)
    return list(ids) if len(ids) <= length else [*ids[:left], *ids[len(ids) - length + left :]]


@dataclass
class Cut:
    """Counts prompts that were cut, and special tokens that went with what was cut."""

    prompts: int = 0
    first: str = ""
    bare: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, ids: Sequence[int], lost: Sequence[str]) -> None:
        """Add a prompt: its ids as they are now, and the special tokens that it lost."""
        self.prompts += 1
        self.first = self.first or f"{name}, whose first ids are now {shown(ids)}"
        for token in lost:
            self.bare[token] = self.bare.get(token, 0) + 1

    def warn(self, total: int, length: int) -> None:
        """Say it, if there was any."""
        if not self.prompts:
            return
        lost = "; ".join(f"{token} in {count}" for token, count in self.bare.items())
        logger.warning(
            "%d of %d prompts were cut on the left to fit into the context of %d tokens, the first is %s%s",
            self.prompts,
            total,
            length,
            self.first,
            f"; special tokens were cut away ({lost}), so that a turn may lack its header" if lost else "",
        )
