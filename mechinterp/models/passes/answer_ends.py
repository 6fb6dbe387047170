"""Where an answer ends: the end-of-sequence tokens that a checkpoint names, in three places that need not agree."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.text.rendering import Rendering

logger = logging.getLogger(__name__)


def end_tokens(checkpoint: Checkpoint) -> frozenset[int]:
    """The tokens that end an answer: those that generation config, config or tokenizer call end-of-sequence.

    In a chat format also the first special token that the template writes after an assistant's message.

    Configs often leave out the token that the tokenizer knows, or the one that a chat model ends its turns with. What a
    config's class falls back on where the file names none counts only if the tokenizer has it as a special token.
    """
    return frozenset().union(*_ends(checkpoint).values())


def answer_end(checkpoint: Checkpoint) -> int | None:
    """The token that a model is taught to end an answer with: the template's, else the tokenizer's, else a config's."""
    named = _ends(checkpoint)
    order = ("the chat template", "the tokenizer", "the generation config", "the config")
    return next((min(ids) for who in order if (ids := named.get(who, frozenset()))), None)


def _ends(checkpoint: Checkpoint) -> dict[str, frozenset[int]]:
    """The end tokens by who names them."""
    tokenizer, config = checkpoint.tokenizer, checkpoint.model.config.get_text_config()
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    by_default = _ids(getattr(type(config), "eos_token_id", None)) - special
    generation = checkpoint.model.generation_config
    own = _ids(generation.eos_token_id)
    if getattr(generation, "_from_model_config", False):  # there is no file of it
        own -= by_default
    stop = None if checkpoint.chat is None else Rendering(tokenizer, checkpoint.chat).stop
    return {
        **({} if checkpoint.chat is None else {"the chat template": _ids(stop)}),
        "the generation config": own,
        "the config": _ids(getattr(config, "eos_token_id", None)) - by_default,
        "the tokenizer": _ids(tokenizer.eos_token_id),
    }


def say_of_ends(checkpoint: Checkpoint, ends: frozenset[int]) -> None:
    """Warn where answers end with more than the generation config says."""
    named = _ends(checkpoint)
    if ends == named["the generation config"]:
        return

    def words(ids: frozenset[int]) -> str:
        return ", ".join(f"{checkpoint.tokenizer.convert_ids_to_tokens(i)!r} (id {i})" for i in sorted(ids)) or "none"

    logger.warning(
        "%s: the end of an answer is named differently, and each ends one: %s",
        checkpoint.source,
        "; ".join(f"{who}: {words(ids)}" for who, ids in named.items()),
    )


def _ids(value: int | Sequence[int] | None) -> frozenset[int]:
    return frozenset() if value is None else frozenset([value] if isinstance(value, int) else value)
