"""MEMIT: many facts at once, spread over W_V of several blocks (Meng et al. 2023, 2210.07229).

    W_V of block i += (lambda C_i + K K^T)^-1 K R^T,      of rank <= the number of facts

with C_i the second moments of other texts, which says how much the keys of everything else count; K and R as in
`facts.several_blocks`. Solved in float64.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.methods.facts.changes import delta_of, noted
from mechinterp.methods.facts.contexts import contexts_for
from mechinterp.methods.facts.requests import Request
from mechinterp.methods.facts.settings import MemitSettings, chosen_settings
from mechinterp.methods.facts.several_blocks import spread
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import WeightDelta
from mechinterp.models.passes.second_moments import SecondMoments
from mechinterp.models.passes.watching import Progress


def memit(
    checkpoint: Checkpoint,
    requests: Sequence[Request],
    *,
    moments: SecondMoments,
    settings: MemitSettings | None = None,
    contexts: Sequence[str] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> WeightDelta:
    """One edit of several facts; the model is left as it was.

    Args:
        checkpoint: the model to edit.
        requests: the facts.
        moments: C of the edited blocks.
        settings: by default those of the architecture's family.
        contexts, seed: as in `rome`.
        progress: called with (facts done, facts in all).

    Returns:
        A change of each block, of rank at most the number of facts, with the contexts in its settings.

    Raises:
        InputError: as `rome`; and without facts.
    """
    settings, blocks = chosen_settings("memit", checkpoint, settings, MemitSettings)
    moments.check(checkpoint, blocks)
    contexts = contexts_for(checkpoint, contexts, settings.context_lengths, seed)
    weight = settings.moments_weight

    def solve(block: int, keys: Float[Tensor, "d_mlp request"]) -> Float[Tensor, "d_mlp request"]:
        return torch.linalg.solve(weight * moments.of_full_rank(block) + keys @ keys.T, keys)

    changes, log = spread(
        checkpoint, requests, blocks, settings=settings, contexts=contexts, solve=solve, progress=progress
    )
    note = noted("memit", settings, contexts)
    return delta_of(checkpoint, changes, requests, settings=note, log=log, mode="batch")
