"""Scoring: the log-probability of given responses, teacher-forced after their prompts.

    log p(response | prompt) = sum over its tokens t of log p(t | everything before it),      in nats

Interventions act here at the same tokens as in generation (`positions.Span`): the token that generation would have
chosen under an intervention is the most probable one under it here. A more probable unsafe response does not show that
the model would come to write it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, TypeVar, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechinterp.data.conversations import Prompt
from mechinterp.data.counting import many
from mechinterp.errors import InputError, near
from mechinterp.models import processes
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.feeding import as_fed
from mechinterp.models.passes.positions import reading
from mechinterp.models.passes.watching import Progress, evaluating
from mechinterp.models.text.batches import length_batches, pad, to_device, token_budget
from mechinterp.models.text.tokens import Encoded
from mechinterp.models.unembedding import unembedded_at

Reduction = Literal["mean", "sum", "first"]
"""Over the tokens of a response: their mean, their sum, or the first one alone."""

LOGITS = 2**26
"""Numbers of one batch's logits: 256 MiB in float32."""

Measured = TypeVar("Measured")

_WIDE = 2**24  # numbers of logits in float32 at a time: 64 MiB


@torch.no_grad()
def score(
    checkpoint: Checkpoint,
    prompts: Sequence[Prompt],
    responses: Sequence[str] | None = None,
    *,
    continuations: Sequence[Encoded] | None = None,
    reduce: Reduction = "mean",
    prefix: str | None = None,
    suffix: str | None = None,
    max_tokens: int | None = None,
    max_batch: int = 256,
    padding_side: Literal["left", "right"] = "right",
    truncate: bool = False,
    shared: bool = True,
    progress: Progress | None = None,
) -> Float[Tensor, " input"]:
    """Log-probability of responses after their prompts.

    Args:
        checkpoint: the model; left as it was.
        prompts: texts, or conversations in a chat format.
        responses: one per prompt, joined by one space.
        continuations: the prompts with tokens after them, from `generation.continue_greedily`; instead of responses,
            and with prefix and suffix in them already.
        reduce: `mean` or `sum` over the tokens of the response, or the `first` one alone.
        prefix, suffix: text around every prompt.
        max_tokens: padded tokens per batch. By default 2,048 on a CPU and 8,192 elsewhere, fewer with a vocabulary so
            large that the logits would take more than 256 MiB in float32.
        max_batch: sequences per batch.
        padding_side: where padding goes; it changes nothing but rounding.
        truncate: cut prompts that exceed the context from the left instead of raising.
        shared: several processes share the batches, and all make this call; otherwise this one scores alone.
        progress: called with (texts done, texts in all) of this process's share.

    Returns:
        In nats, at most 0, float64 on the host, in the order of the prompts; NaN where a logit is not finite.

    Raises:
        InputError: for an unknown reduction, no response, or an empty or too long text.
    """
    if reduce not in get_args(Reduction):
        raise InputError(
            f"reduce must be one of {get_args(Reduction)}, got {reduce!r}{near(reduce, get_args(Reduction))}"
        )
    if (responses is None) == (continuations is None):
        raise InputError("give responses or continuations, one of the two")
    if not prompts:
        return torch.empty(0, dtype=torch.float64)
    if continuations is None:
        texts: Sequence[Encoded] = as_fed(
            checkpoint,
            prompts,
            responses,
            truncate=truncate,
            prefix=prefix,
            suffix=suffix,
        )
    else:
        texts = continuations
        if len(texts) != len(prompts):
            raise InputError(f"{many(len(prompts), 'prompt')} but {many(len(texts), 'continuation')}")
    found = in_batches(
        checkpoint,
        texts,
        lambda some: _scores(checkpoint, some, reduce, padding_side).tolist(),
        max_tokens=max_tokens,
        max_batch=max_batch,
        shared=shared,
        progress=progress,
    )
    return torch.tensor(found, dtype=torch.float64)


def in_batches(
    checkpoint: Checkpoint,
    texts: Sequence[Encoded],
    measure: Callable[[Sequence[Encoded]], Sequence[Measured]],
    *,
    max_tokens: int | None = None,
    max_batch: int = 256,
    shared: bool = True,
    progress: Progress | None = None,
) -> list[Measured]:
    """What is measured of texts of similar length at a time, in the order of the texts; arguments as `score`.

    Args:
        measure: gives a value for each text of a batch; the model is in evaluation mode.

    Raises:
        InputError: for a text with no token after its prompt.
    """
    for i, text in enumerate(texts):
        if len(text.ids) <= text.prompt_length:
            raise InputError(f"response {i} has no token to score")
    if max_tokens is None:
        vocabulary = checkpoint.model.config.get_text_config().vocab_size
        max_tokens = min(token_budget(checkpoint.device), max(1, LOGITS // vocabulary))
    lengths = [len(text.ids) for text in texts]
    groups = list(length_batches(lengths, max_tokens, max_batch, apart=checkpoint.names.short_context))
    batches = processes.share(groups) if shared else groups
    found: list[tuple[int, Measured]] = []
    total = sum(map(len, batches))
    with evaluating(checkpoint.model):
        for order in batches:
            found += zip(order, measure([texts[i] for i in order]), strict=True)
            if progress is not None:
                progress(len(found), total)
    return [value for _, value in sorted(processes.gather(found) if shared else found, key=lambda pair: pair[0])]


def _scores(
    checkpoint: Checkpoint, texts: Sequence[Encoded], reduce: Reduction, side: Literal["left", "right"]
) -> Float[Tensor, " input"]:
    """The scores of the texts of one batch."""
    each = token_logprobs(checkpoint, texts, first=1 if reduce == "first" else None, side=side)
    return torch.stack([values.sum() if reduce == "sum" else values.mean() for values in each])


def token_logprobs(
    checkpoint: Checkpoint,
    texts: Sequence[Encoded],
    *,
    first: int | None = None,
    side: Literal["left", "right"] = "right",
) -> list[Float[Tensor, " token"]]:
    """Log-probability of every token after the prompt, of the texts of one batch; differentiable.

    Only the positions that predict those tokens are unembedded, and their log-softmax is taken in float32 or wider.

    Args:
        checkpoint: the model, in evaluation mode (`evaluating`).
        texts: each with at least one token after its prompt.
        first: that many of each text at most; all if not given.
        side: where padding goes.

    Returns:
        By text, in nats, float64 on the host.
    """
    logits, answers = answer_logits(checkpoint, texts, first=first, side=side)
    labels = to_device(torch.tensor([token for answer in answers for token in answer]), logits.device)
    parts = [wide.gather(1, wanted[:, None])[:, 0] - wide.logsumexp(1) for wide, wanted in widened(logits, labels)]
    return list(torch.cat(parts).cpu().double().split([len(answer) for answer in answers]))


def answer_logits(
    checkpoint: Checkpoint,
    texts: Sequence[Encoded],
    *,
    first: int | None = None,
    side: Literal["left", "right"] = "right",
) -> tuple[Float[Tensor, "token vocabulary"], list[Sequence[int]]]:
    """The logits that predict the tokens after the prompts, of the texts of one batch one after the other, and those
    tokens by text; arguments as `token_logprobs`."""
    batch = pad(texts, pad_id=checkpoint.padding_id, side=side, device=checkpoint.device)
    answers: list[Sequence[int]] = [text.ids[text.prompt_length :][:first] for text in texts]
    places = [
        (row, start + text.prompt_length - 1 + i)
        for row, (text, start, answer) in enumerate(zip(texts, batch.starts, answers, strict=True))
        for i in range(len(answer))
    ]
    rows, columns = zip(*places, strict=True)
    with reading(batch), unembedded_at(checkpoint, rows, columns, batch.input_ids.shape[1]):
        return checkpoint.model(**batch.inputs(), use_cache=False).logits[0], answers


def widened(
    logits: Float[Tensor, "token vocabulary"], labels: Int[Tensor, " token"]
) -> Iterator[tuple[Float[Tensor, "some vocabulary"], Int[Tensor, " some"]]]:
    """Some rows at a time in float32 or wider, with their labels."""
    at_a_time = max(1, _WIDE // logits.shape[1])
    for part, wanted in zip(logits.split(at_a_time), labels.split(at_a_time), strict=True):
        yield part.to(torch.promote_types(part.dtype, torch.float32)), wanted
