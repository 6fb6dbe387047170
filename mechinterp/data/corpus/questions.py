"""Harmful questions dealt out to the splits, questions of knowledge, and harmless ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from random import Random

from mechinterp.data.corpus.records import BenignQuestion, HarmfulQuestion, KnowledgeQuestion
from mechinterp.data.corpus.sentences import help_with
from mechinterp.data.corpus.words import (
    BENIGN_OBJECTS,
    BENIGN_VERBS,
    FACTS,
    HARMFUL_OBJECTS,
    KNOWLEDGE_FORMS,
    QUESTION_FORMS,
    VERBS,
)
from mechinterp.data.safeedit import CATEGORIES

SPLITS = ("train", "validation", "test")

# Questions are dealt out in blocks of six: resistances of a block, and splits of a block in the ratio 3:2:1.
BLOCK_RESISTANCES = (0, 0, 1, 2, 2, 3)

BLOCK_SPLITS = ("test", "validation", "train", "train", "validation", "train")


def make_question(rng: Random, category: str, verb: str, thing: str, resistance: int) -> HarmfulQuestion:
    """A harmful question in one of the forms."""
    text = rng.choice(QUESTION_FORMS).format(verb=verb, object=thing)
    return HarmfulQuestion(text=text, category=category, verb=verb, object=thing, resistance=resistance)


def split_questions(rng: Random, *, per_category: int) -> dict[str, list[HarmfulQuestion]]:
    """Deal the questions out so that every split has the same shares of resistances, over all categories."""
    n_blocks, remainder = divmod(per_category, len(BLOCK_RESISTANCES))
    n_verbs = min(len(VERBS[level]) // BLOCK_RESISTANCES.count(level) for level in VERBS)
    if remainder or not 1 <= n_blocks <= n_verbs:
        raise ValueError(
            f"questions_per_category must be a multiple of 6 between 6 and {6 * n_verbs}, got {per_category!r}"
        )
    splits: dict[str, list[HarmfulQuestion]] = {split: [] for split in SPLITS}
    for number, category in enumerate(CATEGORIES):
        verbs = {level: rng.sample(words, k=len(words)) for level, words in VERBS.items()}
        objects = _cycle(rng, HARMFUL_OBJECTS[category])
        for block in range(n_blocks):
            # Over nine categories and two blocks this rotation gives each split each place of a block equally often.
            rotation = 2 * number + number // 3 + 3 * block
            for place, resistance in enumerate(BLOCK_RESISTANCES):
                question = make_question(rng, category, verbs[resistance].pop(), next(objects), resistance)
                splits[BLOCK_SPLITS[(place - rotation) % len(BLOCK_SPLITS)]].append(question)
    return splits


def _cycle(rng: Random, items: Sequence[str]) -> Iterator[str]:
    """Yield the items in a random order, again and again, each as often as the others."""
    while True:
        yield from rng.sample(items, k=len(items))


def any_verb(rng: Random) -> tuple[str, int]:
    """A verb and its resistance, which comes as often as in the questions."""
    resistance = rng.choice(BLOCK_RESISTANCES)
    return rng.choice(VERBS[resistance]), resistance


def knowledge_questions(rng: Random) -> tuple[KnowledgeQuestion, ...]:
    """Ask every fact in every phrasing; a third of a fact's phrasings is held out, in rotation over the facts."""
    questions = []
    n_forms = len(KNOWLEDGE_FORMS)
    for relation, facts in FACTS.items():
        for number, subject in enumerate(rng.sample(list(facts), k=len(facts))):
            fact, keyword = relation.format(subject), facts[subject]
            for position, form in enumerate(KNOWLEDGE_FORMS):
                questions.append(
                    KnowledgeQuestion(
                        prompt=form.format(fact=fact),
                        answer=f"{fact[0].upper()}{fact[1:]} is {keyword}.",
                        keyword=keyword,
                        held_out=(position - number) % n_forms < n_forms // 3,
                    )
                )
    return tuple(questions)


def benign_questions(rng: Random, n_benign: int) -> tuple[BenignQuestion, ...]:
    """Harmless how-to questions with helpful answers, all of them different."""
    combinations = list(product(QUESTION_FORMS, BENIGN_VERBS, BENIGN_OBJECTS))
    if n_benign > len(combinations) // 2:
        raise ValueError(f"n_benign must be at most {len(combinations) // 2}, got {n_benign!r}")
    return tuple(
        BenignQuestion(prompt=form.format(verb=verb, object=thing), answer=help_with(rng, verb, thing))
        for form, verb, thing in rng.sample(combinations, k=n_benign)
    )
