"""Losses of unlearning, answer by answer, in nats and in float32 or wider; nothing but the answer's tokens counts.

    nll        mean over the answer's tokens of -log p(token | all before it); `ga` ascends it
    npo        (2 / beta) softplus(beta (log p(y|x) - log p_ref(y|x))), sums over the answer (arXiv 2404.05868)
    simnpo     (2 / beta) softplus(beta m + gamma), m the mean log-probability: no reference (arXiv 2410.07163)
    kl         mean over the answer's tokens of KL(p_ref || p)

KnowUnDo's code sums a cross-entropy over all positions instead of the last, padding and question included. NPO and
SimNPO are as their papers are remembered; NPO agrees with an independent implementation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.scoring import answer_logits, in_batches, widened
from mechinterp.models.text.batches import to_device
from mechinterp.models.text.tokens import Encoded

IGNORED = -100
"""A label that counts for nothing."""

Losses = Callable[[Checkpoint, Sequence[int]], Float[Tensor, " text"]]
"""Of a model that is trained, on texts by their numbers: a loss for each."""


def token_losses(
    checkpoint: Checkpoint, texts: Sequence[Encoded], labels: Sequence[Sequence[int]] | None = None
) -> list[Float[Tensor, " token"]]:
    """-log p of every token of the answers of one batch, by text; differentiable.

    Args:
        checkpoint: the model, in evaluation mode.
        texts: prompts with answers.
        labels: other tokens that should be predicted in their places, `IGNORED` for none there; the answers' own if not
            given.
    """
    logits, answers = answer_logits(checkpoint, texts)
    wanted = answers if labels is None else labels
    flat = to_device(torch.tensor([token for answer in wanted for token in answer]), logits.device)
    parts = [
        functional.cross_entropy(wide, some, reduction="none", ignore_index=IGNORED)
        for wide, some in widened(logits, flat)
    ]
    return list(torch.cat(parts).split([len(answer) for answer in answers]))


def nll(texts: Sequence[Encoded], labels: Sequence[Sequence[int]] | None = None) -> Losses:
    """Mean over the tokens of each answer; `labels` as `token_losses`, for all texts."""

    def losses(checkpoint: Checkpoint, rows: Sequence[int]) -> Float[Tensor, " text"]:
        chosen = None if labels is None else [labels[row] for row in rows]
        each = token_losses(checkpoint, [texts[row] for row in rows], chosen)
        counts = [len(values) for values in each]
        if chosen is not None:
            counts = [max(1, sum(label != IGNORED for label in some)) for some in chosen]
        return torch.stack([values.sum() / count for values, count in zip(each, counts, strict=True)])

    return losses


def npo(texts: Sequence[Encoded], reference: Checkpoint, beta: float) -> Losses:
    """Negative preference: the further below the reference an answer already is, the less it is pushed.

    Args:
        texts: prompts with the answers to forget.
        reference: the model before; it reads each text once, now.
        beta: the smaller, the nearer to gradient ascent.
    """
    before = answer_sums(reference, texts)

    def losses(checkpoint: Checkpoint, rows: Sequence[int]) -> Float[Tensor, " text"]:
        each = token_losses(checkpoint, [texts[row] for row in rows])
        now = -torch.stack([values.sum() for values in each])
        return npo_of(now, to_device(torch.tensor([before[row] for row in rows]), now.device).to(now.dtype), beta)

    return losses


def simnpo(texts: Sequence[Encoded], beta: float, gamma: float) -> Losses:
    """Negative preference by mean log-probability, without a reference."""

    def losses(checkpoint: Checkpoint, rows: Sequence[int]) -> Float[Tensor, " text"]:
        each = token_losses(checkpoint, [texts[row] for row in rows])
        return simnpo_of(-torch.stack([values.sum() / len(values) for values in each]), beta, gamma)

    return losses


def kl(texts: Sequence[Encoded], reference: Checkpoint) -> Losses:
    """Divergence from the reference over the answers; it reads every batch beside the trained model."""

    def losses(checkpoint: Checkpoint, rows: Sequence[int]) -> Float[Tensor, " text"]:
        chosen = [texts[row] for row in rows]
        with torch.no_grad():
            wanted, _ = answer_logits(reference, chosen)
        logits, answers = answer_logits(checkpoint, chosen)
        each = kl_of(logits, wanted.to(logits.device))
        return torch.stack([values.mean() for values in each.split([len(answer) for answer in answers])])

    return losses


def npo_of(logprobs: Float[Tensor, " text"], reference: Float[Tensor, " text"], beta: float) -> Float[Tensor, " text"]:
    """NPO from the log-probabilities of whole answers, now and before."""
    return 2 / beta * functional.softplus(beta * (logprobs - reference))


def simnpo_of(means: Float[Tensor, " text"], beta: float, gamma: float) -> Float[Tensor, " text"]:
    """SimNPO from the mean log-probabilities of answers: -(2/beta) log sigmoid(-beta m - gamma)."""
    return 2 / beta * functional.softplus(beta * means + gamma)


def kl_of(
    logits: Float[Tensor, "token vocabulary"], reference: Float[Tensor, "token vocabulary"]
) -> Float[Tensor, " token"]:
    """KL(p_ref || p) at every token, in float32 or wider."""
    wide = torch.promote_types(logits.dtype, torch.float32)
    before, now = reference.to(wide).log_softmax(-1), logits.to(wide).log_softmax(-1)
    return (before.exp() * (before - now)).sum(-1)


@torch.no_grad()
def answer_sums(checkpoint: Checkpoint, texts: Sequence[Encoded]) -> list[float]:
    """Log-probability of each whole answer, in nats."""

    def measure(some: Sequence[Encoded]) -> list[float]:
        return [-float(values.sum()) for values in token_losses(checkpoint, some)]

    return in_batches(checkpoint, texts, measure, shared=False)
