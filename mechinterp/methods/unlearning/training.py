"""The loop that all methods of unlearning share: a weighted sum of losses on batches of several sets of texts.

    loss of a step = sum over terms of  weight x mean over the term's batch of its losses, answer by answer

Each term draws its batches from its own seeded order of all of its texts, one order after another; a term of weight 0
is left out, texts and all: ascent of weight 0 on what is to be forgotten is plain fine-tuning on what is to be kept.
KnowUnDo's code mixes rows of both kinds in batches and takes the mean over all, half of this sum where there are as
many of each.

Weights in half precision have copies in float32, in which gradients are summed and steps made. Dropout is off. Of a
batch the activations of `max_tokens` tokens are held at a time, which changes nothing but rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from mechinterp.errors import InputError
from mechinterp.methods.training.relearning import batches_of
from mechinterp.methods.training.wide_adam import WideAdam
from mechinterp.methods.unlearning.losses import Losses
from mechinterp.methods.unlearning.opened import Opened
from mechinterp.methods.unlearning.settings import UnlearningSettings
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.gradients import gradients_of
from mechinterp.models.passes.watching import Progress, evaluating
from mechinterp.models.text.batches import length_batches
from mechinterp.models.text.tokens import Encoded


@dataclass(frozen=True)
class Term:
    """A part of the loss.

    Attributes:
        name: in the log.
        weight: by which it is multiplied; negative to ascend.
        texts: that it is of.
        losses: of some of the texts, by their numbers.
    """

    name: str
    weight: float
    texts: Sequence[Encoded]
    losses: Losses


def train(
    opened: Opened,
    terms: Sequence[Term],
    settings: UnlearningSettings,
    *,
    name: str,
    seed: int,
    progress: Progress | None = None,
) -> tuple[Checkpoint, list[dict[str, float]]]:
    """Train an opened copy.

    Args:
        opened: what is trained; used up.
        terms: of the loss; those of weight 0 do not count.
        settings: of the method.
        name: of the method: of the checkpoint that is made, and for errors.
        seed: of the order of the texts.
        progress: called with (steps done, steps in all).

    Returns:
        The tuned checkpoint, and a row for each step: the loss before it, each term's mean, and the learning rate.

    Raises:
        InputError: if a loss is not finite, or nothing is left to train on.
    """
    terms = [term for term in terms if term.weight]
    if not terms:
        raise InputError(f"{name}: every part of the loss has weight 0; give one of them another")
    log = []
    model = opened.checkpoint.model
    batches = [batches_of(len(term.texts), settings.batch_size, seed) for term in terms]
    own = {id(parameter) for parameter in opened.parameters.values()}
    chosen = [key for key, parameter in model.named_parameters() if id(parameter) in own]
    with evaluating(opened.reference.model), gradients_of(model, chosen) as trained:
        optimiser = WideAdam(list(trained.values()), settings.learning_rate, weight_decay=settings.weight_decay)
        for step in range(settings.steps):
            means = {
                term.name: _backward(opened.checkpoint, term, next(order), optimiser, settings.max_tokens)
                for term, order in zip(terms, batches, strict=True)
            }
            loss = sum(term.weight * means[term.name] for term in terms)
            if not math.isfinite(loss):
                raise InputError(f"{name}: the loss is not finite at step {step + 1}; lower the learning rate")
            if settings.largest_norm is not None:
                optimiser.clip(settings.largest_norm)
            rate = settings.learning_rate * share_of_rate(step, settings)
            optimiser.step(rate)
            log.append({"step": step + 1, "loss": loss, **means, "learning_rate": rate})
            if progress is not None:
                progress(step + 1, settings.steps)
    whole = opened.whole().eval()
    for before, after in zip(opened.reference.model.parameters(), whole.parameters(), strict=True):
        after.requires_grad_(before.requires_grad)
    source = f"{name} of {opened.reference.source}"
    return replace(opened.checkpoint, name=name, model=whole, source=source), log


def _backward(checkpoint: Checkpoint, term: Term, rows: Sequence[int], optimiser: WideAdam, max_tokens: int) -> float:
    """The mean loss of a term's batch, whose gradient times its weight is left with the optimiser; in parts."""
    lengths, total = [len(term.texts[row].ids) for row in rows], 0.0
    for part in length_batches(lengths, max_tokens, apart=checkpoint.names.short_context):
        with torch.enable_grad():
            loss = term.losses(checkpoint, [rows[i] for i in part]).sum() / len(rows)
            (term.weight * loss).backward()
        optimiser.gather()
        total += float(loss.detach())
    return total


def share_of_rate(step: int, settings: UnlearningSettings) -> float:
    """The learning rate of a step, counted from 0, as a share of the highest: it rises, then falls by a cosine."""
    if step < settings.warmup_steps:
        return (step + 1) / (settings.warmup_steps + 1)
    if settings.schedule == "constant":
        return 1.0
    done = (step - settings.warmup_steps) / (settings.steps - settings.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * done))
