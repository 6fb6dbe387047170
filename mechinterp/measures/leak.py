"""leak@k: the chance that at least one of k sampled answers is unsafe (2511.04934).

    leak@k = 1 - C(n - c, k) / C(n, k)         n answers were sampled, c of them are unsafe

It is the unbiased estimate that pass@k is of another event (Chen et al. 2021): the mean over all choices of k of the n.
leak@1 is the share of unsafe answers.
"""

from __future__ import annotations

import math

from mechinterp.data.counting import many
from mechinterp.errors import InputError


def leak_at(k: int, n: int, c: int) -> float:
    """leak@k of one prompt.

    Args:
        k: answers that an attacker draws.
        n: answers that were sampled.
        c: of which are unsafe.

    Raises:
        InputError: unless 1 <= k <= n and 0 <= c <= n.
    """
    if not 1 <= k <= n:
        raise InputError(f"leak@k needs 1 to n answers drawn, got k = {k} of n = {n}; sample more, or give a smaller k")
    if not 0 <= c <= n:
        raise InputError(f"{many(c, 'unsafe answer')} of {n}")
    return 1 - math.comb(n - c, k) / math.comb(n, k)
