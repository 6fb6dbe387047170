"""Prompts with whole answers as tokens: what a model is taught, or made to forget, with the token that ends an answer.

As the package feeds texts, an answer is joined to its prompt by one space, or as the chat format has it. KnowUnDo puts
a separator of its own between the two (two line ends), which counts as part of the answer: the answer begins where the
prompt's own tokens end.
"""

from __future__ import annotations

from collections.abc import Sequence

from mechinterp.data.conversations import Prompt
from mechinterp.errors import InputError
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.answer_ends import answer_end
from mechinterp.models.passes.feeding import as_fed
from mechinterp.models.text.cutting import Cut, keep_right
from mechinterp.models.text.special_tokens import Around
from mechinterp.models.text.tokens import Encoded, plain_text, wrapped


def answers_as_tokens(
    checkpoint: Checkpoint,
    questions: Sequence[tuple[Prompt, str]],
    *,
    separator: str | None = None,
    prefix: str | None = None,
    max_length: int | None = None,
    truncate: bool = False,
    called: str = "text",
) -> list[Encoded]:
    """Prompts with their answers, without the token that ends an answer; there is room for it.

    Args:
        checkpoint: whose tokenizer and format they are fed in.
        questions: prompts and answers.
        separator: between the two, and part of the answer; None: as the package feeds texts.
        prefix: text before every prompt, joined by one space.
        max_length: tokens of a text at most; the context if not given.
        truncate: cut long prompts from the left instead of raising.
        called: what a text is called in errors, before its number.

    Raises:
        InputError: for an empty or too long text, or a separator in a chat format.
    """
    context = checkpoint.names.context_length
    length = min(context, max_length or context) - (answer_end(checkpoint) is not None)
    names = [f"{called} {number}" for number in range(len(questions))]
    if separator is None:
        return as_fed(
            checkpoint,
            [prompt for prompt, _ in questions],
            [answer for _, answer in questions],
            max_length=length,
            truncate=truncate,
            prefix=prefix,
            called=names,
        )
    if checkpoint.chat is not None:
        raise InputError("a separator stands between texts, not in a chat format; leave `separator` out, or the format")
    tokenizer, around, cut, found = checkpoint.tokenizer, Around.of(checkpoint.tokenizer), Cut(), []
    for name, (prompt, answer) in zip(names, questions, strict=True):
        text = plain_text(wrapped(prompt, prefix), name)
        head, whole = (
            around.open_end(tokenizer(each, verbose=False)["input_ids"])
            for each in (text, f"{text}{separator}{answer}")
        )
        front, room = around.in_front(whole), length - (len(whole) - len(head))
        if not 0 < len(head) < len(whole):
            raise InputError(f"{name} has a prompt or an answer without tokens")
        kept = list(whole[: len(head)])
        if len(kept) > room:
            if not truncate or room <= front:
                raise InputError(
                    f"{name} has {len(whole)} tokens, {length} fit beside the token that ends it; shorten it, cut "
                    "prompts on the left (`truncate=True`) or use a model with a longer context"
                )
            kept = keep_right(kept, room, front)
            cut.add(name, kept, ())
        found.append(Encoded.of([*kept, *whole[len(head) :]], len(kept)))
    cut.warn(len(questions), length)
    return found


def ended(checkpoint: Checkpoint, texts: Sequence[Encoded]) -> list[Encoded]:
    """The texts, each with the token that a model is taught to end an answer with, where it has one."""
    end = answer_end(checkpoint)
    if end is None:
        return list(texts)
    return [Encoded.of([*text.ids, end], text.prompt_length, text.content) for text in texts]
