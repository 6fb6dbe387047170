"""Training rows as conversations, which TRL renders with the very template that everything else is fed in.

The loss is on the response and on what the template writes after it. Where that does not come out as the ids that the
other passes feed, the rows are refused: a model would be trained on one text and measured on another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from transformers import PreTrainedTokenizerBase

from mechinterp.data.conversations import asking, begun, messages_of
from mechinterp.errors import InputError
from mechinterp.models.text.chat import ChatFormat
from mechinterp.models.text.cutting import Cut
from mechinterp.models.text.rendering import Rendering, answered
from mechinterp.models.text.tokens import Encoded, encode

Row = dict[str, list[dict[str, str]]]


class Asked(Protocol):
    """What a training row is made of, besides the fields of its responses."""

    @property
    def id(self) -> int:
        """By which errors name it."""

    @property
    def prompt(self) -> Any:
        """What is asked."""


def conversational_rows(
    tokenizer: PreTrainedTokenizerBase,
    chat: ChatFormat,
    instances: Sequence[Asked],
    columns: Mapping[str, str],
    max_length: int,
) -> list[Row]:
    """Rows of messages; a user's text too long for the longest response beside it loses its left end.

    Args:
        tokenizer: of the model.
        chat: the format.
        instances: whose prompts are asked.
        columns: TRL column -> field of the instance, for the responses.
        max_length: tokens of prompt, response and the end of its turn.

    Raises:
        InputError: for a response that leaves no room, or a template that writes a conversation otherwise when it is
            over than while it goes on.
    """
    writing, cut, rows = Rendering(tokenizer, chat), Cut(), []
    prompts = [instance.prompt for instance in instances]
    names = [f"instance {instance.id}" for instance in instances]
    fed = {
        column: encode(
            tokenizer,
            prompts,
            [getattr(i, field) for i in instances],
            chat=chat,
            max_length=2**31,
            called=names,
            quiet=bool(number),
        )
        for number, (column, field) in enumerate(columns.items())
    }
    for number, (instance, prompt, name) in enumerate(zip(instances, prompts, names, strict=True)):
        if begun(prompt) is not None:
            raise InputError(
                f"{name}: its conversation begins the answer, which is no row to train on; end it before that"
            )
        responses = {column: getattr(instance, field) for column, field in columns.items()}
        wholes = {c: _over(writing, prompt, response, fed[c][number], name) for c, response in responses.items()}
        excess = max(map(len, wholes.values())) - max_length
        if excess > 0:
            encoded = fed[next(iter(columns))][number]
            content = encoded.positions("mean")
            if excess >= len(content):
                raise InputError(f"{name}: its responses leave no room for its prompt in {max_length}")
            kept = encoded.ids[content.start + excess : content.stop]
            cut.add(f"that of {name}", kept, [])
            prompt = asking(prompt, tokenizer.decode(list(kept)))
        asked = writing.messages(prompt)
        answers: dict[str, Any] = {c: [{"role": "assistant", "content": text}] for c, text in responses.items()}
        rows.append({"prompt": asked, **answers})
    cut.warn(len(rows), max_length)
    return rows


def _over(writing: Rendering, prompt: str, response: str, fed: Encoded, name: str) -> list[int]:
    """The ids of a conversation that is over, of which those that are fed elsewhere are the beginning."""
    (whole,) = writing.ids([writing.text(answered(messages_of(prompt), response), name, ended=True)])
    if whole[: len(fed.ids)] != fed.ids.tolist():
        raise InputError(
            f"{name}: the chat template of {writing.chat.origin} writes a conversation that is over otherwise than "
            "prompt and response one after the other; give another template to train with (`chat=FILE`), of a "
            "reasoning model `thinking=False`"
        )
    return whole
