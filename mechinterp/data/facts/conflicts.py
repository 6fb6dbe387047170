"""Edits that are in each other's way, and edits that are taken back: ConflictEdit and RoundEdit, and the like of pairs.

Li et al. 2024, "Unveiling the Pitfalls of Knowledge Editing" (arXiv 2310.02129), edit a model twice:

    coverage   the same fact twice: the second edit overwrites the first
    reverse    (A, r, B -> C), then (C, r back, A -> D): after both, D and not A stands in r to C
    composite  with a tied fact, which is left alone, the first edit implies another one; the second edit changes that
    round      away from a true answer, and back to it: what of the model comes back?

Their files: `pitfalls`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mechinterp.data.benign import BenignPrompt
from mechinterp.data.facts.fact import Fact
from mechinterp.data.facts.queries import Change, Query, asked_of, pair_to
from mechinterp.data.pairs import AnyPair
from mechinterp.data.showing import one_line
from mechinterp.errors import InputError

KINDS = ("coverage", "reverse", "composite")
"""Kinds of conflict in ConflictEdit."""

ITSELF = "itself"
"""The prompts of what was edited; others are named by where they come from."""


@dataclass(frozen=True)
class Conflict:
    """Two edits, the second on top of the first.

    Attributes:
        kind: one of `KINDS`, or what sets its edits at odds.
        first, second: what they are made of; each should bring about its answer.
        implied: what the first would imply once both are made; compared with the first instead of the second's answer.
        tied: what the edits stand on or beside, and should leave alone.
        rule: by which the two are at odds ("P25&P26>P22"); "" where it has no name.
    """

    kind: str
    first: Change
    second: Change
    implied: Query | None = None
    tied: tuple[Query, ...] = ()
    rule: str = ""

    def __repr__(self) -> str:
        edits = (
            f"{asked_of(one).prompts[0]!r:.80} to {asked_of(one).answer!r:.60}" for one in (self.first, self.second)
        )
        return one_line(self, self.kind, " and then ".join(edits))


@dataclass(frozen=True)
class Round:
    """An edit, and one that takes it back.

    Attributes:
        kind: as the file has it ("1-3@P366").
        away: from a true answer to a new one.
        back: from the new answer to the true one; of their remedy one for each true answer, made together.
        candidates: where it is asked -> sets of answers whose probabilities are read: first the true one that was
            edited, then other true ones. `ITSELF` is what was edited.

    Raises:
        InputError: without `ITSELF`, or for an answer that stands twice in a set.
    """

    kind: str
    away: Change
    back: tuple[Change, ...]
    candidates: Mapping[str, tuple[tuple[Query, ...], ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.candidates.get(ITSELF) or not self.back:
            raise InputError(
                "a round trip needs a way back, and the answers that are asked of what was edited; give both"
            )
        for sets in self.candidates.values():
            for queries in sets:
                answers = [query.answer for query in queries]
                if repeated := [answer for answer in answers if answers.count(answer) > 1]:
                    raise InputError(
                        f"the answer {repeated[0]!r:.60} stands twice among those of one prompt; leave one"
                    )

    def __repr__(self) -> str:
        away = asked_of(self.away)
        return one_line(self, self.kind, f"{away.prompts[0]!r:.80} to {away.answer!r:.60} and back")


def round_of_fact(away: Fact, others: Sequence[str], kind: str = "", *, all_back: bool = False) -> Round:
    """A round trip of a fact.

    Args:
        away: with the true answer as `ground_truth`.
        others: the subject's other true answers.
        kind: as the file has it.
        all_back: the way back edits all true answers, not only the one that was edited (their remedy, MLE).
    """
    true = [away.ground_truth, *others]
    back = tuple(_turned(away, answer) for answer in (true if all_back else true[:1]))
    return Round(kind, away, back, {ITSELF: (tuple(asked_of(away, answer) for answer in true),)})


def conflicts_of_pairs(pairs: Sequence[AnyPair], benign: Sequence[BenignPrompt] = ()) -> list[Conflict]:
    """Each pair edited to its safe answer, and then over.

    By the second edit the same prompt gets another pair's safe answer (`coverage`) or the unsafe one
    (`coverage_unsafe`); or its harmless twin, with the most words in common, gets its own answer (`reverse`).

    Args:
        pairs: with at least two different safe answers.
        benign: harmless prompts; those with an answer are tied to every conflict, and have the twins among them.

    Raises:
        InputError: for fewer than two different safe answers.
    """
    answered = [(one.prompt, one.answer) for one in benign if one.answer]
    tied = {prompt: Query((prompt,), answer) for prompt, answer in answered}
    found = []
    for number, pair in enumerate(pairs):
        after = [*pairs[number + 1 :], *pairs[:number]]
        other = next((one.safe for one in after if one.safe != pair.safe), None)
        if other is None:
            raise InputError("coverage needs two different safe answers; give more pairs")
        every = tuple(tied.values())
        found.append(Conflict("coverage", pair, pair_to(pair, other, pair.safe), tied=every))
        found.append(Conflict("coverage_unsafe", pair, pair_to(pair, pair.unsafe, pair.safe), tied=every))
        if tied:
            words = set(pair.question.lower().split())
            twin = max(tied, key=lambda prompt: len(words & set(prompt.lower().split())))
            rest = tuple(query for prompt, query in tied.items() if prompt != twin)
            found.append(Conflict("reverse", pair, pair_to(pair, tied[twin].answer, pair.safe, prompt=twin), tied=rest))
    return found


def _turned(away: Fact, answer: str) -> Fact:
    return Fact(away.subject, away.prompt, answer, away.target_new, away.rephrasings, relation=away.relation)
