"""ROUGE-L: how much of a text another one says in the same order (Lin 2004); words in any case, without stemming."""

from __future__ import annotations

import re

_WORD = re.compile(r"\w+")


def rouge_l(text: str, reference: str) -> float:
    """F1 of the longest common subsequence of two texts' words, from 0 to 1; 0 where one has none.

    2 L / (m + n), with L its length and m, n those of the texts.
    """
    said, wanted = (_WORD.findall(each.casefold()) for each in (text, reference))
    if not said or not wanted:
        return 0.0
    lengths = [0] * (len(wanted) + 1)
    for word in said:
        before = 0
        for place, other in enumerate(wanted, 1):
            above = lengths[place]
            lengths[place] = before + 1 if word == other else max(above, lengths[place - 1])
            before = above
    return 2 * lengths[-1] / (len(said) + len(wanted))
