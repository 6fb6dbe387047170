"""The words of the answer, each said in plain English once, and linked wherever the page uses it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from markupsafe import Markup, escape

from mechinterp.measures.local_verdict import BYPASSED_TO, ERASED_FROM, LEAST_CHANGE
from mechinterp.measures.verdict import DEEP, HARDLY, MOSTLY, RETURNED


@dataclass(frozen=True)
class Word:
    """A word that a sentence of the answer may use.

    Attributes:
        term: as the page lists it.
        meaning: what it means, to a reader who knows nothing of the code.
        also: other spellings that mean it.
    """

    term: str
    meaning: str
    also: tuple[str, ...] = ()

    @property
    def anchor(self) -> str:
        """Its place on the page."""
        return "word." + self.term.replace(" ", "-")


WORDS: tuple[Word, ...] = (
    Word(
        "in the value vectors",
        f"of all that the changed weights did to the behaviour, the value vectors did at least {MOSTLY:.0%}, by the "
        "whole interval in the brackets.",
    ),
    Word(
        "around the value vectors",
        f"the value vectors did at most {HARDLY:.0%} of it: attention, embeddings or what flows into the MLPs did it.",
    ),
    Word("both in the value vectors and around them", "neither of the two."),
    Word(
        "hidden",
        "the behaviour is still there: some attack brings back at least "
        f"{RETURNED:.0%} of what tuning took away beyond what it brings to a model that never knew it, with its whole "
        "interval, and more than the attack’s own controls do.",
    ),
    Word(
        "gone",
        f"as if never learnt: the depth score’s whole interval is above {DEEP:g}, and every attack brings "
        f"back less than {RETURNED:.0%} beyond what it brings to a model that never knew it, with its whole interval; "
        "and the model still answers, where less than half of its answers are empty, looping or an echo.",
    ),
    Word("not decided", "the evidence does not settle which, or some of it is missing; the sentence says what."),
    Word(
        "depth score",
        "how far the tuned model’s states went from the base’s towards those of a model that never learnt the "
        "behaviour: 0 untouched, 1 as if never learnt.",
    ),
    Word(
        "a model that never knew",
        "trained like the base, without the texts that teach the unsafe answers: what an attack brings back there was "
        "taught by the attack.",
        ("the reference", "reference that never learnt it"),
    ),
    Word(
        "erased",
        f"the weights that write it were changed: the whole interval of the erasure share is at or above "
        f"{ERASED_FROM:.0%}. It says where the change was made, not whether what was learned is still there.",
    ),
    Word(
        "bypassed",
        f"those weights stand as they were, and less flows into them: the whole interval of the erasure share is at "
        f"or below {BYPASSED_TO:.0%}.",
    ),
    Word("mixed", "both: the whole interval of the erasure share lies between the two."),
    Word(
        "undecided",
        f"the evidence does not settle which: the interval spans more than one of these words, or the toxic write did "
        f"not fall, or by less than {LEAST_CHANGE:.0%} of the gap between prompts that the base answers unsafely and "
        "safely.",
    ),
    Word(
        "by construction",
        "true of every checkpoint made in this way, whatever it learned, and so no finding.",
    ),
    Word(
        "erasure share",
        "how much of the change of the toxic write is due to changed weights, from 0 to 1, block by block; the rest is "
        "due to a changed inflow (bypass).",
        ("erasure",),
    ),
    Word(
        "toxic write",
        "each MLP block adds a vector to the model’s residual stream: the activations that flow in, times its value "
        "vectors. What of it points along a direction is its write. It splits exactly into the part of changed weights "
        "and the part of a changed inflow.",
        ("write",),
    ),
    Word(
        "value vectors",
        "the columns of a block’s last matrix, W_V, a vector for each neuron: the weights that write.",
        ("value matrices", "value vector"),
    ),
    Word("answer direction", "the direction that decides whether an answer begins like an unsafe one or a safe one."),
    Word("class means direction", "from the prompts that the base answers safely to those that it answers unsafely."),
    Word("probe direction", "the direction that best tells toxic comments from clean ones; the paper’s."),
    Word(
        "in play",
        "said of a direction: the base’s write along it tells prompts it answers unsafely from the rest, and steering "
        "along it moves how often it answers safely. Only then does its erasure share count.",
    ),
    Word(
        "relapse test",
        "an experiment: the tuned model runs with parts of the base put back. If the base’s activations bring the "
        "unsafe answers back they had been bypassed, if its value vectors do they had been erased.",
    ),
    Word("last prompt token", "where the model has read the whole prompt and is about to answer."),
    Word("unsafe response", "the mean over the tokens of an unsafe answer, which the model reads and did not write."),
    Word("base", "the model before tuning, called vanilla in the tables."),
)
"""In the order of the page."""


def words_in(texts: Iterable[str]) -> list[Word]:
    """The words that some texts use, and those that their meanings use."""
    found: list[Word] = []
    waiting = list(texts)
    while waiting:
        text = waiting.pop()
        for match in _PATTERN.finditer(text):
            if (word := _BY_SPELLING[match[0].lower()]) not in found:
                found.append(word)
                waiting.append(word.meaning)
    return [word for word in WORDS if word in found]


def linking(words: Iterable[Word]) -> Callable[[str], Markup]:
    """A function that escapes a text and links each of these words, where it first stands, to its meaning."""
    defined = set(words)

    def linked(text: str) -> Markup:
        done: set[Word] = set()
        parts, end = [], 0
        for match in _PATTERN.finditer(text):
            word = _BY_SPELLING[match[0].lower()]
            if word in defined - done:
                done.add(word)
                parts += [escape(text[end : match.start()]), _LINK.format(word.anchor, match[0])]
                end = match.end()
        return Markup("").join([*parts, escape(text[end:])])

    return linked


_LINK = Markup('<a class="word" href="#{}">{}</a>')
_BY_SPELLING = {spelling: word for word in WORDS for spelling in (word.term, *word.also)}
_PATTERN = re.compile(
    r"\b(?:" + "|".join(re.escape(one) for one in sorted(_BY_SPELLING, key=len, reverse=True)) + r")\b", re.IGNORECASE
)
