"""Sixty facts that most language models know: capitals, languages, continents, opposites, the young of animals.

For models that nobody taught anything here: what one of them does not answer right before it is changed cannot be
measured on it (`answers.known_facts` counts that first). They are completions: of a chat model they are asked in plain
text. Written for this package; free to use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

from mechinterp.data.facts.fact import Asked, Fact

_ALIKE = 3  # other subjects asked of a fact


@dataclass(frozen=True)
class _Relation:
    """Sentences with the subject at `{}` and the answer behind them, and what follows from an answer."""

    sentences: tuple[str, ...]
    answers: Mapping[str, str]
    following: str = ""
    follows: Mapping[str, str] = field(default_factory=dict)


_RELATIONS: Mapping[str, _Relation] = {
    "capital": _Relation(
        sentences=(
            "The capital of {} is", "The capital city of {} is called",
            "Question: What is the capital of {}? Answer:",
        ),
        answers={
            "France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Germany": "Berlin", "Japan": "Tokyo",
            "Egypt": "Cairo", "Greece": "Athens", "Austria": "Vienna", "Peru": "Lima", "Norway": "Oslo",
            "Russia": "Moscow", "China": "Beijing", "Portugal": "Lisbon", "Poland": "Warsaw", "Sweden": "Stockholm",
            "Ireland": "Dublin", "Cuba": "Havana", "Kenya": "Nairobi", "Hungary": "Budapest", "England": "London",
        },
        following="A famous sight in the capital of {} is the",
        follows={
            "Paris": "Eiffel Tower", "Rome": "Colosseum", "Berlin": "Brandenburg Gate", "Athens": "Acropolis",
            "Moscow": "Kremlin", "Beijing": "Forbidden City", "London": "Tower of London", "Madrid": "Prado Museum",
        },
    ),
    "language": _Relation(
        sentences=(
            "The official language of {} is", "The language that people speak in {} is",
            "Question: Which language is spoken in {}? Answer:",
        ),
        answers={
            "France": "French", "Spain": "Spanish", "Italy": "Italian", "Germany": "German", "Brazil": "Portuguese",
            "Japan": "Japanese", "Russia": "Russian", "Greece": "Greek", "Poland": "Polish", "Mexico": "Spanish",
            "Austria": "German", "Egypt": "Arabic",
        },
        following="In the official language of {}, hello is",
        follows={"French": "bonjour", "Spanish": "hola", "Italian": "ciao", "German": "hallo"},
    ),
    "continent": _Relation(
        sentences=(
            "{} is a country on the continent of", "The continent on which {} lies is",
            "Question: On which continent is {}? Answer:",
        ),
        answers={
            "Kenya": "Africa", "Brazil": "South America", "China": "Asia", "France": "Europe", "Egypt": "Africa",
            "India": "Asia", "Peru": "South America", "Nigeria": "Africa", "Italy": "Europe", "Vietnam": "Asia",
        },
    ),
    "opposite": _Relation(
        sentences=(
            "The opposite of {} is", "A word that means the opposite of {} is",
            "Question: What is the opposite of {}? Answer:",
        ),
        answers={
            "hot": "cold", "big": "small", "early": "late", "full": "empty", "fast": "slow", "young": "old",
            "rich": "poor", "wet": "dry", "light": "dark", "hard": "soft",
        },
    ),
    "young": _Relation(
        sentences=(
            "A young {} is called a", "The baby of a {} is called a",
            "Question: What is a young {} called? Answer: a",
        ),
        answers={
            "dog": "puppy", "cat": "kitten", "cow": "calf", "sheep": "lamb", "horse": "foal", "duck": "duckling",
            "bear": "cub", "frog": "tadpole",
        },
    ),
}  # fmt: skip


def common_facts(*, seed: int = 0) -> list[Fact]:
    """The facts, relation by relation, each with another answer of its relation as the new target.

    Rephrasings are the relation's other sentences; portability, `reasoning`, is what follows from the new answer, where
    something does; locality, `other subjects`, asks the same of others.

    Args:
        seed: of new answers and other subjects.
    """
    rng, found = Random(f"{seed}/common"), []
    for name, relation in _RELATIONS.items():
        first, *others = relation.sentences
        for subject, answer in relation.answers.items():
            new = rng.choice(sorted(set(relation.answers.values()) - {answer}))
            alike = rng.sample([other for other in relation.answers if other != subject], k=_ALIKE)
            asked: tuple[Asked, ...] = tuple((first.format(other), relation.answers[other]) for other in alike)
            implied = ((relation.following.format(subject), relation.follows[new]),) if new in relation.follows else ()
            found.append(
                Fact(
                    subject=subject,
                    prompt=first,
                    target_new=new,
                    ground_truth=answer,
                    rephrasings=tuple(text.format(subject) for text in others),
                    portability={"reasoning": implied} if implied else {},
                    locality={"other subjects": asked},
                    relation=name,
                )
            )
    return found
