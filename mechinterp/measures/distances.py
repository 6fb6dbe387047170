"""Distances of two responses at one layer: the toxic layer is where they are furthest apart.

Toxic layer (Wang et al. Eq. 6):             argmax_l ||h_l(Y_safe) - h_l(Y_unsafe)||
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mechinterp.errors import InputError, near

Distance = Literal["released", "residual", "pooled", "relative"]
DISTANCES: tuple[Distance, ...] = ("released", "residual", "pooled", "relative")


def pair_distances(
    safe: Float[Tensor, "pair pos d_model"],
    unsafe: Float[Tensor, "pair pos d_model"],
    safe_mask: Bool[Tensor, "pair pos"],
    unsafe_mask: Bool[Tensor, "pair pos"],
    distances: Sequence[Distance],
    *,
    own: Bool[Tensor, "pair pos"] | None = None,
) -> Float[Tensor, "distance pair"]:
    """Distances of pairs of responses at one layer, accumulated in float32 (float64 of float64 states).

    Args:
        safe, unsafe: residual stream after a block of the two responses of every pair, padded to one length. For
            `released` that of the last block must carry the final norm, as transformers' `hidden_states` does; for
            the others it must not.
        safe_mask, unsafe_mask: True at tokens, False at padding; every response has a token.
        distances: which. `released`: Frobenius norm over all positions, padding included. `residual`: over the
            positions at which both have a token. `pooled`: distance of the means over tokens. `relative`: pooled, over
            the sum of the lengths of the two means (nan where both are 0).
        own: the positions of each pair itself, its padding included, where a batch is wider; None if all are.

    Returns:
        A row per distance, in the order asked for.
    """
    for distance in distances:
        check_distance(distance)
    wide = safe.dtype if safe.dtype == torch.float64 else torch.float32
    safe, unsafe = safe.to(wide), unsafe.to(wide)
    found: dict[Distance, Tensor] = {}
    if "released" in distances:  # of one pair alone, torch.dist to the last bit
        found["released"] = _frobenius(safe - unsafe, own)
    if "residual" in distances:
        found["residual"] = _frobenius(safe - unsafe, safe_mask & unsafe_mask)
    if "pooled" in distances or "relative" in distances:
        mean_safe, mean_unsafe = _token_mean(safe, safe_mask), _token_mean(unsafe, unsafe_mask)
        found["pooled"] = (mean_safe - mean_unsafe).norm(dim=1)
        found["relative"] = found["pooled"] / (mean_safe.norm(dim=1) + mean_unsafe.norm(dim=1))
    return torch.stack([found[distance] for distance in distances])


def _frobenius(
    difference: Float[Tensor, "pair pos d_model"], positions: Bool[Tensor, "pair pos"] | None
) -> Float[Tensor, " pair"]:
    """Frobenius norm over some positions of each pair; `where`, as a NaN elsewhere must not reach it."""
    if positions is not None:
        difference = torch.where(positions[..., None], difference, 0)
    return difference.flatten(1).norm(dim=1)


def _token_mean(states: Float[Tensor, "pair pos d_model"], mask: Bool[Tensor, "pair pos"]) -> Tensor:
    return torch.where(mask[..., None], states, 0).sum(1) / mask.sum(1, keepdim=True)


def check_distance(distance: str) -> None:
    """Raise `InputError` unless there is such a distance."""
    if distance not in DISTANCES:
        raise InputError(f"distance must be one of {DISTANCES}, got {distance!r}{near(str(distance), DISTANCES)}")
