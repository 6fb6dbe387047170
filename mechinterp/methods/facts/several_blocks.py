"""What MEMIT and AlphaEdit share: values at the last of several blocks, spread over all of them.

Z    = the stream after the last block, at each request's token, with which the model says its target (`facts.value`)
K_i  = keys at block i, the bare context weighing as much as the mean of all others
R_i  = (Z - what stands there on the weights changed so far) / (blocks left, this one among them)
W_V of block i  += X_i R_i^T,      X_i [d_mlp, requests] solved from K_i by the method
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.errors import InputError
from mechinterp.methods.facts.changes import ValueChange, delta_of
from mechinterp.methods.facts.requests import Placed, Request, placed
from mechinterp.methods.facts.settings import ValueSettings
from mechinterp.methods.facts.value import wanted_value
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import EditStep
from mechinterp.models.names import h_down, resid_post
from mechinterp.models.passes.at_places import at_places
from mechinterp.models.passes.watching import Progress

Solve = Callable[[int, Float[Tensor, "d_mlp request"]], Float[Tensor, "d_mlp request"]]
"""Block, K -> X, in float64 on the CPU."""


def spread(
    checkpoint: Checkpoint,
    requests: Sequence[Request],
    blocks: Sequence[int],
    *,
    settings: ValueSettings,
    contexts: Sequence[str],
    solve: Solve,
    progress: Progress | None = None,
) -> tuple[list[ValueChange], list[EditStep]]:
    """The changes of all blocks, from the lowest up; the model is left as it was.

    Args:
        progress: called with (requests done, requests in all) of the search for values.

    Raises:
        InputError: without requests, and as `wanted_value`.
    """
    if not requests:
        raise InputError("there are no facts to edit")
    targets: list[Tensor] = []
    log: list[EditStep] = []
    last = blocks[-1]
    for done, request in enumerate(requests, 1):
        value = wanted_value(checkpoint, request, last, where="block", contexts=contexts, settings=settings)
        targets.append(value.target.double().cpu())
        log += value.log
        if progress is not None:
            progress(done, len(requests))
    wanted = torch.stack(targets, 1)
    changes: list[ValueChange] = []
    for i, block in enumerate(blocks):
        with delta_of(checkpoint, changes, requests, settings={}).applied(checkpoint) as current:
            keys = keys_of(current, requests, block, contexts, settings)
            bare = _placed(current, requests, contexts[:1], settings)
            rest = wanted - _seen(current, bare, resid_post(last)).T
        changes.append(ValueChange(block, solve(block, keys), rest.T / (len(blocks) - i)))
    return changes, log


def keys_of(
    checkpoint: Checkpoint, requests: Sequence[Request], block: int, contexts: Sequence[str], settings: ValueSettings
) -> Float[Tensor, "d_mlp request"]:
    """K of a block, float64, on the CPU."""
    seen = _seen(checkpoint, _placed(checkpoint, requests, contexts, settings), h_down(block))
    of_each = seen.reshape(len(requests), len(contexts), -1)
    keys = of_each[:, 0]
    if len(contexts) > 1:
        keys = (keys + of_each[:, 1:].mean(1)) / 2
    return keys.T


def _placed(
    checkpoint: Checkpoint, requests: Sequence[Request], contexts: Sequence[str], settings: ValueSettings
) -> list[Placed]:
    return [one for request in requests for one in placed(checkpoint, request, contexts, settings.fact_token)]


def _seen(checkpoint: Checkpoint, texts: Sequence[Placed], hook: str) -> Float[Tensor, "text d"]:
    seen = at_places(checkpoint, [one.text for one in texts], [one.place for one in texts], [hook])
    return seen[hook].double().cpu()
