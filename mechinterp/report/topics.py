"""What else a run may be of than where a change sits and whether it is gone: a section of the page, or all of it.

Circuits, facts, edits, traits and what states can be read for are asked by commands of their own. The page of such a
run has their title; that of a study which asks them too has a section for each.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

import pandas as pd

from mechinterp.report.circuits_in_words import circuits_in_words
from mechinterp.report.decodability_in_words import decodability_in_words
from mechinterp.report.edited_facts_in_words import edited_facts_in_words
from mechinterp.report.edits_in_words import edits_in_words, in_turn_in_words
from mechinterp.report.facts_in_words import facts_in_words
from mechinterp.report.plotting.style import method_label
from mechinterp.report.traits_in_words import traits_in_words


@dataclass(frozen=True)
class Topic:
    """A question that some tables answer.

    Attributes:
        name: its anchor, and what the page's list of sections calls it.
        title: the question.
        about: how it was asked, and what the numbers are.
        tables: that its sentences are made of, the first of all needed for it.
        in_words: makes them.
    """

    name: str
    title: str
    about: str
    tables: tuple[str, ...]
    in_words: Callable[..., list[str]]


TOPICS = (
    Topic(
        "circuits",
        "Which edges carry the answer, and what flows through them?",
        "An edge leads from what the embedding, a head or an MLP writes to a query, key, value, MLP or the logits that "
        "read it. On pairs of a prompt that calls for the answer (clean) and one as like it that does not (corrupted), "
        "every edge is scored by what the metric, the logits of the right tokens less those of the wrong ones, would "
        "lose if that edge alone carried what is written on the corrupted prompt: to first order, along the way from "
        "one prompt to the other. The strongest edges of the base are its circuit. Run alone, with all other edges "
        "replaced, it stands beside as many edges drawn at random; of a tuned checkpoint it is told what still flows "
        "through the base’s circuit.",
        ("circuits", "circuit_faithfulness"),
        circuits_in_words,
    ),
    Topic(
        "decodability",
        "What can still be read off the states?",
        "A probe is trained anew on each checkpoint’s own states and scored on categories of prompts that it has not "
        "seen, beside the prompt’s words alone, shuffled labels and a model of random weights. What is read as well as "
        "in the base, and not said, is decodable and not used.",
        ("decodability",),
        decodability_in_words,
    ),
    Topic(
        "facts",
        "What do the checkpoints make of the facts?",
        "Shares of an answer’s tokens that are the most probable ones when those before them are fed, fact by fact: of "
        "the new answer and the one before, in other words, of what follows from it (portability) and of what it "
        "should leave alone (locality, against the base). Brackets hold 95% intervals.",
        ("facts_summary",),
        facts_in_words,
    ),
    Topic(
        "edited-facts",
        "Facts edited at one block after the other: what became of them?",
        "Each fact is edited by itself, the base’s weights put back before the next. Shares with 95% intervals; where "
        "circuits were found, who writes the change of the new answer’s logit over the old one’s.",
        ("edited_facts",),
        edited_facts_in_words,
    ),
    Topic(
        "edits",
        "What do edits leave of each other?",
        "Two edits one after the other (conflict), or one and its way back (round trip), by each editor: means over "
        "the records, of what is left the median, with 95% intervals.",
        ("edits_summary",),
        edits_in_words,
    ),
    Topic(
        "edits-in-turn",
        "What is left of an edit after later ones?",
        "Edits are made one after the other and kept; each one’s answer is asked again after every later edit.",
        ("edits_in_turn",),
        in_turn_in_words,
    ),
    Topic(
        "traits",
        "What did edits towards a trait change?",
        "Opinions on a topic that show a trait, before and after an edit towards it: ES, the released measure of "
        "success, how much more probable opinions of each trait became, and how much was changed on another topic.",
        ("traits",),
        traits_in_words,
    ),
)


def labelled(sentence: str) -> str:
    """The same, its checkpoint as pictures and cards call it: what stands before the first colon, comma or "at"."""
    name = next(iter(re.findall(r"^\w+(?=[:,]| at )", sentence)), "")
    return method_label(name) + sentence.removeprefix(name)


def topics_told(tables: Mapping[str, pd.DataFrame]) -> Iterator[tuple[Topic, list[str]]]:
    """Those of which a run's tables say something, with the sentences."""
    for topic in TOPICS:
        if all(name in tables and len(tables[name]) for name in topic.tables):
            told: list[str] = []
            with suppress(KeyError, TypeError, ValueError):  # a table made by hand may lack columns
                told = topic.in_words(*(tables[name] for name in topic.tables))
            if told:
                yield topic, list(map(labelled, told))
