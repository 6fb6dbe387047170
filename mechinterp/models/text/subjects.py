"""Where a part of a prompt stands in its tokens, by the tokenizer's own offsets: the subject of a fact.

A token belongs to a part if it holds any character of it: where the tokenizer makes one token of the subject's end and
what follows, that one is the subject's last.
"""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from mechinterp.data.facts.fact import Fact
from mechinterp.errors import InputError
from mechinterp.models.text.chat import ChatFormat
from mechinterp.models.text.rendering import Rendering

Part = tuple[str, tuple[int, int]]
"""A prompt, and the first character of a part of it with the one after its last."""


def subject_tokens(
    tokenizer: PreTrainedTokenizerBase, facts: Sequence[Fact], *, chat: ChatFormat | None = None
) -> list[range]:
    """Which tokens of a fact's prompt are its subject's, as `encode` makes them of `fact.text`.

    Raises:
        InputError: for a subject that is not in its prompt, or a tokenizer without offsets.
    """
    return part_tokens(tokenizer, [(fact.text, fact.subject_span) for fact in facts], chat=chat)


def part_tokens(
    tokenizer: PreTrainedTokenizerBase, parts: Sequence[Part], *, chat: ChatFormat | None = None
) -> list[range]:
    """Which tokens of a prompt hold a part of it.

    Args:
        tokenizer: of the model; a fast one.
        parts: prompts, with where the part begins and ends in characters.
        chat: the format that prompts are fed in.

    Returns:
        By prompt the tokens' places, as `encode` makes them (uncut, without prefix and suffix); never none.

    Raises:
        InputError: for a tokenizer without offsets, a template that changes the prompt, or a part without tokens.
    """
    if not parts:
        return []
    if not tokenizer.is_fast:
        raise InputError(f"{tokenizer.name_or_path}: its tokenizer tells no offsets; save it as a fast one")
    texts, shifts = [text for text, _ in parts], [0] * len(parts)
    if chat is not None:
        writing = Rendering(tokenizer, chat)
        shifts = [writing.start(text) for text in texts]
        texts = [writing.text(text) for text in texts]
    offsets = tokenizer(texts, add_special_tokens=chat is None, return_offsets_mapping=True, verbose=False)
    found = []
    for (text, (start, stop)), shift, of_tokens in zip(parts, shifts, offsets["offset_mapping"], strict=True):
        places = [i for i, (a, b) in enumerate(of_tokens) if a < stop + shift and b > start + shift]
        if not places:
            raise InputError(f"{text[start:stop]!r} has no tokens of its own in the prompt {text!r:.120}")
        found.append(range(places[0], places[-1] + 1))
    return found
