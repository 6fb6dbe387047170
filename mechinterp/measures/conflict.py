"""How edits get along, from probabilities alone, record by record (Li et al. 2024, arXiv 2310.02129).

    CS    whether the later edit's answer is more probable than the earlier one's, both after both edits
    CM    max((P_1 - P_12) / P_1, -1)     P of the first edit's answer after it alone, and after both: 1 gone, 0 intact
    TFD   (T_0 - T_12) / T_0              T of what is tied to the edits, before them and after both
    Succ  whether the second edit's answer is the more probable one after the second edit alone

Values are means over records; of CM also the median tells, since a small P_1 makes it jump.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

FLOOR = -1.0
"""CM's least value: a first edit that gains by the second counts no more than that."""


def is_more_probable(later: Float[Tensor, " record"], earlier: Float[Tensor, " record"]) -> Float[Tensor, " record"]:
    """1 where the later answer is the more probable one, else 0 (CS, Succ); nan where one is."""
    return torch.where((later + earlier).isnan(), torch.nan, (later > earlier).double())


def lost_share(
    alone: Float[Tensor, " record"], both: Float[Tensor, " record"], *, floor: float | None = FLOOR
) -> Float[Tensor, " record"]:
    """Share of a probability that is lost: CM with its floor, TFD without one; nan where there was nothing to lose.

    Args:
        alone: before.
        both: after.
        floor: the least value; None for none.
    """
    lost = torch.where(alone > 0, (alone - both) / alone, torch.nan)
    return lost if floor is None else lost.clamp_min(floor)
