"""Scopes of unlearning: prompts with the answers that are to be forgotten, and those that are to be kept.

KnowUnDo (Tian et al. 2024, arXiv 2407.01920) calls them unlearn scope and retention scope. Both are lists of a prompt
with its answer, whatever they come from: pairs, facts, files.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mechinterp.data.conversations import Prompt, asked
from mechinterp.data.counting import many, parted
from mechinterp.data.facts.fact import Fact
from mechinterp.data.normalised import normalised
from mechinterp.data.pairs import AnyPair, knowledge_of
from mechinterp.data.showing import one_line
from mechinterp.errors import InputError, near

_logger = logging.getLogger(__name__)

Question = tuple[Prompt, str]
"""A prompt and its answer."""

FORGET, RETAIN = "forget", "retain"


@dataclass(frozen=True)
class Scopes:
    """What is to be forgotten, and what is to be kept.

    Attributes:
        forget: at least one prompt with its answer.
        retain: likewise; may be empty for what needs none.
    """

    forget: tuple[Question, ...]
    retain: tuple[Question, ...] = ()

    def __post_init__(self) -> None:
        if not self.forget:
            raise InputError("there is nothing to forget; give at least one prompt with the answer to forget")
        for name, scope in ((FORGET, self.forget), (RETAIN, self.retain)):
            for number, (prompt, answer) in enumerate(scope, 1):
                if not asked(prompt).strip() or not answer.strip():
                    raise InputError(f"`{name}`: entry {number} has no prompt or no answer; give both, or leave it out")
        forget, retain = (
            {(normalised(asked(p)), normalised(a)) for p, a in each} for each in (self.forget, self.retain)
        )
        if shared := len(forget & retain):
            if forget == retain:
                raise InputError("what is to be forgotten is also all that is to be kept; give other texts to keep")
            answers = many(shared, "answer is", "answers are")
            _logger.warning("%s to be forgotten and to be kept at once; leave them out of one", answers)

    def __repr__(self) -> str:
        return one_line(self, f"{len(self.forget)} to forget", f"{len(self.retain)} to keep")

    @classmethod
    def of_pairs(cls, pairs: Sequence[AnyPair], retain: Iterable[Question] = ()) -> Scopes:
        """Of pairs: their unsafe answers are forgotten, the knowledge of SafeEdit's instances is kept, each once.

        Args:
            pairs: prompts with an unsafe answer.
            retain: further prompts with answers that are kept, such as benign ones.
        """
        known = [knowledge for pair in pairs if (knowledge := knowledge_of(pair)) is not None]
        kept = [(knowledge.prompt, knowledge.answer) for knowledge in known]
        forget: list[Question] = [(pair.prompt, pair.unsafe) for pair in pairs]
        return cls(_distinct(forget), _distinct([*kept, *retain]))

    @classmethod
    def of_facts(cls, forget: Sequence[Fact], retain: Sequence[Fact] = ()) -> Scopes:
        """Of facts: what was answered before is forgotten (the ground truth where it is known, else the target).

        Sanitation's facts say themselves which of them are to be kept; given as `forget` alone they are parted so.
        """
        if not retain:
            kept = [fact.relation == RETAIN for fact in forget]
            if any(kept):
                retain, forget = parted(forget, kept)
        return cls(_distinct(map(question_of, forget)), _distinct(map(question_of, retain)))

    @classmethod
    def of_relations(cls, facts: Sequence[Fact], relations: Sequence[str]) -> Scopes:
        """Of facts about the same subjects: those of some relations are forgotten, all others are kept.

        Raises:
            InputError: for a relation that no fact has.
        """
        known = list(dict.fromkeys(fact.relation for fact in facts))
        for relation in relations:
            if relation not in known:
                there = ", ".join(map(repr, known))
                raise InputError(f"no fact has the relation {relation!r}; there are {there}{near(relation, known)}")
        forget = [fact for fact in facts if fact.relation in relations]
        retain = [fact for fact in facts if fact.relation not in relations]
        return cls(_distinct(map(question_of, forget)), _distinct(map(question_of, retain)))

    def kept(self, name: str) -> tuple[Question, ...]:
        """What is to be kept, of a method that needs some.

        Args:
            name: of the method, for the error.

        Raises:
            InputError: if there is none.
        """
        if not self.retain:
            raise InputError(f"{name}: there is nothing to keep; give prompts with the answers to keep (`retain`)")
        return self.retain


def question_of(fact: Fact) -> Question:
    """A fact as a prompt with the answer that a model has learnt: the ground truth, else the new target."""
    return fact.text, fact.ground_truth or fact.target_new


def _as_one_reads_them(scope: Iterable[Question]) -> set[tuple[str, str]]:
    return {(normalised(asked(prompt)), normalised(answer)) for prompt, answer in scope}


def _distinct(questions: Iterable[Question]) -> tuple[Question, ...]:
    found: dict[tuple[str, str], Question] = {}
    for prompt, answer in questions:
        found.setdefault((str(prompt), answer), (prompt, answer))
    return tuple(found.values())
