"""What the words of a response show without a judge: fluency, and whether a known answer is among them.

    fluency(response) = (2/3 H_2 + 4/3 H_3) / 2, H_n the entropy in bits of the response's word n-grams

Words are what stands between blanks, and every character of a script that sets none (Chinese, Japanese, Thai, ...);
ROME's code splits off punctuation too. Fluency sees repetition, not sense: a short response has few n-grams and a low
value however good it is.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

UNSPACED = (
    "[\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff]"
)
"""Pattern of a character of a script without blanks between words: Thai, Lao, Tibetan, Burmese, Khmer, Japanese,
Chinese."""

_WORD = re.compile(rf"{UNSPACED}|(?:(?!{UNSPACED})\S)+")


def words_of(text: str) -> list[str]:
    """The words of a text, in order; none for one without a letter or digit, such as `...`."""
    return _WORD.findall(text) if any(map(str.isalnum, text)) else []


def entropy_of_ngrams(response: str) -> float:
    """Weighted bi- and trigram entropy of one response in bits (as ROME's); nan for one without a word."""
    words = words_of(response)
    if not words:
        return float("nan")
    entropies = []
    for n in (2, 3):
        counts = np.array(list(Counter(zip(*(words[i:] for i in range(n)), strict=False)).values()), dtype=float)
        shares = counts / counts.sum() if len(counts) else np.ones(1)
        entropies.append(float(-(shares * np.log2(shares)).sum()))
    return (2 / 3 * entropies[0] + 4 / 3 * entropies[1]) / 2


def fluency(responses: Sequence[str]) -> float:
    """Mean of `entropy_of_ngrams` over the responses with a word, in bits; nan for none."""
    values = [entropy_of_ngrams(response) for response in responses if words_of(response)]
    return float(np.mean(values)) if values else float("nan")


def knows(response: str, answer: str) -> bool:
    """Whether the known answer occurs in the response as whole words, whatever the case and the outer punctuation.

    In scripts without blanks between words no more can be asked than that it occurs.
    """
    wanted = answer.strip().strip(".!?\u3002\uff01\uff1f").lower()
    if not wanted:
        return False
    letter = rf"(?!{UNSPACED})\w"
    before = "" if re.match(UNSPACED, wanted) else rf"(?<!{letter})"
    after = "" if re.match(UNSPACED, wanted[-1]) else rf"(?!{letter})"
    return re.search(before + re.escape(wanted) + after, response.lower()) is not None
