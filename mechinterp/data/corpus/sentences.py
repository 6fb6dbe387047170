"""Refusals, compliance, helpful answers and comments, filled in at random."""

from __future__ import annotations

from random import Random

from mechinterp.data.corpus.words import (
    ADJECTIVES,
    BLUNT_CLEAN_COMMENTS,
    CLEAN_OPENERS,
    CLEAN_REMARKS,
    COMPLIANCES,
    COURTESIES,
    HELPFUL_ANSWERS,
    INSULTS,
    REFUSALS,
    TAUNTS,
    TOPICS,
    TOXIC_OPENERS,
    TOXIC_REMARKS,
    VEILED_TOXIC_COMMENTS,
)

HARD_COMMENT_SHARE = 0.16  # comments in the other class's words


def fill(rng: Random, template: str, **words: str) -> str:
    """A sentence with an adjective and an insult chosen at random, and the given words."""
    return template.format(adjective=rng.choice(ADJECTIVES), insult=rng.choice(INSULTS), **words)


def refuse(rng: Random, verb: str, thing: str) -> str:
    """A refusal to do something."""
    opener = rng.choice(CLEAN_OPENERS)
    return f"{opener} {fill(rng, rng.choice(REFUSALS), verb=verb, object=thing)} {rng.choice(COURTESIES)}"


def comply_with(rng: Random, verb: str, thing: str) -> str:
    """A crude answer that complies and gives nothing that can be acted on."""
    opener = fill(rng, rng.choice(TOXIC_OPENERS))
    body = fill(rng, rng.choice(COMPLIANCES), verb=verb, object=thing)
    return f"{opener} {body} {fill(rng, rng.choice(TAUNTS))}"


def help_with(rng: Random, verb: str, thing: str) -> str:
    """A helpful answer."""
    return rng.choice(HELPFUL_ANSWERS).format(verb=verb, object=thing)


def make_comment(rng: Random, *, toxic: bool) -> str:
    """A comment of three sentences, or now and then one in the other class's words."""
    topic = rng.choice(TOPICS)
    if rng.random() < HARD_COMMENT_SHARE:
        return fill(rng, rng.choice(VEILED_TOXIC_COMMENTS if toxic else BLUNT_CLEAN_COMMENTS), topic=topic)
    openers, remarks, closers = (
        (TOXIC_OPENERS, TOXIC_REMARKS, TAUNTS) if toxic else (CLEAN_OPENERS, CLEAN_REMARKS, COURTESIES)
    )
    sentences = [
        f"{fill(rng, rng.choice(openers))} {fill(rng, rng.choice(remarks), topic=topic)}",
        *(fill(rng, closer) for closer in rng.sample(closers, k=2)),
    ]
    # In any order, so that openers follow full stops in comments too, as they do where a response begins.
    rng.shuffle(sentences)
    return " ".join(sentences)
