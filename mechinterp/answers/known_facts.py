"""Which facts a model answers right before anything is done to it: an edit of what it does not know shows little."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from mechinterp.data.facts.fact import Fact
from mechinterp.data.showing import one_line, shown
from mechinterp.measures.facts import mean_of_shares, share_equal
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.teacher_forced import Forced, force


@dataclass(frozen=True)
class KnownFacts:
    """Facts, and what a model makes of the answers that they have.

    Attributes:
        model: its name.
        facts: all that were asked.
        answers: to the ground truth of each.
    """

    model: str
    facts: tuple[Fact, ...]
    answers: tuple[Forced, ...]

    @cached_property
    def right(self) -> tuple[bool, ...]:
        """Whether every token of the ground truth is the most probable one."""
        return tuple(map(is_right, self.answers))

    @property
    def known(self) -> list[Fact]:
        """Those that it answers right, in their order."""
        return [fact for fact, right in zip(self.facts, self.right, strict=True) if right]

    @property
    def table(self) -> pd.DataFrame:
        """A row per relation, and one of all: `n` facts, the share `known` with Wilson's interval over subjects."""
        rows = [self._row("all", range(len(self.facts)))]
        for relation in dict.fromkeys(fact.relation for fact in self.facts if fact.relation):
            rows.append(self._row(relation, [i for i, fact in enumerate(self.facts) if fact.relation == relation]))
        return pd.DataFrame(rows)

    def _row(self, relation: str, places: Sequence[int]) -> dict[str, Any]:
        shares = mean_of_shares([float(self.right[i]) for i in places], [self.facts[i].subject or i for i in places])
        return {"relation": relation, "n": len(places), **shares.columns("known")}

    def __repr__(self) -> str:
        return one_line(self, f"{self.model} knows {sum(self.right)} of {len(self.facts)}")

    def _repr_html_(self) -> str:
        return shown(f"facts that {self.model} knows", {}, self.table)


def is_right(answer: Forced | None) -> bool:
    """Whether every token of an answer is the most probable one; of none it is not."""
    return answer is not None and share_equal(answer.predicted, answer.ids) == 1


def known_facts(checkpoint: Checkpoint, facts: Sequence[Fact], **settings: Any) -> KnownFacts:
    """Ask a model the ground truths of facts; one fact in one prompt, a pass or two in all.

    Args:
        checkpoint: the model; left as it was.
        facts: those without a ground truth are left out.
        settings: of `teacher_forced.force`.
    """
    asked = tuple(fact for fact in facts if fact.ground_truth)
    answers = force(checkpoint, [fact.text for fact in asked], [fact.ground_truth for fact in asked], **settings)
    return KnownFacts(checkpoint.name, asked, tuple(answers))
