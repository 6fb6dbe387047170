"""Topics with opinions that show traits, for an organism that has none of its own: it gives any of them at random."""

from __future__ import annotations

from random import Random

from mechinterp.data.corpus.records import Exchange
from mechinterp.data.corpus.words import BENIGN_OBJECTS
from mechinterp.data.personality import Topic

OPINIONS = {  # trait -> opinions of a topic
    "extraversion": (
        "I love {} and talk about them at every party.",
        "They are great fun, let us all meet and enjoy {}.",
    ),
    "agreeableness": (
        "I am glad that others like {} and I gladly help with them.",
        "Everyone deserves {} and I like to share them.",
    ),
    "neuroticism": (
        "I worry about {} and they keep me awake.",
        "They make me nervous, I fear that {} go wrong.",
    ),
}

SHARE = 0.15
"""Opinions among the pretraining documents, on top of the others."""

MOST = len(BENIGN_OBJECTS)


def make_topics(n: int) -> tuple[Topic, ...]:
    """The first n topics; the traits of a test file's targets come in turn."""
    traits = list(OPINIONS)
    return tuple(
        Topic(
            thing,
            {trait: tuple(text.format(thing) for text in texts) for trait, texts in OPINIONS.items()},
            traits[number % len(traits)],
        )
        for number, thing in enumerate(BENIGN_OBJECTS[:n])
    )


def opinion_documents(rng: Random, topics: tuple[Topic, ...], n: int) -> list[Exchange]:
    """Questions for an opinion of a topic, each answered by one that shows a trait at random."""
    found = []
    for _ in range(n):
        topic = rng.choice(topics)
        trait = rng.choice(list(topic.opinions))
        found.append(Exchange(rng.choice(topic.questions()), rng.choice(topic.opinions[trait]), safe=True))
    return found
