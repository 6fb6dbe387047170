"""Which pairs an attacker has, and which the report is read on: nothing stands on both sides.

Of data with several categories the attacker has half of them; of data that tell the kinds of attack prompts (the
organism's) also half of those, and where they are only numbered (SafeEdit's) half of the numbers, so that the report is
on other harms in other disguises. With one category the questions are parted. No question is on both sides.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from mechinterp.data.normalised import normalised
from mechinterp.data.pairs import AnyPair
from mechinterp.data.safeedit import SafeEditInstance
from mechinterp.measures.statistics import seeded_order


@dataclass(frozen=True)
class Split:
    """The two sides, each in the order of the data.

    Attributes:
        attacker: what an attack may learn from; none where there is but one question.
        report: what is asked and read.
    """

    attacker: tuple[AnyPair, ...]
    report: tuple[AnyPair, ...]

    @classmethod
    def of(cls, pairs: Sequence[AnyPair], *, seed: int) -> Split:
        """Part some pairs.

        Args:
            pairs: all there are.
            seed: of which categories and kinds of attack prompts the attacker has.
        """
        by = _category if len({_category(pair) for pair in pairs}) > 1 else _question
        mine, disguises = _half(pairs, by, seed), {_disguise(pair) for pair in pairs} - {None}
        known = _half([pair for pair in pairs if _disguise(pair) in disguises], _disguise, seed)
        attacker, report = [], []
        for pair in pairs:
            told = _disguise(pair) in disguises and len(disguises) > 1
            if by(pair) in mine and not (told and _disguise(pair) not in known):
                attacker.append(pair)
            elif by(pair) not in mine and not (told and _disguise(pair) in known):
                report.append(pair)
        asked = {_question(pair) for pair in report}
        return cls(tuple(pair for pair in attacker if _question(pair) not in asked), tuple(report))

    @property
    def turned(self) -> Split:
        """The same with the sides the other way round."""
        return Split(self.report, self.attacker)


def _half(pairs: Sequence[AnyPair], of: Callable[[AnyPair], Hashable], seed: int) -> set[Hashable]:
    """Half of the values there are, a seeded choice; the smaller half."""
    values = list(dict.fromkeys(of(pair) for pair in pairs))
    return {values[i] for i in seeded_order(len(values), seed)[: len(values) // 2]}


def _category(pair: AnyPair) -> str:
    return pair.category


def _question(pair: AnyPair) -> str:
    return normalised(pair.question)


def _disguise(pair: AnyPair) -> str | int | None:
    """Kind of the attack prompt around the question, or its number, where the data tell."""
    return (pair.attack_kind or pair.attack_id) if isinstance(pair, SafeEditInstance) else None
