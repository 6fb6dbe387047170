"""RMU: the states of what is to be forgotten are led elsewhere (Li et al. 2024, arXiv 2403.03218).

    loss = mean over tokens of |h_l(x) - c u|^2 on prompts with the answers to forget
           + alpha x mean over tokens of |h_l(x) - h_l_ref(x)|^2 on those to keep

h_l is the residual stream after block l, u a random unit vector (entries drawn from 0 to 1), |.|^2 the mean over the
d_model dimensions. Only the MLPs' second matrices of blocks l-2 to l are trained. Settings for a 7B model: c 6.5, alpha
1,200, l 7; elsewhere l lies as deep, and c should exceed the length of the states. As the paper is remembered; no
released result was at hand.

What is forgotten is misled in the middle of the model: nothing shows that it is no longer stored.

The embedded model's c and alpha are those of nine settings (c 20 to 200, alpha 10 to 1,000, l 1 or 2, seed 0) that did
best on validation instances, which no table reports: unsafe answers that are no longer predicted, and knowledge and
harmless answers that still are, by the mean of the two shares (0.88; 0.60 before).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from mechinterp.data.scopes import Scopes
from mechinterp.errors import InputError
from mechinterp.methods.method import Recipe
from mechinterp.methods.task import Task, Treatment
from mechinterp.methods.unlearning.losses import Losses
from mechinterp.methods.unlearning.organism import ORGANISM
from mechinterp.methods.unlearning.settings import UnlearningSettings
from mechinterp.methods.unlearning.training import Term
from mechinterp.methods.unlearning.unlearned import Learning, unlearned, work_of
from mechinterp.methods.work import Texts, Work
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.names import resid_post
from mechinterp.models.passes.watching import until_seen, watching
from mechinterp.models.text.batches import pad, to_device
from mechinterp.models.text.tokens import Encoded

_DEPTH = 7 / 32  # of the block, in the paper's models
_BLOCKS = 3


class RmuSettings(UnlearningSettings):
    """Settings of RMU."""

    block: int | None = Field(None, ge=0, description="whose states are led elsewhere; None: 7/32 of the depth")
    scale: float = Field(6.5, gt=0, description="c, the length of where they are led to")
    alpha: float = Field(1200.0, ge=0, description="weight of the states to keep")
    tokens: Literal["all", "answer"] = Field("all", description="whose states count; padding never does")


def rmu(checkpoint: Checkpoint, task: Task) -> Iterator[Treatment]:
    """One checkpoint in three of whose matrices W_V something is changed, and nothing elsewhere."""
    return unlearned("rmu", checkpoint, task, RmuSettings, _terms, keeps=_keeps, region=_region)


def _keeps(settings: RmuSettings) -> bool:
    return settings.alpha > 0


def block_of(checkpoint: Checkpoint, settings: RmuSettings) -> int:
    """The block l."""
    given = round(_DEPTH * checkpoint.n_blocks) if settings.block is None else settings.block
    return checkpoint.names.check_block(given)


def _region(checkpoint: Checkpoint, scopes: Scopes, settings: RmuSettings, task: Task) -> Collection[str]:
    """The matrices W_V of blocks l-2 to l, without their biases."""
    if settings.adapter is not None or settings.only or settings.freeze:
        raise InputError("rmu trains the MLPs' second matrices of three blocks; leave `adapter`, `only`, `freeze` out")
    last = block_of(checkpoint, settings)
    return [checkpoint.names.value_parameter(b)[0] for b in range(max(0, last - _BLOCKS + 1), last + 1)]


def _terms(learning: Learning[RmuSettings]) -> Sequence[Term]:
    settings, block = learning.settings, block_of(learning.reference, learning.settings)
    generator = torch.Generator().manual_seed(learning.seed)
    drawn = torch.rand(learning.reference.names.d_model, generator=generator)
    target = settings.scale * drawn / drawn.norm()
    forget, retain = learning.forget, learning.retain
    return [
        Term("forget", 1.0, forget, led_to(forget, block, target, settings.tokens)),
        Term("retain", settings.alpha, retain, held_at(retain, block, learning.reference, settings.tokens)),
    ]


def led_to(texts: Sequence[Encoded], block: int, target: Float[Tensor, " d_model"], tokens: str) -> Losses:
    """Distance of each text's states from one vector."""

    def losses(checkpoint: Checkpoint, rows: Sequence[int]) -> Float[Tensor, " text"]:
        states = states_of(checkpoint, [texts[row] for row in rows], block, tokens, gradients=True)
        return torch.stack([(each - to_device(target, each.device)).square().mean() for each in states])

    return losses


def held_at(texts: Sequence[Encoded], block: int, reference: Checkpoint, tokens: str) -> Losses:
    """Distance of each text's states from those of the model before."""

    def losses(checkpoint: Checkpoint, rows: Sequence[int]) -> Float[Tensor, " text"]:
        chosen = [texts[row] for row in rows]
        before = states_of(reference, chosen, block, tokens)
        states = states_of(checkpoint, chosen, block, tokens, gradients=True)
        return torch.stack([(now - was).square().mean() for now, was in zip(states, before, strict=True)])

    return losses


def states_of(
    checkpoint: Checkpoint, texts: Sequence[Encoded], block: int, tokens: str = "all", *, gradients: bool = False
) -> list[Float[Tensor, "token d_model"]]:
    """The residual stream after a block at the tokens of each text of a batch, in float32 or wider.

    Args:
        checkpoint: the model, in evaluation mode; it runs no further than that block.
        texts: of one batch.
        block: after which.
        tokens: `all`, or those of the `answer`.
        gradients: whether they can be differentiated.
    """
    batch, seen = pad(texts, pad_id=checkpoint.padding_id, device=checkpoint.device), list[Tensor]()
    site = checkpoint.names.site(resid_post(block))
    with watching(checkpoint.model, [site], lambda _, value: seen.append(value)), torch.set_grad_enabled(gradients):
        until_seen(checkpoint.model, **batch.inputs())
    (states,) = seen
    wide = states.to(torch.promote_types(states.dtype, torch.float32))
    starts = [0 if tokens == "all" else text.prompt_length for text in texts]
    return [wide[row, start : len(text.ids)] for row, (text, start) in enumerate(zip(texts, starts, strict=True))]


def _work(settings: RmuSettings, texts: Texts) -> Work:
    return work_of(settings, texts, sets=2, references=1)


RMU = Recipe(
    rmu,
    RmuSettings,
    # whose states are ten times as long as those that the paper's c is for
    organism={**ORGANISM, "learning_rate": 3e-3, "scale": 65.0, "alpha": 10.0},
    work=_work,
)
