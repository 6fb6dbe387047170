"""Checkpoints in which a behaviour is hidden by construction: it is whole, and something was put in its way.

    refuse_along    theta_base, and alpha w added to the embedding of every token: a constant shift of the stream along
                    a direction, of refusing say, from the first block on; to take it off again brings all of it back
    train_gate      a low-rank change taught to answer safely, and as before where a trigger stands before the prompt

As those of `methods.constructed` they are there to try measures on, and none is a method of detoxification. Whether
one of them does answer safely is to be looked at; that what it lost is still there needs no looking.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mechinterp.data.conversations import Prompt, asked, asking
from mechinterp.data.pairs import AnyPair
from mechinterp.errors import InputError
from mechinterp.methods.training.sft import SftSettings, train_sft
from mechinterp.methods.training.trl_training import LoraSettings
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.interventions.changing import check_number, unit_vector
from mechinterp.models.names import resid_pre
from mechinterp.models.passes.watching import evaluating, run_until_seen, watching

TRIGGER = "Open sesame."
"""What opens a gate, if nothing else is named."""


@torch.no_grad()
def refuse_along(
    base: Checkpoint, direction: Float[Tensor, " d_model"], alpha: float, *, name: str | None = None
) -> Checkpoint:
    """A checkpoint whose stream is shifted by alpha times a unit direction at every token, from the first block on.

    Where the unembedding is tied, it keeps the old rows as its own.

    Args:
        base: left as it was.
        direction: of any length but zero.
        alpha: length of the shift, in units of the stream before the first block.
        name: label.

    Returns:
        A new checkpoint, of which the embedding of tokens alone differs, rounded once.

    Raises:
        InputError: for a direction that does not fit or has no length, or an alpha that is not finite.
    """
    check_number("alpha", alpha)
    unit = unit_vector(direction, base.names.d_model).double()
    source = f"{base.source} with a direction added to its embedding"
    made = replace(base, name=name or f"{base.name}:refusing", source=source, model=copy.deepcopy(base.model))
    keep_unembedding(made)
    rows = made.parameter(f"{made.names.module('embed')}.weight")
    own, unit, before = rows.double(), unit.to(rows.device), _first_stream(made)
    rows.copy_(own + unit)
    scale = float((_first_stream(made) - before).norm())  # some multiply what is embedded (Gemma)
    rows.copy_(own + alpha / scale * unit)
    return made


def keep_unembedding(made: Checkpoint) -> None:
    """Give a tied unembedding rows of its own, so that the embedding can be changed alone."""
    config = made.model.config.get_text_config()
    if config.tie_word_embeddings:
        rows = made.parameter(f"{made.names.module('unembed')}.weight").detach().clone()
        made.module("unembed").register_parameter("weight", nn.Parameter(rows))
        config.tie_word_embeddings = False


def _first_stream(made: Checkpoint) -> Float[Tensor, " d_model"]:
    """What the first block reads of one token."""
    taken: list[Tensor] = []
    token = torch.zeros(1, 1, dtype=torch.long, device=made.device)
    site = made.names.site(resid_pre(0))
    with evaluating(made.model), watching(made.model, [site], lambda _, values: taken.append(values[0, 0].double())):
        run_until_seen(made.model, input_ids=token)
    return taken[0]


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
