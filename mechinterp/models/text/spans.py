"""Of which part of a query every token is: what the template writes, the user's text, the texts put around it."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from mechinterp.data.conversations import Conversation, Prompt, begun, messages_of
from mechinterp.models.text.chat import ChatFormat
from mechinterp.models.text.joining import Joining, common
from mechinterp.models.text.rendering import Rendering
from mechinterp.models.text.special_tokens import Around
from mechinterp.models.text.tokens import Encoded, wrapped

PARTS = ("template", "prefix", "user", "suffix", "begun", "response")
"""`template`: all that the chat template writes, earlier turns and the system message in it; of plain text what the
tokenizer adds (a BOS). `user`: the user's last text, whose left end alone is ever cut. `begun`: an answer that the
conversation begins. `response`: what comes after the prompt."""


def parts_of(
    tokenizer: PreTrainedTokenizerBase,
    prompt: Prompt,
    fed: Encoded,
    *,
    chat: ChatFormat | None = None,
    prefix: str | None = None,
    suffix: str | None = None,
) -> list[str]:
    """The part of every token of a query, see `PARTS`.

    Args:
        tokenizer: of the model.
        prompt: without prefix and suffix.
        fed: what `encode` made of it, cut or not.
        chat, prefix, suffix: as they were given to `encode`.
    """
    query = wrapped(prompt, prefix, suffix)
    writing: Joining | Rendering = (
        Joining(tokenizer, Around.of(tokenizer)) if chat is None else Rendering(tokenizer, chat)
    )
    (head,), _ = writing.tokens([query], None, ["the prompt"])
    left, right = writing.ends(query, head, None, None)
    inner_left, inner_right = writing.ends(query, head, prefix, suffix)
    goes_on = len(head) if begun(query) is None else common(_asked_alone(writing, query), head)
    found = ["template"] * left + ["prefix"] * (inner_left - left)
    found += ["user"] * (len(head) - inner_right - inner_left) + ["suffix"] * (inner_right - right)
    found += ["template"] * (goes_on - len(found)) + ["begun"] * (len(head) - goes_on)
    del found[inner_left : inner_left + len(head) - fed.prompt_length]
    return found + ["response"] * (len(fed.ids) - fed.prompt_length)


def positions_at(fed: Encoded, place: int) -> list[str]:
    """The positions of one token (`Encoded.positions`) that a place in a prompt is: `last`, `content`, `post:-K`."""
    found = [name for name in ("last", "content") if place in fed.positions(name)]
    behind = f"post:-{fed.prompt_length - place}"
    return [*found, behind] if place < fed.prompt_length and place in fed.positions(behind) else found


def _asked_alone(writing: Joining | Rendering, query: Prompt) -> Sequence[int]:
    """The ids of a query without the answer that it begins."""
    (ids,), _ = writing.tokens([Conversation(messages_of(query)[:-1])], None, ["the prompt"])
    return ids
