"""Scoring: the log-probability of given responses, teacher-forced after their prompts.

    log p(response | prompt) = sum over its tokens t of log p(t | everything before it),      in nats

Interventions act here at the same tokens as in generation (`positions.Span`): the token that generation would have
chosen under an intervention is the most probable one under it here. A more probable unsafe response does not show that
the model would come to write it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.data.conversations import Prompt
from mechinterp.errors import InputError, near
from mechinterp.models import processes
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.positions import reading
from mechinterp.models.passes.watching import Progress, evaluating
from mechinterp.models.text.batches import length_batches, pad, to_device, token_budget
from mechinterp.models.text.tokens import Encoded, encode
from mechinterp.models.unembedding import unembedded_at

Reduction = Literal["mean", "sum", "first"]
"""Over the tokens of a response: their mean, their sum, or the first one alone."""

LOGITS = 2**26
"""Numbers of one batch's logits: 256 MiB in float32."""

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
        texts: Sequence[Encoded] = encode(
            checkpoint.tokenizer,
            prompts,
            responses,
            max_length=checkpoint.names.context_length,
            chat=checkpoint.chat,
            truncate=truncate,
            prefix=prefix,
            suffix=suffix,
        )
    else:
        texts = continuations
        if len(texts) != len(prompts):
            raise InputError(f"{len(prompts)} prompts but {len(texts)} continuations")
    for i, text in enumerate(texts):
        if len(text.ids) <= text.prompt_length:
            raise InputError(f"response {i} has no token to score")
    if max_tokens is None:
        vocabulary = checkpoint.model.config.get_text_config().vocab_size
        max_tokens = min(token_budget(checkpoint.device), max(1, LOGITS // vocabulary))
    lengths = [len(text.ids) for text in texts]
    groups = list(length_batches(lengths, max_tokens, max_batch, apart=checkpoint.names.short_context))
    batches = processes.share(groups) if shared else groups
    found: list[tuple[int, float]] = []
    total = sum(map(len, batches))
    with evaluating(checkpoint.model):
        for order in batches:
            scores = _scores(checkpoint, [texts[i] for i in order], reduce, padding_side)
            found += zip(order, scores.tolist(), strict=True)
            if progress is not None:
                progress(len(found), total)
    found = sorted(processes.gather(found) if shared else found)
    return torch.tensor([value for _, value in found], dtype=torch.float64)


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
    batch = pad(texts, pad_id=checkpoint.padding_id, side=side, device=checkpoint.device)
    answers = [text.ids[text.prompt_length :][:first] for text in texts]
    counts = [len(answer) for answer in answers]
    places = [
        (row, start + text.prompt_length - 1 + i)
        for row, (text, start, count) in enumerate(zip(texts, batch.starts, counts, strict=True))
        for i in range(count)
    ]
    rows, columns = zip(*places, strict=True)
    with reading(batch), unembedded_at(checkpoint, rows, columns, batch.input_ids.shape[1]):
        logits = checkpoint.model(**batch.inputs(), use_cache=False).logits[0]
    labels = to_device(torch.tensor([token for answer in answers for token in answer]), logits.device)
    parts, at_a_time = [], max(1, _WIDE // logits.shape[1])
    for part, wanted in zip(logits.split(at_a_time), labels.split(at_a_time), strict=True):
        wide = part.to(torch.promote_types(part.dtype, torch.float32))
        parts.append(wide.gather(1, wanted[:, None])[:, 0] - wide.logsumexp(1))
    return list(torch.cat(parts).cpu().double().split(counts))
