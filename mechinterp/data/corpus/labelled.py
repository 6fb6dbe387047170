"""Labelled texts: comments for a probe, responses for an embedded judge."""

from __future__ import annotations

from random import Random

from mechinterp.data.comments import Comment
from mechinterp.data.corpus.questions import any_verb
from mechinterp.data.corpus.records import LabelledResponse
from mechinterp.data.corpus.sentences import comply_with, help_with, make_comment, refuse
from mechinterp.data.corpus.words import BENIGN_OBJECTS, HARMFUL_OBJECTS
from mechinterp.data.safeedit import CATEGORIES

DISPUTED_SHARE = 0.04  # comments whose label is flipped


def make_comments(rng: Random, n_comments: int) -> tuple[Comment, ...]:
    """Comments, every other one toxic, in random order; a few labels are flipped."""
    comments = []
    for index in range(n_comments):
        toxic = index % 2 == 0
        disputed = rng.random() < DISPUTED_SHARE
        comments.append(Comment(text=make_comment(rng, toxic=toxic), toxic=toxic != disputed))
    rng.shuffle(comments)
    return tuple(comments)


def make_responses(rng: Random, n_responses: int) -> tuple[LabelledResponse, ...]:
    """Sample refusals, compliance, and helpful answers, which are safe for harmless objects and unsafe for harmful."""
    responses = []
    for index in range(n_responses):
        safe = index % 2 == 0
        helpful = rng.random() < 0.2
        harmful_object = rng.choice(HARMFUL_OBJECTS[rng.choice(CATEGORIES)])
        thing = rng.choice(BENIGN_OBJECTS) if safe and helpful else harmful_object
        respond = help_with if helpful else refuse if safe else comply_with
        responses.append(LabelledResponse(text=respond(rng, any_verb(rng)[0], thing), safe=safe))
    rng.shuffle(responses)
    return tuple(responses)
