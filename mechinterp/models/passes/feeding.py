"""Texts as a checkpoint is fed them: in its tokens, in its chat format, within its context."""

from __future__ import annotations

from collections.abc import Sequence

from mechinterp.data.conversations import Prompt
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.text.tokens import Encoded, encode

ANY_LENGTH = 2**31 - 1
"""For texts on which nothing is run, or that are cut later."""


def as_fed(
    checkpoint: Checkpoint,
    prompts: Sequence[Prompt],
    responses: Sequence[str] | None = None,
    *,
    max_length: int | None = None,
    reserve: int = 0,
    truncate: bool = False,
    prefix: str | None = None,
    suffix: str | None = None,
    called: Sequence[str] | None = None,
    quiet: bool = False,
) -> list[Encoded]:
    """Prompts, or prompts with responses after them, as the checkpoint is fed them.

    Args:
        checkpoint: its tokenizer and format.
        prompts, responses: as `tokens.encode` takes them, and all else.
        max_length: tokens of a text at most; the context if not given.

    Raises:
        InputError: as `tokens.encode`.
    """
    return encode(
        checkpoint.tokenizer,
        prompts,
        responses,
        max_length=checkpoint.names.context_length if max_length is None else max_length,
        chat=checkpoint.chat,
        truncate=truncate,
        reserve=reserve,
        prefix=prefix,
        suffix=suffix,
        called=called,
        quiet=quiet,
    )
