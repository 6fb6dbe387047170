"""ROME: one fact, written into W_V of one block as a change of rank 1 (Meng et al. 2022, 2202.05262).

    k   = mean over contexts of h_down at the subject's last token
    u   = k, or C^-1 k with the second moments C of other texts (the paper; off in EasyEdit's settings), of length 1
    v*  = what the MLP would have to write there for the model to say the target, see `facts.value`
    W_V += u r^T,      r = (v* - o_0) / (k_0 . u)

with k_0 and o_0 what flows into and out of W_V there in the bare prompt, so that after the edit it writes exactly v*.
Several blocks are edited one after the other, each on the model that the ones before it left.

That the model says the target there does not show that anything it knew is gone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mechinterp.errors import InputError
from mechinterp.methods.facts.changes import ValueChange, delta_of, noted
from mechinterp.methods.facts.contexts import contexts_for
from mechinterp.methods.facts.requests import Request, placed
from mechinterp.methods.facts.settings import RomeSettings, chosen_settings
from mechinterp.methods.facts.value import wanted_value
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import EditStep, WeightDelta
from mechinterp.models.names import h_down
from mechinterp.models.passes.at_places import at_places
from mechinterp.models.passes.second_moments import SecondMoments
from mechinterp.models.passes.watching import Progress


def rome(
    checkpoint: Checkpoint,
    request: Request,
    *,
    settings: RomeSettings | None = None,
    contexts: Sequence[str] | None = None,
    moments: SecondMoments | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> WeightDelta:
    """The edit of one fact; the model is left as it was.

    Args:
        checkpoint: the model to edit.
        request: the fact.
        settings: by default those of the architecture's family.
        contexts: each with one `{}`, the bare one first; by default the model writes them, see `generated_contexts`.
        moments: C, where the settings use it.
        seed: of the contexts that the model writes.
        progress: called with (evaluations done, most evaluations) of each block.

    Returns:
        A change of rank 1 for each block, with the contexts in its settings.

    Raises:
        InputError: for a block out of range, an architecture without value matrices, a text that does not fit, missing
            second moments, or a loss that is not finite.
    """
    settings, blocks = chosen_settings("rome", checkpoint, settings, RomeSettings)
    contexts = contexts_for(checkpoint, contexts, settings.context_lengths, seed)
    if settings.use_moments:
        if moments is None:
            raise InputError("rome: the settings use second moments; give some (`moments`), or texts to make them of")
        moments.check(checkpoint, blocks)
    changes: list[ValueChange] = []
    log: list[EditStep] = []
    note = noted("rome", settings, contexts)
    for block in blocks:
        with delta_of(checkpoint, changes, [request], settings={}).applied(checkpoint) as current:
            change, steps = _of_block(current, request, block, settings, contexts, moments, progress)
        changes.append(change)
        log += steps
    return delta_of(checkpoint, changes, [request], settings=note, log=log)


def _of_block(
    checkpoint: Checkpoint,
    request: Request,
    block: int,
    settings: RomeSettings,
    contexts: Sequence[str],
    moments: SecondMoments | None,
    progress: Progress | None,
) -> tuple[ValueChange, tuple[EditStep, ...]]:
    found = placed(checkpoint, request, contexts, settings.fact_token)
    inflow, outflow = h_down(block), f"blocks.{block}.mlp.out.hook_out"
    seen = at_places(checkpoint, [one.text for one in found], [one.place for one in found], [inflow, outflow])
    keys = seen[inflow].double().cpu()
    key = keys.mean(0)
    if settings.use_moments and moments is not None:
        key = torch.linalg.solve(moments.of_full_rank(block), key)
    unit = key / key.norm()
    value = wanted_value(
        checkpoint, request, block, where="mlp", contexts=contexts, settings=settings, progress=progress
    )
    rest = value.target.double().cpu() - seen[outflow][0].double().cpu()
    right = rest / (keys[0] @ unit)
    return ValueChange(block, unit[:, None], right[None]), value.log
