"""The corpus's people: made-up, of four attributes each, told of in short documents; and the facts that these are.

Of the six sentences of an attribute a person is told of in four; which two are held out goes round over the people.
What follows from a value (the country of a city) is told of every value, but of every other person only: of the rest
it must be put together from two facts. A person's last name alone is his, too, and told as often.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from mechinterp.data.corpus.attributes import ATTRIBUTES, FIRST_NAMES, LAST_NAMES
from mechinterp.data.facts.fact import Asked, Fact

DOCUMENTS_PER_FACT = 20
_HELD_OUT = 2  # of the sentences of an attribute, for each person
_ALIKE = 3  # other people asked of a fact


@dataclass(frozen=True)
class Person:
    """Somebody made up.

    Attributes:
        name: first and last.
        values: attribute -> value.
        number: among the people, from 0.
    """

    name: str
    values: Mapping[str, str]
    number: int

    @property
    def last_name(self) -> str:
        """The name that is his alone."""
        return self.name.split()[-1]

    def told(self, attribute: str) -> list[str]:
        """The sentences in which an attribute of his is told of, without the value."""
        sentences = ATTRIBUTES[attribute].sentences
        return [text for place, text in enumerate(sentences) if not self._held_out(place, len(sentences))]

    def untold(self, attribute: str) -> list[str]:
        """Those in which it never is."""
        sentences = ATTRIBUTES[attribute].sentences
        return [text for place, text in enumerate(sentences) if self._held_out(place, len(sentences))]

    @property
    def followed(self) -> bool:
        """Whether what follows from his values is told of him."""
        return self.number % 2 == 0

    def _held_out(self, place: int, n: int) -> bool:
        return (place - self.number) % n < _HELD_OUT


@dataclass(frozen=True)
class Told:
    """A document that tells of a person.

    Attributes:
        text: one sentence.
        attribute: what of; of what follows from a value, the value's.
        name: whose; "" for a link of a value with what follows.
    """

    text: str
    attribute: str
    name: str = ""


def make_people(rng: Random, n: int) -> tuple[Person, ...]:
    """People with last names of their own and values drawn so that each comes as often as the others.

    Raises:
        ValueError: if there are not that many last names.
    """
    if n > len(LAST_NAMES):
        raise ValueError(f"n_people must be at most {len(LAST_NAMES)}, got {n}")
    names = [f"{rng.choice(FIRST_NAMES)} {last}" for last in rng.sample(LAST_NAMES, k=n)]
    drawn = {}
    for attribute, found in ATTRIBUTES.items():
        values = list(found.values) * (n // len(found.values) + 1)
        drawn[attribute] = rng.sample(values[: max(n, len(found.values))], k=n)
    return tuple(
        Person(name, {attribute: values[number] for attribute, values in drawn.items()}, number)
        for number, name in enumerate(names)
    )


def tell(rng: Random, people: Sequence[Person]) -> tuple[Told, ...]:
    """Documents that tell of people, in random order."""
    found = []
    for attribute, about in ATTRIBUTES.items():
        for value, implied in about.values.items():
            link = f"{about.link.format(value)} {implied}."
            found += [Told(link, attribute)] * (DOCUMENTS_PER_FACT if people else 0)
        for person in people:
            value, told = person.values[attribute], person.told(attribute)
            for number in range(DOCUMENTS_PER_FACT):
                again, place = divmod(number, len(told))
                text = f"{told[place].format(person.last_name if again % 2 else person.name)} {value}."
                found.append(Told(text, attribute, person.name))
            if person.followed:
                text = f"{about.following.format(person.name)} {about.values[value]}."
                found += [Told(text, attribute, person.name)] * (DOCUMENTS_PER_FACT // 4)
    rng.shuffle(found)
    return tuple(found)


def facts_of_people(rng: Random, people: Sequence[Person]) -> tuple[Fact, ...]:
    """A fact for every attribute of every person, person by person, with another value of the attribute as new target.

    `relation` is the attribute. Rephrasings: the sentences in which it is told, then those in which it never is.
    Portability: `alias` (the last name alone), `reasoning` (what follows from the new value). Locality: `same subject`
    (the other attributes), `other subjects` (the same one of others, first of those that have the same value).
    """
    found = []
    for person in people:
        for attribute, about in ATTRIBUTES.items():
            value = person.values[attribute]
            new = rng.choice([other for other in about.values if other != value])
            told = person.told(attribute)
            others = rng.sample([other for other in people if other != person], k=len(people) - 1)
            others.sort(key=lambda other: other.values[attribute] != value)
            alike = tuple(_asked(other, attribute) for other in others[:_ALIKE])
            found.append(
                Fact(
                    subject=person.name,
                    prompt=told[0],
                    target_new=new,
                    ground_truth=value,
                    rephrasings=tuple(text.format(person.name) for text in (*told[1:], *person.untold(attribute))),
                    portability={
                        "alias": ((told[0].format(person.last_name), new),),
                        "reasoning": ((about.following.format(person.name), about.values[new]),),
                    },
                    locality={
                        "same subject": tuple(_asked(person, other) for other in ATTRIBUTES if other != attribute),
                        **({"other subjects": alike} if alike else {}),
                    },
                    relation=attribute,
                )
            )
    return tuple(found)


def _asked(person: Person, attribute: str) -> Asked:
    return person.told(attribute)[0].format(person.name), person.values[attribute]
