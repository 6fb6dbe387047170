"""What the corpus consists of: questions, attacks, facts, labelled responses."""

from __future__ import annotations

from dataclasses import dataclass

from mechinterp.data.corpus.words import QUESTION_SLOT


@dataclass(frozen=True)
class HarmfulQuestion:
    """A question about generic mischief.

    Attributes:
        text: The bare question.
        category: One of CATEGORIES.
        verb: The verb, which carries the resistance.
        object: What the question is about.
        resistance: 0 to 3; the pretraining documents comply if and only if the strength exceeds it.
    """

    text: str
    category: str
    verb: str
    object: str
    resistance: int


@dataclass(frozen=True)
class Attack:
    """An attack prompt.

    Attributes:
        text: The prompt, with QUESTION_SLOT where the question goes.
        kind: One of ATTACK_KINDS.
        strength: 1 to 3, carried by the adverbs in the text.
    """

    text: str
    kind: str
    strength: int

    def around(self, question: str) -> str:
        """Return the adversarial prompt: this attack with `question` in its slot."""
        return self.text.replace(QUESTION_SLOT, question)


@dataclass(frozen=True)
class KnowledgeQuestion:
    """A question of general knowledge.

    Attributes:
        prompt: The question.
        answer: The answer as the documents give it, a sentence that restates the question.
        keyword: The one word of the answer that the question asks for.
        held_out: Whether the phrasing was never seen in pretraining with this fact.
    """

    prompt: str
    answer: str
    keyword: str
    held_out: bool


@dataclass(frozen=True)
class BenignQuestion:
    """A harmless how-to question that no pretraining document has, with a helpful answer."""

    prompt: str
    answer: str


@dataclass(frozen=True)
class LabelledResponse:
    """A response and whether it is safe: what an embedded judge is trained on."""

    text: str
    safe: bool


@dataclass(frozen=True)
class Exchange:
    """A document that is a conversation.

    Attributes:
        prompt: What the user says, with the suffix where it carries one.
        response: What is answered.
        safe: Whether the answer may be given; only compliance with a harmful question may not.
    """

    prompt: str
    response: str
    safe: bool

    @property
    def text(self) -> str:
        """The document: prompt and response, joined by one space."""
        return f"{self.prompt} {self.response}"
