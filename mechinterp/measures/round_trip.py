"""What an edit and its way back leave behind, record by record (Li et al. 2024, arXiv 2310.02129), and in weights.

JSD   of the probabilities of some answers, brought to a sum of 1, before and after both edits     in bits
D     the same in nats, divided by the number of answers: a mean over a vector, as released (published in percent)
IR    share of the true answers that were not edited whose probability fell
FR    whether that share is above a half
Succ  half for the new answer above the true one after the first edit, half for the converse after the second
left  |D_1 + D_2| / |D_1|, Frobenius norms of the changes of weights: 0 undone, 1 nothing undone, more: further away
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.measures.divergence import jensen_shannon

SMALL = 1e-12
"""A divergence below is rounding: nothing is left of what was not there."""


def shift_of_answers(before: Float[Tensor, " answer"], after: Float[Tensor, " answer"]) -> float:
    """JSD in bits between probabilities of the same answers, each brought to a sum of 1; nan where all are 0."""
    p, q = before.double(), after.double()
    if not (p.sum() > 0 and q.sum() > 0):
        return math.nan
    return float(jensen_shannon((p / p.sum())[None], (q / q.sum())[None]))


def released_distortion(jsd: float, answers: int) -> float:
    """D as released: the JSD in nats, over the number of answers."""
    return jsd * math.log(2) / answers


def share_fallen(before: Float[Tensor, " other"], after: Float[Tensor, " other"]) -> float:
    """IR: share of the other true answers whose probability fell; nan without any."""
    return float((after < before).double().mean()) if len(before) else math.nan


def is_failure(fallen: float) -> float:
    """FR: whether more than half of them fell; nan without any."""
    return fallen if math.isnan(fallen) else float(fallen > 0.5)


def success(new_1: float, true_1: float, new_2: float, true_2: float) -> float:
    """Succ, from the probabilities of the new and the true answer after the first and after the second edit."""
    return 0.5 * (new_1 > true_1) + 0.5 * (true_2 > new_2)


def left_of(before: float, after: float) -> float:
    """What is left of something that the first edit brought about, as a share; nan where it brought about nothing."""
    return after / before if abs(before) > SMALL else math.nan


def left_of_change(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> float:
    """|D_1 + D_2| / |D_1| over all parameters that either changes, in float64; nan where the first changes nothing."""
    size = math.hypot(*(float(change.double().norm()) for change in first.values()))
    sums = []
    for name in first.keys() | second.keys():
        parts = [changes[name].double().cpu() for changes in (first, second) if name in changes]
        sums.append(float(torch.stack(parts).sum(0).norm()))
    return math.hypot(*sums) / size if size else math.nan
