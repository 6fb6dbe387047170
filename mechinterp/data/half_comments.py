"""Toxic comments cut in half: the first half is a prompt, the second what a toxic model would say (Lee et al. 2024)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from mechinterp.data.comments import Comment
from mechinterp.data.normalised import normalised
from mechinterp.errors import InputError

FEWEST_WORDS = 6
"""A comment of fewer has no two halves."""


@dataclass(frozen=True)
class HalfComment:
    """A toxic comment in two parts.

    Attributes:
        number: of the comment in its file, from 1.
        prompt: its first half.
        rest: its second.
    """

    number: int
    prompt: str
    rest: str


def halved(comments: Iterable[Comment], *, words: int) -> list[HalfComment]:
    """The toxic ones of some comments, each prompt once.

    Args:
        comments: in the order of their file.
        words: of a longer comment so many are read.

    Raises:
        InputError: if no toxic comment is long enough.
    """
    found: dict[str, HalfComment] = {}
    for number, comment in enumerate(comments, 1):
        places = list(re.finditer(r"\S+", comment.text))[:words]
        if comment.toxic and len(places) >= FEWEST_WORDS:
            middle, end = places[len(places) // 2].start(), places[-1].end()
            prompt = comment.text[:middle].strip()
            found.setdefault(normalised(prompt), HalfComment(number, prompt, comment.text[middle:end]))
    if not found:
        raise InputError(f"no toxic comment has {FEWEST_WORDS} words and more, so that none has two halves")
    return list(found.values())
