"""The stable rank of a change, and the change as two thin factors."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def stable_rank(
    change: Float[Tensor, "copy m n"], start: Float[Tensor, "copy n width"] | None = None
) -> tuple[Float[Tensor, " copy"], Float[Tensor, "copy n width"]]:
    """|D|_F^2 / |D|_2^2 of each of several matrices: a rank that small singular values hardly count in.

    0 for D = 0, nan for a D whose norm is not finite.

    |D|_2 by subspace iteration with 8 vectors, until a turn changes it by a thousandth at most or 20 are done. It comes
    from below, so the rank comes from above.

    Args:
        start: vectors to start from, of an earlier call on nearly the same matrices; it then takes at most two turns.

    Returns:
        The stable ranks, and the vectors to start from next time.
    """
    norms = change.flatten(1).norm(dim=1)
    finite = norms.isfinite()
    if not bool(finite.all()):
        change = torch.where(finite[:, None, None], change, 0.0)
    turns = 20 if start is None else 2
    if start is None:
        generator = torch.Generator().manual_seed(0)
        start = torch.randn(1, change.shape[2], min(8, *change.shape[1:]), generator=generator).to(change)
        start = start.expand(len(change), -1, -1)
    vectors, before = start, torch.zeros(len(change), dtype=change.dtype, device=change.device)
    largest = before
    for _ in range(turns):
        vectors, _ = torch.linalg.qr(vectors)
        image = change @ vectors
        largest = torch.linalg.eigvalsh(image.mT @ image)[:, -1].clamp_min(0).sqrt()
        vectors = change.mT @ image
        if bool(((largest - before).abs() <= 1e-3 * largest).all()):
            break
        before = largest
    ranks = (norms / largest).square()
    moved = (vectors != 0).any(1, keepdim=True).any(2, keepdim=True)
    ranks = torch.where(largest > 0, ranks, 0.0)
    return torch.where(finite, ranks, torch.nan), torch.where(moved, vectors, start)


def low_rank(change: Float[Tensor, "m n"], rank: int) -> tuple[Float[Tensor, "m rank"], Float[Tensor, "rank n"], float]:
    """The best approximation of a matrix by one of low rank, as two factors, and its share of the squared norm.

    Exact singular vectors up to 1,024 rows or columns; above, those of a randomised range of rank + 16 columns and two
    power iterations (Halko, Martinsson and Tropp 2011), the same on every call.
    """
    total = float(change.double().square().sum())
    if min(change.shape) <= 1024:
        left, values, right = torch.linalg.svd(change, full_matrices=False)
    else:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            left, values, right = torch.svd_lowrank(change, min(rank + 16, *change.shape), niter=2)
            right = right.mT
    rank = min(rank, len(values))
    kept = float(values[:rank].double().square().sum()) / total if total else 1.0
    return left[:, :rank] * values[:rank], right[:rank].contiguous(), min(kept, 1.0)
