"""Topics with opinions that show traits: PersonalityEdit (Mao et al. 2024, arXiv 2310.02168), and KnowEdit's ConvSent.

A JSON list of topics: `ent`, and under each trait's name (extraversion, agreeableness, neuroticism; in ConvSent pos and
neg) opinions that show it; `target_per`, in their test file, is the trait that the topic is edited towards. A topic is
asked in thirteen ways (`knowedit.OPINION_QUESTIONS`). Other keys are passed over unless they hold texts, which are then
a trait of that name.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mechinterp.data.concepts import Concept
from mechinterp.data.counting import many
from mechinterp.data.facts.fact import SLOT, Fact
from mechinterp.data.facts.knowedit import OPINION_QUESTIONS
from mechinterp.data.showing import one_line
from mechinterp.data.storage.files import write_json
from mechinterp.data.texts import check_whole, read_json_lines
from mechinterp.errors import InputError, near

_logger = logging.getLogger(__name__)

WANTED = "topics: a JSON list of `ent` with opinions under each trait's name"
_TARGET = "target_per"


@dataclass(frozen=True)
class Topic:
    """A topic with opinions.

    Attributes:
        name: what they are of.
        opinions: trait -> texts that show it.
        target: the trait that it is to be edited towards; "" where the file names none.

    Raises:
        InputError: for fewer than two traits, a trait without a text, or a target that is none of them.
    """

    name: str
    opinions: Mapping[str, tuple[str, ...]]
    target: str = ""

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise InputError("a topic has no name; give `ent`")
        if len(self.opinions) < 2:
            raise InputError(f"the topic {self.name!r:.40} has opinions of {len(self.opinions)} traits; two are needed")
        for trait, texts in self.opinions.items():
            if not texts or not all(text.strip() for text in texts):
                raise InputError(f"the topic {self.name!r:.40} has no opinion that shows {trait!r:.40}, or a blank one")
        if self.target:
            self.check(self.target)

    def __repr__(self) -> str:
        counts = (f"{len(texts)} {trait}" for trait, texts in self.opinions.items())
        return one_line(self, f"{self.name:.60}", *counts, self.target and f"towards {self.target}")

    def check(self, trait: str) -> None:
        """Raise `InputError` for a trait that no opinion shows."""
        if trait not in self.opinions:
            known = ", ".join(self.opinions)
            raise InputError(f"unknown trait {trait!r:.40}; known are {known}{near(trait, self.opinions)}")

    def others(self, trait: str) -> tuple[str, ...]:
        """The opinions that show any trait but one."""
        return tuple(text for other, texts in self.opinions.items() if other != trait for text in texts)

    def questions(self) -> tuple[str, ...]:
        """Thirteen ways to ask for an opinion of it."""
        return tuple(question.replace(SLOT, self.name) for question in OPINION_QUESTIONS)

    def concept(self, trait: str) -> Concept:
        """The opinions that show a trait, against all others of the topic."""
        self.check(trait)
        return Concept(trait, self.opinions[trait], self.others(trait))

    def fact(self, trait: str) -> Fact:
        """What an editor of facts is given: the first question, with the first opinion that shows the trait."""
        self.check(trait)
        return Fact(
            self.name,
            OPINION_QUESTIONS[0],
            self.opinions[trait][0],
            self.others(trait)[0],
            tuple(self.questions()[1:]),
            relation=trait,
        )


def traits_of(topics: Sequence[Topic]) -> tuple[str, ...]:
    """The traits of some topics, in the order of the first.

    Raises:
        InputError: for no topics, or topics of other traits.
    """
    if not topics:
        raise InputError("there are no topics; give at least one")
    traits = tuple(topics[0].opinions)
    for topic in topics:
        if set(topic.opinions) != set(traits):
            raise InputError(
                f"the topics {topics[0].name!r:.40} and {topic.name!r:.40} have opinions of other traits: "
                f"{', '.join(traits)}, and {', '.join(topic.opinions)}"
            )
    return traits


def trait_concept(topics: Sequence[Topic], trait: str) -> Concept:
    """The opinions that show a trait, against those of the same topics that show another: topics are balanced.

    What it is for: a probe, a direction, steering and decomposition are made of it as of any concept.

    Raises:
        InputError: for an unknown trait, or topics of other traits.
    """
    traits_of(topics)
    found = [topic.concept(trait) for topic in topics]
    return Concept(
        trait,
        tuple(text for one in found for text in one.positive),
        tuple(text for one in found for text in one.negative),
    )


def read_personality(path: str | Path) -> list[Topic]:
    """Read topics; of one that lacks a trait's opinions a warning says that it is left out.

    Args:
        path: a JSON list, or JSON lines.

    Raises:
        InputError: for a file that has none, or a malformed row; names the file, the row and the reason.
    """
    found: list[Topic] = []
    bare = 0
    for place, row in read_json_lines(path, WANTED):
        where = f"{path}: {place}"
        if not isinstance(row, Mapping) or "ent" not in row:
            raise InputError(f"{where} has no `ent`; give {WANTED}")
        check_whole(row, where)
        try:
            opinions = {trait: texts for trait in row if (texts := _texts(row[trait], trait)) is not None}
            if any(not texts for texts in opinions.values()):
                bare += 1
                continue
            found.append(Topic(str(row["ent"]).strip(), opinions, str(row.get(_TARGET) or "")))
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
    if bare:
        topics = many(bare, "topic")
        _logger.warning("%s: left out %s without an opinion of each trait, kept %d", path, topics, len(found))
    if not found:
        raise InputError(f"{path}: has no topic with opinions of each trait; give {WANTED}")
    traits_of(found)
    return found


def write_personality(topics: Iterable[Topic], path: str | Path) -> None:
    """Write topics as a JSON list; `read_personality` gives them back."""
    rows = [
        {"ent": topic.name, **{trait: list(texts) for trait, texts in topic.opinions.items()}}
        | ({_TARGET: topic.target} if topic.target else {})
        for topic in topics
    ]
    write_json(Path(path), rows)


def _texts(value: Any, key: str) -> tuple[str, ...] | None:
    """The opinions under a key; None for a key that holds none."""
    if key in ("ent", _TARGET) or not isinstance(value, str | list):
        return None
    texts = [value] if isinstance(value, str) else value
    if not all(isinstance(text, str) for text in texts):
        raise InputError(f"`{key}` must be a list of texts, is {value!r:.60}")
    return tuple(text.strip() for text in texts if text.strip())
