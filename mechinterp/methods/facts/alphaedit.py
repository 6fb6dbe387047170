"""AlphaEdit: as MEMIT, but only in directions of the keys that other texts do not use (Fang et al. 2025, 2410.02355).

    P = U_0 U_0^T,  U_0 the eigenvectors of C with eigenvalues below the threshold
    W_V of block i += (P (K K^T + K_p K_p^T) + L2 I)^-1 P K R^T

with K_p the keys of earlier edits, taken from the model after each of them, so that they stay as they are. In the
released code P is computed once a process, whatever the model, and so is K_p; here both belong to one checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.errors import InputError
from mechinterp.methods.facts.changes import ValueChange, delta_of, noted
from mechinterp.methods.facts.contexts import contexts_for
from mechinterp.methods.facts.requests import Request
from mechinterp.methods.facts.settings import AlphaEditSettings, chosen_settings
from mechinterp.methods.facts.several_blocks import Solve, keys_of, spread
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import WeightDelta
from mechinterp.models.passes.second_moments import SecondMoments
from mechinterp.models.passes.watching import Progress


def alphaedit(
    checkpoint: Checkpoint,
    groups: Sequence[Sequence[Request]],
    *,
    moments: SecondMoments,
    settings: AlphaEditSettings | None = None,
    contexts: Sequence[str] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Iterator[WeightDelta]:
    """Edits one on top of the other, each of a group of facts; the model is left as it was.

    Args:
        checkpoint: the model to edit.
        groups: the facts of each edit, in their order; one group for one edit of all.
        moments: C of the edited blocks.
        settings, contexts, seed: as in `memit`.
        progress: called with (facts done, facts in all) of each group.

    Yields:
        After every group the sum of the changes so far, of rank at most the number of facts so far.

    Raises:
        InputError: as `memit`; and where no direction of the keys is free at the threshold.
    """
    settings, blocks = chosen_settings("alphaedit", checkpoint, settings, AlphaEditSettings)
    moments.check(checkpoint, blocks)
    contexts = contexts_for(checkpoint, contexts, settings.context_lengths, seed)
    free = {block: null_space(moments, block, settings.null_threshold) for block in blocks}
    earlier: dict[int, list[Tensor]] = {block: [] for block in blocks}
    solve = _solving(free, earlier, settings.ridge)
    note = noted("alphaedit", settings, contexts)
    changes: list[ValueChange] = []
    so_far: list[Request] = []
    for group in groups:
        before = delta_of(checkpoint, changes, so_far or group, settings={})
        with before.applied(checkpoint) as current:
            new, log = spread(
                current, group, blocks, settings=settings, contexts=contexts, solve=solve, progress=progress
            )
        changes += new
        so_far += group
        delta = delta_of(checkpoint, changes, so_far, settings=note, log=log, mode="sequential")
        with delta.applied(checkpoint) as edited:
            for block in blocks:
                earlier[block].append(keys_of(edited, group, block, contexts, settings))
        yield delta


def alphaedit_in_turn(
    base: Checkpoint,
    *,
    moments: SecondMoments,
    settings: AlphaEditSettings | None = None,
    contexts: Sequence[str] | None = None,
) -> Callable[[Checkpoint, Sequence[Request]], WeightDelta]:
    """One edit of a model as it stands; what its own earlier edits made of that model stays as it is.

    It knows them by the weights that they left: their keys are kept beside the fingerprint of the model after each.

    Args:
        base: the model without any edit; it writes the contexts.
        moments, settings, contexts: as in `alphaedit`.

    Returns:
        A function of a model and the facts of one edit, which gives the change of that model alone.

    Raises:
        InputError: as `alphaedit`.
    """
    settings, blocks = chosen_settings("alphaedit", base, settings, AlphaEditSettings)
    moments.check(base, blocks)
    contexts = contexts_for(base, contexts, settings.context_lengths, 0)
    free = {block: null_space(moments, block, settings.null_threshold) for block in blocks}
    note, kept = noted("alphaedit", settings, contexts), dict[str, Mapping[int, Sequence[Tensor]]]()

    def edit(current: Checkpoint, requests: Sequence[Request]) -> WeightDelta:
        earlier = kept.get(current.fingerprint, dict.fromkeys(blocks, ()))
        solve = _solving(free, earlier, settings.ridge)
        changes, log = spread(current, requests, blocks, settings=settings, contexts=contexts, solve=solve)
        delta = delta_of(current, changes, requests, settings=note, log=log)
        with delta.applied(current) as edited:
            keys = {block: keys_of(edited, requests, block, contexts, settings) for block in blocks}
            kept[edited.fingerprint] = {block: (*earlier[block], keys[block]) for block in blocks}
        return delta

    return edit


def _solving(free: Mapping[int, Tensor], earlier: Mapping[int, Sequence[Tensor]], ridge: float) -> Solve:
    """X of a block from its keys, with the keys of earlier edits as they are when it is asked."""

    def solve(block: int, keys: Float[Tensor, "d_mlp request"]) -> Float[Tensor, "d_mlp request"]:
        every, projection = torch.cat([keys, *earlier[block]], 1), free[block]
        inside = projection @ keys
        return torch.linalg.solve(
            (projection @ every) @ every.T + ridge * torch.eye(len(keys), dtype=keys.dtype), inside
        )

    return solve


def null_space(moments: SecondMoments, block: int, threshold: float) -> Float[Tensor, "d_mlp d_mlp"]:
    """P of a block, float64.

    Raises:
        InputError: if no eigenvalue of C is below the threshold.
    """
    values, vectors = torch.linalg.eigh(moments.matrices[block].double())
    kept = vectors[:, values < threshold]
    if not kept.shape[1]:
        raise InputError(
            f"alphaedit: no direction of the keys of block {block} is free at the threshold {threshold:g}; the "
            f"smallest eigenvalue of their second moments is {float(values[0]):.3g}, give a larger `null_threshold`"
        )
    return kept @ kept.T
