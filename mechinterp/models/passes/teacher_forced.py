"""What a model would say at every token of given answers, teacher-forced: the most probable token beside the right one.

The prompt has the tokens that it has alone, the answer those that follow it where both are tokenised together;
positions ignore padding. So an answer is read as if it were alone, whatever shares its batch, up to rounding. Traps of
EasyEdit's released code that are not repeated here: several prompts are padded on the left without position ids, which
moves what a model of absolute positions (GPT-2) predicts; a prompt's length is the number of its ids that are not
padding, which an EOS in the text upsets where it is the padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mechinterp.data.conversations import Prompt
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.feeding import as_fed
from mechinterp.models.passes.scoring import answer_logits, in_batches, widened
from mechinterp.models.text.batches import to_device
from mechinterp.models.text.tokens import Encoded

UNDEFINED = -1
"""Stands for the most probable token where a logit is not a number."""


@dataclass(frozen=True)
class Forced:
    """An answer as a model reads it.

    Attributes:
        ids: its tokens.
        predicted: the most probable token in the place of each; `UNDEFINED` for none.
        logprobs: of its tokens, each after all before it, in nats.
    """

    ids: tuple[int, ...]
    predicted: tuple[int, ...]
    logprobs: tuple[float, ...]

    @property
    def logprob(self) -> float:
        """Mean over the tokens, in nats."""
        return sum(self.logprobs) / len(self.logprobs)


@torch.no_grad()
def force(
    checkpoint: Checkpoint,
    prompts: Sequence[Prompt],
    answers: Sequence[str],
    *,
    prefix: str | None = None,
    suffix: str | None = None,
    truncate: bool = False,
    side: Any = "right",
    **batching: Any,
) -> list[Forced]:
    """Read answers after their prompts.

    Args:
        checkpoint: the model; left as it was.
        prompts: texts, or conversations in a chat format.
        answers: one per prompt, joined by one space.
        prefix, suffix: text around every prompt.
        truncate: cut prompts that exceed the context from the left instead of raising.
        side: where padding goes; it changes nothing but rounding.
        batching: `max_tokens`, `max_batch`, `shared` and `progress`, as `scoring.score` takes them.

    Returns:
        In the order of the prompts.

    Raises:
        InputError: for an empty or too long text.
    """
    texts = as_fed(
        checkpoint,
        prompts,
        answers,
        truncate=truncate,
        prefix=prefix,
        suffix=suffix,
    )
    return force_tokens(checkpoint, texts, side=side, **batching)


@torch.no_grad()
def force_tokens(
    checkpoint: Checkpoint, texts: Sequence[Encoded], *, side: Any = "right", **batching: Any
) -> list[Forced]:
    """Read answers that are tokens already, each behind its prompt; arguments and result as of `force`."""
    return in_batches(checkpoint, texts, lambda some: _of_batch(checkpoint, some, side), **batching) if texts else []


def _of_batch(checkpoint: Checkpoint, texts: Sequence[Encoded], side: Any) -> list[Forced]:
    logits, answers = answer_logits(checkpoint, texts, side=side)
    labels = to_device(torch.tensor([token for answer in answers for token in answer]), logits.device)
    predicted, logprobs = list[int](), list[float]()
    for wide, wanted in widened(logits, labels):
        total = wide.logsumexp(1)
        likely = torch.where(total.isfinite(), wide.argmax(1), UNDEFINED)
        predicted += likely.tolist()
        logprobs += (wide.gather(1, wanted[:, None])[:, 0] - total).tolist()
    found, at = [], 0
    for answer in answers:
        place = slice(at, at := at + len(answer))
        found.append(Forced(tuple(answer), tuple(predicted[place]), tuple(logprobs[place])))
    return found
