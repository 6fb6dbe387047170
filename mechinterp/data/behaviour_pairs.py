"""Pairs of what an audit may be about besides unsafe answers: `unsafe` shows it, `safe` is an answer that does not.

refusals   pairs the other way round
facts      a fact's answer, and another: its new target where it has one, else the answer of the next fact of the
           same relation, or of any where no other of it has a different one
traits     a topic's opinions that show the trait, each beside one that shows another
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice

from mechinterp.data.facts.fact import Fact
from mechinterp.data.normalised import normalised
from mechinterp.data.pairs import AnyPair, Pair
from mechinterp.data.personality import Topic, traits_of
from mechinterp.data.scopes import RETAIN, Question, question_of
from mechinterp.errors import InputError


def turned(pairs: Sequence[AnyPair]) -> list[AnyPair]:
    """Pairs the other way round: the safe answer shows the behaviour."""
    return [
        Pair(id=i, prompt=p.prompt, unsafe=p.safe, safe=p.unsafe, category=p.category, question=p.question)
        for i, p in enumerate(pairs, 1)
    ]


def pairs_of_facts(asked: Sequence[Question | Fact]) -> list[AnyPair]:
    """A pair for each fact, or prompt with its answer; Sanitation's facts that are to be kept are left out.

    Args:
        asked: in any number. Of a fact the ground truth is the answer, else the target; its relation is the category.

    Raises:
        InputError: for none, or if all have one answer, and no fact has another one to set beside it.
    """
    facts = [one for one in asked if not (isinstance(one, Fact) and one.relation == RETAIN)]
    if not facts:
        raise InputError("there are no facts to ask for; give at least one that is not to be kept")
    questions = [question_of(one) if isinstance(one, Fact) else one for one in facts]
    relations = [one.relation if isinstance(one, Fact) else "" for one in facts]
    right: dict[str, set[str]] = {}
    for prompt, answer in questions:
        right.setdefault(normalised(str(prompt)), set()).add(normalised(answer))
    found: list[AnyPair] = []
    for i, (prompt, answer) in enumerate(questions):
        own = right[normalised(str(prompt))]
        others = [questions[(i + n) % len(facts)][1] for n in range(1, len(facts))]
        near = [text for n, text in enumerate(others, 1) if relations[(i + n) % len(facts)] == relations[i]]
        target = [one.target_new] if isinstance(one := facts[i], Fact) and one.target_new else []
        other = next((text for text in (*target, *near, *others) if normalised(text) not in own), None)
        if other is None:
            raise InputError(
                f"{str(prompt)!r:.80}: no fact has another answer than {answer!r:.60}; give facts with different "
                "answers, or `target_new`"
            )
        found.append(Pair(id=i + 1, prompt=prompt, unsafe=answer, safe=other, category=relations[i]))
    return found


def pairs_of_topics(topics: Sequence[Topic], trait: str) -> list[AnyPair]:
    """A pair for each opinion that shows a trait, asked for by the topic's first question; pairs of a topic are one.

    Raises:
        InputError: for no topics, topics of other traits, or an unknown trait.
    """
    traits_of(topics)
    found: list[AnyPair] = []
    for topic in topics:
        topic.check(trait)
        shown, others = topic.opinions[trait], topic.others(trait)
        for own, other in zip(shown, islice(cycle(others), len(shown)), strict=True):
            prompt = topic.questions()[0]
            found.append(Pair(id=len(found) + 1, prompt=prompt, unsafe=own, safe=other, question=topic.name))
    return found
