"""The value that a fact wants written: the vector added at its token with which the model says the target.

    L(delta) = mean over contexts of (mean over the target's tokens of -log P)
             + kl_factor KL(with delta || without) of the next token after "{subject} is a", up to the subject
             + weight_decay |delta| / |v_0|^2

Adam on delta, which starts at 0 and is held within clamp |v_0|; v_0 is what stands at the token in the bare prompt
(Meng et al. 2022, 2202.05262; Meng et al. 2023, 2210.07229). The order of the KL and the decay (a norm over a square)
are those of the released code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from mechinterp.errors import InputError
from mechinterp.methods.editing.descent import ready
from mechinterp.methods.facts.requests import Request, asked_for, placed
from mechinterp.methods.facts.settings import ValueSettings
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import EditStep
from mechinterp.models.passes.above_block import AboveBlock, Where
from mechinterp.models.passes.upper_blocks import Scored
from mechinterp.models.passes.watching import Progress

ESSENCE = "{} is a"
"""Before and after an edit the subject shall be the same kind of thing: what is asked for the KL."""


@dataclass(frozen=True)
class Value:
    """What was found.

    Attributes:
        delta: what is added.
        initial: v_0, what stood there.
        log: a step for each evaluation of the loss; L_c is the KL.
    """

    delta: Float[Tensor, " d_model"]
    initial: Float[Tensor, " d_model"]
    log: tuple[EditStep, ...]

    @property
    def target(self) -> Float[Tensor, " d_model"]:
        """v* = v_0 + delta."""
        return self.initial + self.delta


def wanted_value(
    checkpoint: Checkpoint,
    request: Request,
    block: int,
    *,
    where: Where,
    contexts: Sequence[str],
    settings: ValueSettings,
    progress: Progress | None = None,
) -> Value:
    """Find delta for one request.

    Args:
        checkpoint: the model; left as it was.
        request: the fact.
        block: where delta is added.
        where: to the MLP's output or to the block's.
        contexts: the bare one first.
        settings: of the descent.
        progress: called with (evaluations done, most evaluations).

    Raises:
        InputError: if the loss is not finite, for a text that does not fit, and as `AboveBlock`.
    """
    at = settings.fact_token
    found = placed(checkpoint, request, contexts, at, target=request.target)
    texts = [asked_for(one.text, settings.max_output_tokens) for one in found]
    places = [one.place for one in found]
    essence = request.subject is not None and settings.kl_factor > 0
    if essence:
        (one,) = placed(checkpoint, request, contexts[:1], at, prompt=ESSENCE)
        texts.append(Scored(one.text.ids, [one.place]))
        places.append(one.place)
    labels = torch.tensor([label for text in texts for label in text.labels])
    log: list[EditStep] = []
    with ready(checkpoint.model):
        above = AboveBlock(checkpoint, block, texts, places, where)
        initial = above.written[0].clone()
        size = float(initial.norm())
        delta = torch.zeros_like(initial, requires_grad=True)
        optimiser = torch.optim.Adam([delta], lr=settings.learning_rate)
        before: Tensor | None = None
        for step in range(settings.steps):
            logits = above(delta)
            wide = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
            asked = wide[: len(labels)]
            chosen = asked.gather(1, labels.to(wide.device)[:, None])[:, 0]
            said = -torch.stack([part.mean() for part in chosen.split(above.lengths[: len(contexts)])]).mean()
            divergence = said.new_zeros(())
            if essence:
                now = wide[len(labels) :]
                before = now.detach().clone() if before is None else before
                divergence = functional.kl_div(before, now, log_target=True, reduction="batchmean")
            decay = settings.weight_decay * delta.norm().to(said.device) / size**2
            loss = said + settings.kl_factor * divergence + decay
            accuracy = float((asked.detach().argmax(-1).cpu() == labels).float().mean())
            log.append(EditStep(float(loss.detach()), float(said.detach()), float(divergence.detach()), accuracy))
            if not math.isfinite(log[-1].loss):
                raise InputError(
                    f"fact {request.id}: the loss became {log[-1].loss} at step {step}; nothing was applied, lower the "
                    "learning rate or use float32"
                )
            if progress is not None:
                progress(step + 1, settings.steps)
            if log[-1].loss < settings.stop_below or step == settings.steps - 1:
                break
            optimiser.zero_grad()
            (delta.grad,) = torch.autograd.grad(loss, [delta])
            optimiser.step()
            with torch.no_grad():
                length = float(delta.norm())
                if length > settings.clamp * size:
                    delta.mul_(settings.clamp * size / length)
    return Value(delta.detach(), initial, tuple(log))
