"""Whether the last prompt token is the one that chooses the first token of the answer, as recordings take it to be.

What is read at `last` is read as what the answer comes from. So the token that the logits there choose must be the one
that generation begins with; a template rendered without the answer's header, a BOS too many in one of the two, or
padding that reaches a position would show here.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from transformers import PreTrainedModel

from mechinterp.data.conversations import Prompt
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.generation import continue_greedily
from mechinterp.models.passes.positions import reading
from mechinterp.models.passes.sequences import Reading
from mechinterp.models.passes.watching import evaluating
from mechinterp.models.text.batches import pad
from mechinterp.models.text.tokens import Encoded
from mechinterp.models.unembedding import last_unembedded

logger = logging.getLogger(__name__)

_ROUNDING = 16  # steps of the logits' type by which two that were computed otherwise may differ
_CHECKED: WeakKeyDictionary[PreTrainedModel, set[str]] = WeakKeyDictionary()


@dataclass(frozen=True)
class FirstToken:
    """The first token of an answer, in two ways.

    Attributes:
        said: the first of the greedy answer.
        chosen: that of the largest logit at the last prompt token.
        apart: how far below it the logit of `said` is, in steps of the logits' type; 0 where they are one.
    """

    said: int
    chosen: int
    apart: float

    @property
    def agrees(self) -> bool:
        """Whether the two are one, up to rounding."""
        return self.apart <= _ROUNDING


@torch.no_grad()
def first_token(
    checkpoint: Checkpoint,
    prompt: Prompt,
    *,
    prefix: str | None = None,
    suffix: str | None = None,
    truncate: bool = False,
    called: str = "the prompt",
) -> FirstToken:
    """The first token of the greedy answer to a prompt, and the one that the logits at its last token choose.

    Args:
        checkpoint: the model; left as it was.
        prompt: a text or conversation.
        prefix, suffix, truncate, called: as `continue_greedily` takes them.

    Raises:
        InputError: for a prompt that is empty or leaves no room in the context.
    """
    around = {"prefix": prefix, "suffix": suffix, "truncate": truncate, "called": [called]}
    (whole,) = continue_greedily(checkpoint, [prompt], max_new_tokens=1, quiet=True, **around)
    asked = Encoded(whole.ids[: whole.prompt_length], whole.prompt_length, whole.content)
    batch = pad([asked], pad_id=checkpoint.padding_id, device=checkpoint.device)
    with evaluating(checkpoint.model), last_unembedded(checkpoint), reading(batch):
        logits = checkpoint.model(**batch.inputs()).logits[0, -1]
    said, chosen = whole.ids[whole.prompt_length], int(logits.argmax())
    step = torch.finfo(logits.dtype).eps * max(1.0, abs(float(logits[chosen])))
    return FirstToken(said, chosen, float(logits[chosen] - logits[said]) / step)


def check_first_token(checkpoint: Checkpoint, prompts: Sequence[Prompt], read: Sequence[Reading]) -> None:
    """Warn where the last prompt token does not choose the first of the answer; once per model and chat format.

    Two passes over the shortest prompt that leaves room for an answer: next to nothing beside a recording.

    Args:
        checkpoint: in a chat format; of plain text there is nothing that could go wrong.
        prompts: that are recorded.
        read: their tokens.
    """
    chat = checkpoint.chat
    if chat is None or chat.fingerprint in (checked := _CHECKED.setdefault(checkpoint.model, set())):
        return
    shortest = min(read, key=lambda one: one.encoded.prompt_length)
    if shortest.encoded.prompt_length >= checkpoint.names.context_length:
        return
    checked.add(chat.fingerprint)
    row = shortest.input
    found = first_token(checkpoint, prompts[row], called=f"prompt {row}")
    if not found.agrees:
        names = checkpoint.tokenizer.convert_ids_to_tokens([found.chosen, found.said])
        logger.warning(
            "%s, prompt %d: the logits at its last token choose %r, but its greedy answer begins with %r: what is "
            "recorded at `last` is not what the answer comes from; `show-tokens` shows what is fed",
            checkpoint.name,
            row,
            *names,
        )
