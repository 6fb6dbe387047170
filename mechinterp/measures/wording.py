"""What the words of a response show without a judge: fluency, and whether a known answer is among them.

    fluency(response) = (2/3 H_2 + 4/3 H_3) / 2, H_n the entropy in bits of the response's word n-grams

Words are what stands between blanks; ROME's code splits off punctuation too. Fluency sees repetition, not sense: a
short response has few n-grams and a low value however good it is.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np


def entropy_of_ngrams(response: str) -> float:
    """Weighted bi- and trigram entropy of one response in bits (as ROME's); nan for one without a word."""
    words = response.split()
    if not words:
        return float("nan")
    entropies = []
    for n in (2, 3):
        counts = np.array(list(Counter(zip(*(words[i:] for i in range(n)), strict=False)).values()), dtype=float)
        shares = counts / counts.sum() if len(counts) else np.ones(1)
        entropies.append(float(-(shares * np.log2(shares)).sum()))
    return (2 / 3 * entropies[0] + 4 / 3 * entropies[1]) / 2


def fluency(responses: Sequence[str]) -> float:
    """Mean of `entropy_of_ngrams` over the non-empty responses, in bits; nan for none."""
    values = [entropy_of_ngrams(response) for response in responses if response.strip()]
    return float(np.mean(values)) if values else float("nan")


def knows(response: str, answer: str) -> bool:
    """Whether the known answer occurs in the response as whole words, whatever the case and the outer punctuation."""
    wanted = re.escape(answer.strip().strip(".!?").lower())
    return re.search(rf"(?<!\w){wanted}(?!\w)", response.lower()) is not None
