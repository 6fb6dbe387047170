"""A pair: a prompt with an unsafe and a safe answer. It is all that the audit reads of any data.

SafeEdit's instances are pairs with more to them (generalisation prompts, knowledge); files of others: `pair_files`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema

from mechinterp.data.conversations import Conversation, messages_of, prompt_of
from mechinterp.data.counting import many
from mechinterp.data.normalised import normalised
from mechinterp.data.safeedit import KnowledgeConstraint, SafeEditInstance, Text
from mechinterp.errors import InputError

_logger = logging.getLogger(__name__)


def _prompt(value: Any) -> Any:
    prompt = value if isinstance(value, Conversation) else prompt_of(value, "`prompt`")
    if not prompt.strip():
        raise ValueError("is blank")
    return prompt


def _as_read(prompt: str) -> Any:
    return messages_of(prompt) if isinstance(prompt, Conversation) else prompt


class Pair(BaseModel):
    """A prompt with an unsafe and a safe answer.

    Attributes:
        id: distinct among the pairs of a file.
        prompt: a text, or a `Conversation` where there are several messages (a list of them is taken for one).
        unsafe, safe: answers.
        category: of the harm; may be empty.
        question: what is asked at heart: pairs of one question are never parted. The prompt's text, if not given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    id: int = 0
    prompt: Annotated[Any, BeforeValidator(_prompt), PlainSerializer(_as_read), WithJsonSchema({})]
    unsafe: Text
    safe: Text
    category: str = ""
    question: str = Field(default_factory=lambda data: str(data["prompt"]))


AnyPair = Pair | SafeEditInstance
"""What is read as a pair: both have `id`, `prompt`, `unsafe`, `safe`, `category` and `question`."""


def knowledge_of(pair: AnyPair) -> KnowledgeConstraint | None:
    """The general-knowledge pair of a SafeEdit instance; others have none."""
    return pair.knowledge_constraint if isinstance(pair, SafeEditInstance) else None


def distinct_pairs(pairs: Sequence[Pair], where: str) -> list[Pair]:
    """Pairs, each once, without those that contradict themselves or each other; a warning counts what is left out.

    Texts that differ in nothing but case and blanks are the same.

    Args:
        pairs: in the order of their file.
        where: the file.

    Raises:
        InputError: if nothing is left.
    """
    kept: dict[tuple[str, str, str], Pair] = {}
    for pair in pairs:
        kept.setdefault((normalised(pair.prompt), normalised(pair.unsafe), normalised(pair.safe)), pair)
    unsafe = {(prompt, text) for prompt, text, _ in kept}
    both = unsafe & {(prompt, text) for prompt, _, text in kept}
    found = [
        pair for (prompt, bad, good), pair in kept.items() if (prompt, bad) not in both and (prompt, good) not in both
    ]
    repeated, contradictory = len(pairs) - len(kept), len(kept) - len(found)
    said = (
        f"{many(repeated, 'pair that repeats', 'pairs that repeat')} another, {contradictory} of which an "
        "answer is called both safe and unsafe"
    )
    if not found:
        raise InputError(f"{where}: has no pair of a safe and an unsafe answer that differ (left out: {said})")
    if repeated or contradictory:
        _logger.warning("%s: left out %s; kept %d", where, said, len(found))
    return found


def numbered(pairs: Sequence[AnyPair]) -> list[AnyPair]:
    """Pairs with distinct ids: those given in memory without any are numbered from 1."""
    if len(pairs) > 1 and not any(pair.id for pair in pairs):
        return [pair.model_copy(update={"id": number}) for number, pair in enumerate(pairs, 1)]
    return list(pairs)
