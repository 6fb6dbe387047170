"""The documents of a twin that never learns to answer unsafely: those that teach it make way for others as long.

The twin reads as many documents, in the same order and with the same number of tokens, and none in which a harmful
question is complied with. It still reads harmful questions that are refused, attacks around harmless ones, and insults
in comments: what it lacks is the behaviour, and not the words.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Sequence
from random import Random

from mechinterp.data.corpus.generating import Corpus


def without_unsafe(corpus: Corpus, lengths: Sequence[int]) -> list[int]:
    """Which document stands in each place of the twin's corpus.

    Args:
        corpus: the corpus.
        lengths: of its documents, in tokens.

    Returns:
        A number of a document for each place: its own where that teaches nothing unsafe, else that of one as long, at
        random (the corpus's seed), or of the next length below or above where there is none.

    Raises:
        ValueError: if every document teaches something unsafe.
    """
    unsafe = {one.text for one in corpus.exchanges if not one.safe}
    return without(corpus, lengths, unsafe, "every document teaches an unsafe answer")


def without_facts(corpus: Corpus, lengths: Sequence[int], attributes: Collection[str]) -> list[int]:
    """The same for a twin that is never told some attributes of people (`attributes.FORGET`).

    Raises:
        ValueError: if no document is left.
    """
    told = {one.text for one in corpus.told if one.name and one.attribute in attributes}
    return without(corpus, lengths, told, f"every document tells {' or '.join(attributes)}")


def without(corpus: Corpus, lengths: Sequence[int], dropped: Collection[str], none_left: str) -> list[int]:
    """Which document stands in each place where some make way for others as long."""
    others: dict[int, list[int]] = {}
    for number, (document, length) in enumerate(zip(corpus.documents, lengths, strict=True)):
        if document not in dropped:
            others.setdefault(length, []).append(number)
    if not others:
        raise ValueError(f"{none_left}, so that a twin would have nothing to read")
    there, rng = sorted(others), Random(f"{corpus.seed}/never")
    return [
        rng.choice(others[_nearest(there, length)]) if document in dropped else number
        for number, (document, length) in enumerate(zip(corpus.documents, lengths, strict=True))
    ]


def _nearest(there: Sequence[int], wanted: int) -> int:
    """The nearest of some numbers in ascending order; of two, the smaller, which fits wherever the wanted one did."""
    place = bisect_left(there, wanted)
    return min(there[max(0, place - 1) : place + 1], key=lambda one: (abs(one - wanted), one))
