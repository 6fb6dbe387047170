"""What an editor of facts is asked for, and its texts as tokens: the prompt in every context, the answer after it.

    text = context with the prompt for its {}, a blank, the target without its last token

A context is a text with one `{}`; the first is the bare one. In a chat format the context with the prompt is the user's
message. The token at which the edit acts is the subject's last one, or the last one of the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mechinterp.data.conversations import Prompt, asked, asking
from mechinterp.data.facts.fact import SLOT, Fact
from mechinterp.errors import InputError
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.feeding import as_fed
from mechinterp.models.passes.upper_blocks import Scored
from mechinterp.models.text.special_tokens import Around
from mechinterp.models.text.subjects import part_tokens
from mechinterp.models.text.tokens import Encoded

FactToken = Literal["subject_last", "last"]
"""Where an edit acts: at the last token of the subject, or of the prompt (for texts that have no subject)."""

BARE = SLOT
"""The context that adds nothing."""


@dataclass(frozen=True)
class Request:
    """A prompt, and what the model shall say after it.

    Attributes:
        id: in tables and edits.
        prompt: a text with one `{}` for the subject; any prompt where that is None.
        subject: what the fact is about; None where there is none, and the last token is edited.
        target: what comes after the prompt, without the blank between.
    """

    id: int
    prompt: Prompt
    subject: str | None
    target: str

    @classmethod
    def of(cls, number: int, fact: Fact) -> Request:
        """From a fact that is to be changed; one without a subject is edited at the prompt's last token alone.

        Raises:
            InputError: if its subject is not in its prompt, or it has no new target.
        """
        if not fact.target_new.strip():
            raise InputError(f"fact {number}, {fact.text!r:.80}: it has no new target to write; give `target_new`")
        if not fact.subject.strip():
            return cls(number, fact.text, None, fact.target_new)
        try:
            return cls(number, fact.template, fact.subject, fact.target_new)
        except InputError as error:
            raise InputError(f"fact {number}: {error}") from None

    @property
    def question(self) -> Prompt:
        """The prompt with its subject."""
        return self.prompt if self.subject is None else asked(self.prompt).replace(SLOT, self.subject)


@dataclass(frozen=True)
class Placed:
    """A text in tokens, and the one at which an edit acts."""

    text: Encoded
    place: int


def placed(
    checkpoint: Checkpoint,
    request: Request,
    contexts: Sequence[str],
    at: FactToken,
    *,
    target: str | None = None,
    prompt: str | None = None,
) -> list[Placed]:
    """The request's prompt in every context, and where the edit acts.

    Args:
        checkpoint: the model.
        request: what is asked for.
        contexts: each with one `{}`.
        at: see `FactToken`.
        target: what comes after the prompt; nothing if not given.
        prompt: another one with `{}` for the subject.

    Raises:
        InputError: for a text that is too long, or a request without a subject where the place is the subject's.
    """
    if at == "subject_last" and request.subject is None:
        raise InputError(f"fact {request.id}: it has no subject to edit at; choose the fact token `last`")
    whole, slot = prompt or request.prompt, (0, 0)
    own = asked(whole)
    if request.subject is not None:
        start = own.index(SLOT)
        own, slot = own.replace(SLOT, request.subject), (start, start + len(request.subject))
    before = [context.index(BARE) for context in contexts]
    texts = [
        f"{context[:shift]}{own}{context[shift + len(BARE) :]}" for context, shift in zip(contexts, before, strict=True)
    ]
    read = as_fed(
        checkpoint,
        [asking(whole, text) for text in texts],
        None if target is None else [target] * len(texts),
        called=[f"fact {request.id}"] * len(texts),
        quiet=True,
    )
    if at == "last":
        return [Placed(text, text.prompt_length - 1) for text in read]
    parts = [(text, (shift + slot[0], shift + slot[1])) for text, shift in zip(texts, before, strict=True)]
    subjects = part_tokens(checkpoint.tokenizer, parts, chat=checkpoint.chat)
    return [Placed(text, subject[-1]) for text, subject in zip(read, subjects, strict=True)]


def asked_for(text: Encoded, most: int | None = None) -> Scored:
    """A text whose target is asked for: its tokens but the last, scored where they predict the target's.

    Args:
        text: the prompt with the target after it.
        most: tokens of the target that count.
    """
    stop = len(text.ids) if most is None else min(len(text.ids), text.prompt_length + most)
    positions = range(text.prompt_length - 1, stop - 1)
    return Scored(text.ids[: stop - 1], positions, text.ids[text.prompt_length : stop])


def open_text(checkpoint: Checkpoint, text: str) -> Encoded:
    """Plain text that the model goes on from, whatever the chat format."""
    ids = list(checkpoint.tokenizer(text, verbose=False)["input_ids"])
    ids = Around.of(checkpoint.tokenizer).open_end(ids)
    return Encoded.of(ids, len(ids))
