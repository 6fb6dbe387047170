"""The graph of a transformer: who writes into the residual stream, who reads from it, and who can reach whom.

    writers   input, then per block its heads a{l}.h{h} and its MLP m{l}
    readers   per block the heads' queries a{l}.h{h}<q>, keys <k> and values <v>, then m{l}; at the end logits

A reader reaches back to every writer before it in the stream, so its writers are the first so many of all. Where
several query heads share a key and value head, keys and values have a reader per *key* head, numbered as these are:
query head h reads through key head h // (heads / key heads). With as many of both the names are those of Syed et al.
2023 and Hanna et al. 2024.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Int
from torch import Tensor

LETTERS = ("q", "k", "v")


@dataclass(frozen=True)
class Graph:
    """The nodes and edges of a model of sequential blocks.

    Attributes:
        blocks: how many.
        heads: query heads of each.
        key_heads: key and value heads of each.
    """

    blocks: int
    heads: int
    key_heads: int

    @cached_property
    def writers(self) -> tuple[str, ...]:
        """Names of the writers, in the order of the stream."""
        of_blocks = ([*(f"a{b}.h{h}" for h in range(self.heads)), f"m{b}"] for b in range(self.blocks))
        return ("input", *(name for names in of_blocks for name in names))

    @cached_property
    def readers(self) -> tuple[str, ...]:
        """Names of the readers: of every block all queries, all keys, all values, the MLP."""
        names = []
        for block in range(self.blocks):
            for letter in LETTERS:
                names += [f"a{block}.h{head}<{letter}>" for head in range(self.count(letter))]
            names.append(f"m{block}")
        return (*names, "logits")

    @cached_property
    def nodes(self) -> tuple[str, ...]:
        """Names of the nodes: the writers, and the logits."""
        return (*self.writers, "logits")

    def count(self, letter: str) -> int:
        """How many heads have queries, keys or values of their own."""
        return self.heads if letter == "q" else self.key_heads

    @property
    def readers_of_attention(self) -> int:
        """Readers of one block's attention."""
        return self.heads + 2 * self.key_heads

    def head(self, block: int, head: int = 0) -> int:
        """The number of a head among the writers; that of the MLP with `head=heads`."""
        return 1 + block * (self.heads + 1) + head

    def reader(self, block: int, letter: str = "q", head: int = 0) -> int:
        """The number of a query, key or value among the readers; with `letter="m"` that of the MLP."""
        before = {"q": 0, "k": self.heads, "v": self.heads + self.key_heads, "m": self.readers_of_attention}
        return block * (self.readers_of_attention + 1) + before[letter] + head

    @cached_property
    def reach(self) -> Int[Tensor, " reader"]:
        """How many writers, from the first, each reader reads."""
        found = []
        for block in range(self.blocks):
            first = self.head(block)
            found += [first] * self.readers_of_attention + [first + self.heads]
        return torch.tensor([*found, len(self.writers)])

    @cached_property
    def edges(self) -> Bool[Tensor, "writer reader"]:
        """Which edges there are."""
        return torch.arange(len(self.writers))[:, None] < self.reach

    @property
    def n_edges(self) -> int:
        """How many there are."""
        return int(self.reach.sum())

    @cached_property
    def entries(self) -> Bool[Tensor, "node reader"]:
        """Through which readers each node is entered: a head through its query, and its group's key and value."""
        found = torch.zeros(len(self.nodes), len(self.readers), dtype=torch.bool)
        for block in range(self.blocks):
            for head in range(self.heads):
                group = head // (self.heads // self.key_heads)
                for letter in LETTERS:
                    reader = self.reader(block, letter, head if letter == "q" else group)
                    found[self.head(block, head), reader] = True
            found[self.head(block, self.heads), self.reader(block, "m")] = True
        found[-1, -1] = True
        return found

    def block_of(self, node: int) -> int | None:
        """The block of a node; None for the input and the logits."""
        return None if node in (0, len(self.writers)) else (node - 1) // (self.heads + 1)

    def kind_of(self, node: int) -> str:
        """What a node is: `input`, `attention`, `mlp` or `logits`."""
        if self.block_of(node) is None:
            return self.nodes[node]
        return "mlp" if (node - 1) % (self.heads + 1) == self.heads else "attention"

    def edge_name(self, writer: int, reader: int) -> str:
        """An edge by its ends, `a0.h1->m0`."""
        return f"{self.writers[writer]}->{self.readers[reader]}"
