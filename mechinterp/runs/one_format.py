"""One chat format for all checkpoints of a comparison: what differs between them is then the model's own."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mechinterp.errors import InputError
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.text.chat import ChatChoice, ChatFormat, template_of
from mechinterp.runs.candidate import Candidate

logger = logging.getLogger(__name__)


def in_one_format(
    base: Candidate, tuned: Sequence[Candidate], choice: ChatChoice | None = None
) -> tuple[Candidate, list[Candidate]]:
    """The checkpoints, all to be read in one format.

    Args:
        base: what the others are compared with.
        tuned: the others.
        choice: what the user asks for; None for the format that a base in memory has already, of a base on disk its
            own template's, if it has one.

    Raises:
        InputError: if their templates differ and none was given, or there is none where one is asked for.
    """
    if choice is None and isinstance(base.origin, Checkpoint):
        chat = base.origin.chat
    else:
        chat = _chosen(base, tuned, choice or ChatChoice())
    return base.reading(chat), [candidate.reading(chat) for candidate in tuned]


def described(chat: ChatFormat | None) -> Any:
    """What a manifest says of a format."""
    return "none" if chat is None else chat.described


def _chosen(base: Candidate, tuned: Sequence[Candidate], choice: ChatChoice) -> ChatFormat | None:
    if choice.chat not in (None, "auto"):
        return choice.of(base.tokenizer, base.source)
    own = template_of(base.tokenizer)
    having = next((c for c in tuned if template_of(c.tokenizer) is not None), None) if own is None else base
    if having is None:
        return choice.of(base.tokenizer, base.source)
    if having is not base:
        logger.warning("%s has no chat template: all checkpoints are read in that of %s", base.source, having.source)
    chat = choice.of(having.tokenizer, having.source)
    for candidate in tuned:
        other = template_of(candidate.tokenizer)
        if other is not None and chat is not None and other != chat.template:
            raise InputError(
                f"{candidate.source} has another chat template than {having.source}, so that they would not read the "
                "same; give one for all (`chat=FILE`), or plain text (`chat=none`)"
            )
    return (
        replace(chat, origin=f"the tokenizer of {having.source}") if chat is not None and having is not base else chat
    )
