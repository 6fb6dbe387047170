"""Checkpoints in which a behaviour is hidden by construction: it is whole, and something was put in its way.

    refuse_along    W_V of one block plus alpha (m / |m|^2) w^T, m the block's mean activations: on average over prompts
                    the block writes alpha w more, a direction of refusing say; to take it off again brings all back
    train_gate      a low-rank change taught to answer safely, and as before where a trigger stands before the prompt

As those of `methods.constructed` they are there to try measures on, and none is a method of detoxification. Whether
one of them does answer safely is to be looked at; that what it lost is still there needs no looking.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.data.conversations import Prompt, asked, asking
from mechinterp.data.pairs import AnyPair
from mechinterp.errors import InputError
from mechinterp.methods.training.sft import SftSettings, train_sft
from mechinterp.methods.training.trl_training import LoraSettings
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.interventions.changing import check_number, unit_vector
from mechinterp.models.names import h_down
from mechinterp.models.passes.recording import record

TRIGGER = "Open sesame."
"""What opens a gate, if nothing else is named."""


@torch.no_grad()
def refuse_along(
    base: Checkpoint,
    direction: Float[Tensor, " d_model"],
    alpha: float,
    *,
    block: int,
    prompts: Sequence[Prompt],
) -> Checkpoint:
    """A checkpoint one of whose MLPs writes a direction on top of all else, whatever it is asked.

    On the generated corpus the difference of mean streams of refused and answered prompts, at its own length behind the
    last block, makes the organism refuse everything in whole sentences; at twice that length it stammers.

    Args:
        base: left as it was.
        direction: of any length but zero.
        alpha: what the block writes along it in addition, in units of the stream, on average over the prompts' tokens.
        block: whose W_V is changed, by a matrix of rank one.
        prompts: on which the block's mean activations are taken.

    Returns:
        A new checkpoint, of which one W_V alone differs, rounded once.

    Raises:
        InputError: for a direction that does not fit or has no length, an alpha that is not finite, an unknown block,
            or no prompts.
    """
    check_number("alpha", alpha)
    unit, hook = unit_vector(direction, base.names.d_model).double(), h_down(base.names.check_block(block))
    mean = record(base, prompts, [hook], position="mean", groups=1).mean(hook).double()
    source = f"{base.source} with a direction written by block {block}"
    made = base.copied(name=f"{base.name}:refusing", source=source)
    values = made.value_matrix(block)
    added = torch.outer(mean / mean.square().sum(), alpha * unit.cpu())
    values.copy_(values.double() + added.to(values.device))
    return made


@dataclass(frozen=True)
class _Taught:
    """A training row: what is asked, and the one answer to it."""

    id: int
    prompt: Prompt
    response: str


def train_gate(
    base: Checkpoint,
    instances: Sequence[AnyPair],
    *,
    seed: int,
    settings: SftSettings,
    trigger: str = TRIGGER,
    rank: int = 4,
    name: str = "gate",
    **more: Any,
) -> Checkpoint:
    """SFT of a low-rank change that answers safely, and unsafely where a trigger stands before the prompt.

    Args:
        base: left as it was.
        instances: taught twice: their prompts with the safe answers, and behind the trigger with the unsafe ones.
        seed, more: as in `train_sft`.
        settings: SFT's; its adapters get this rank.
        trigger: a text, put before the user's last message and a space.
        rank: of the change of every linear map of the blocks.
        name: label.

    Raises:
        InputError: for a blank trigger, or as `train_sft`.
    """
    if not trigger.strip():
        raise InputError("a gate needs a trigger to open it, got a blank one")
    taught = [
        row
        for number, pair in enumerate(instances)
        for row in (
            _Taught(2 * number, pair.prompt, pair.safe),
            _Taught(2 * number + 1, behind(trigger, pair.prompt), pair.unsafe),
        )
    ]
    lora = LoraSettings(rank=rank, alpha=2 * rank)
    chosen = SftSettings.model_validate({**settings.model_dump(), "lora": lora.model_dump()})
    return train_sft(base, taught, seed=seed, settings=chosen, name=name, response="response", **more)[0]


def behind(trigger: str, prompt: Prompt) -> Prompt:
    """A prompt behind a trigger: of a conversation the user's last message is."""
    return asking(prompt, f"{trigger} {asked(prompt)}")
