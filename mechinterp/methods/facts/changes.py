"""Changes of value matrices as an editor of facts makes them: thin factors, in the orientation of the parameter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from pydantic import BaseModel
from torch import Tensor

from mechinterp.errors import InputError
from mechinterp.methods.facts.requests import Request
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import EditStep, WeightDelta


@dataclass(frozen=True)
class ValueChange:
    """What is added to W_V of a block: left @ right.

    Attributes:
        left: [d_mlp, rank].
        right: [rank, d_model].
    """

    block: int
    left: Float[Tensor, "d_mlp rank"]
    right: Float[Tensor, "rank d_model"]


def delta_of(
    checkpoint: Checkpoint,
    changes: Sequence[ValueChange],
    requests: Sequence[Request],
    *,
    settings: Mapping[str, Any],
    log: Sequence[EditStep] = (),
    mode: str = "",
) -> WeightDelta:
    """The changes as an edit of the checkpoint; those of one block are added up, their factors side by side.

    Args:
        checkpoint: whose weights it belongs to, in the state before any of them.
        changes: of one or more blocks.
        requests: what it was made for.
        settings: of the method, and what else is worth knowing.
        log: of the search for the values.
        mode: see `WeightDelta`.

    Raises:
        InputError: if a change is not finite.
    """
    factors: dict[str, tuple[Tensor, Tensor]] = {}
    for change in changes:
        name, transposed = checkpoint.names.value_parameter(change.block)
        pair = (change.right.T, change.left.T) if transposed else (change.left, change.right)
        left, right = (part.detach().float().cpu() for part in pair)
        if name in factors:
            left, right = torch.cat([factors[name][0], left], 1), torch.cat([factors[name][1], right], 0)
        factors[name] = (left.contiguous(), right.contiguous())
    if not all(bool(torch.isfinite(part).all()) for pair in factors.values() for part in pair):
        raise InputError(
            f"fact {requests[0].id}: the change of the weights is not finite; nothing was applied, use float32"
        )
    blocks = sorted({change.block for change in changes})
    return WeightDelta(
        tensors={name: left @ right for name, (left, right) in factors.items()},
        factors=factors,
        block=blocks[0] if blocks else 0,
        also=tuple(blocks[1:]),
        instance=requests[0].id,
        instances=tuple(request.id for request in requests) if len(requests) > 1 else (),
        settings=dict(settings),
        log=tuple(log),
        mode=mode,
        fingerprint=checkpoint.fingerprint,
        tokenizer=checkpoint.tokenizer_fingerprint,
    )


def noted(method: str, settings: BaseModel, contexts: Sequence[str]) -> dict[str, Any]:
    """What stands in an edit besides its numbers: method, settings, contexts."""
    return {"method": method, **settings.model_dump(mode="json"), "contexts": list(contexts)}
