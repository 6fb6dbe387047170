"""Parting what something is fitted on from what it is checked on: nothing stands on both sides.

Texts are the same where `data.normalised` says so. Rows that share a text, a question or a prompt are one group, and a
group is never parted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from logging import Logger
from typing import TypeVar

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from mechinterp.data.counting import many
from mechinterp.data.normalised import normalised
from mechinterp.measures.statistics import seeded_order

Group = TypeVar("Group", bound=Hashable)


@dataclass(frozen=True)
class Distinct:
    """Labelled texts, each once.

    Attributes:
        rows: where each first occurs.
        labels: of each, that of most of its rows.
        repeated: rows that repeat a text.
        contradictory: texts that occur with both labels.
        undecided: those of them with both labels equally often, which are left out.
    """

    rows: tuple[int, ...]
    labels: tuple[bool, ...]
    repeated: int
    contradictory: int
    undecided: int

    @classmethod
    def of(cls, texts: Sequence[str], labels: Sequence[bool]) -> Distinct:
        """The distinct ones of some labelled texts, in their order."""
        votes: dict[str, list[int]] = {}
        first: dict[str, int] = {}
        for row, (text, label) in enumerate(zip(map(normalised, texts), labels, strict=True)):
            first.setdefault(text, row)
            votes.setdefault(text, [0, 0])[bool(label)] += 1
        decided = [text for text, (no, yes) in votes.items() if no != yes]
        return cls(
            rows=tuple(first[text] for text in decided),
            labels=tuple(votes[text][1] > votes[text][0] for text in decided),
            repeated=len(texts) - len(votes),
            contradictory=sum(all(counts) for counts in votes.values()),
            undecided=len(votes) - len(decided),
        )

    def warn_of_repeats(self, logger: Logger, what: str) -> None:
        """Say how many rows repeat a text, if any do."""
        if self.repeated:
            logger.warning("%d of the %s repeat the text of another: each text counts once", self.repeated, what)

    def warn_of_contradictions(self, logger: Logger, what: str) -> None:
        """Say how many texts have both labels, if any have."""
        if self.contradictory:
            logger.warning(
                "%s among the %s %s contradictory labels: the more frequent one counts, %d with both equally "
                "often are left out",
                many(self.contradictory, "text"),
                what,
                "has" if self.contradictory == 1 else "have",
                self.undecided,
            )


def groups_of(keys: Sequence[Collection[Hashable]]) -> list[int]:
    """The group of every row: rows that share a key, directly or through others, are in one.

    Args:
        keys: of every row.

    Returns:
        The number of each row's group, from 0 in the order in which they first occur.
    """
    columns: dict[Hashable, int] = {}
    pairs = [(row, columns.setdefault(key, len(columns))) for row, own in enumerate(keys) for key in own]
    rows, named = np.array(pairs, dtype=int).reshape(-1, 2).T
    size = len(keys) + len(columns)  # a graph of rows and keys
    graph = coo_matrix((np.ones(len(rows)), (rows, len(keys) + named)), shape=(size, size))
    found = connected_components(graph, directed=False)[1][: len(keys)].tolist()
    numbers: dict[int, int] = {}
    return [numbers.setdefault(group, len(numbers)) for group in found]


def half_of(groups: Sequence[int], seed: int) -> list[int]:
    """The rows of a seeded half of the groups, as near to half of the rows as that comes; with one group, none.

    Where every row is a group of its own, that is a seeded half of the rows, the larger one of an odd number.
    """
    members: dict[int, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    order = [list(members)[i] for i in seeded_order(len(members), seed)]
    taken: list[int] = []
    best: list[int] = []
    for group in order[:-1]:
        taken = taken + members[group]
        if abs(2 * len(taken) - len(groups)) <= abs(2 * len(best) - len(groups)):
            best = taken
    return best


def folds_of(groups: Sequence[Group], n: int, seed: int) -> dict[Group, int]:
    """The fold, from 0 to n - 1, of every group: as many groups in each as in another, or one more."""
    distinct = list(Counter(groups))
    return {distinct[i]: place % n for place, i in enumerate(seeded_order(len(distinct), seed))}
