"""Divergences of two distributions.

    KL(p || q) = sum of p log(p / q)                                   in nats, from 0 without an end
    JSD(p, q) = (KL(p || m) + KL(q || m)) / 2,  m = (p + q) / 2        in bits

The second is 0 for equal distributions, 1 for disjoint ones, and symmetric. Its square root is scipy's `jensenshannon`.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def jensen_shannon(p: Float[Tensor, "row outcome"], q: Float[Tensor, "row outcome"]) -> Float[Tensor, " row"]:
    """JSD in bits of each row, in float64; exactly 0 where the rows are equal, nan where one is not finite."""
    p, q = p.double(), q.double()
    middle = ((p + q) / 2).clamp_min(torch.finfo(torch.float64).tiny)  # where both are 0 they add nothing
    parts = [torch.xlogy(part, part / middle).sum(1) for part in (p, q)]
    return ((parts[0] + parts[1]) / 2 / torch.log(torch.tensor(2.0, dtype=torch.float64))).clamp(0, 1)  # rounding only


def kullback_leibler(
    logits: Float[Tensor, "row outcome"], of_other: Float[Tensor, "row outcome"]
) -> Float[Tensor, " row"]:
    """KL(p || q) in nats of each row, in float64, from the logits of p and of q; nan where one is not finite."""
    p, q = (each.double().log_softmax(1) for each in (logits, of_other))
    return (p.exp() * (p - q)).sum(1).clamp_min(0)  # rounding only
