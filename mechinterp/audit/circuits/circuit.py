"""A circuit: some of a graph's edges. How edges are chosen by their scores, and what of a choice hangs in the air.

    top        the n edges of largest |score|
    threshold  those with |score| >= t
    greedy     from the logits backwards: n times the edge of largest |score| into a node that is in; its writer joins
    pruned     without nodes that nothing reads, or that read nothing (Hanna et al. 2024)

Edges of equal score are taken in the order of the graph.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mechinterp.audit.circuits.graph import Graph
from mechinterp.data.counting import many
from mechinterp.data.showing import one_line
from mechinterp.errors import InputError, near

Selection = Literal["top", "greedy"]


@dataclass(frozen=True, eq=False)
class Circuit:
    """Some edges of a graph.

    Attributes:
        graph: all there are.
        edges: which are kept.
    """

    graph: Graph
    edges: Bool[Tensor, "writer reader"]

    def __post_init__(self) -> None:
        if self.edges.shape != self.graph.edges.shape or bool((self.edges & ~self.graph.edges).any()):
            raise InputError("a circuit's edges must be edges of its graph, [writer, reader]")

    @classmethod
    def full(cls, graph: Graph) -> Circuit:
        """All edges."""
        return cls(graph, graph.edges.clone())

    @classmethod
    def empty(cls, graph: Graph) -> Circuit:
        """No edge."""
        return cls(graph, torch.zeros_like(graph.edges))

    @classmethod
    def random(cls, graph: Graph, n: int, *, seed: int) -> Circuit:
        """Any n edges, each as likely as another."""
        places = graph.edges.flatten().nonzero().flatten()
        order = torch.randperm(len(places), generator=torch.Generator().manual_seed(seed))
        return cls._of_flat(graph, places[order[:n]])

    @classmethod
    def of_names(cls, graph: Graph, names: list[str]) -> Circuit:
        """Edges by their names, `a0.h1->m0`.

        Raises:
            InputError: for one that the graph does not have.
        """
        known = {graph.edge_name(*place): place for place in map(tuple, graph.edges.nonzero().tolist())}
        edges = torch.zeros_like(graph.edges)
        for name in names:
            if name not in known:
                raise InputError(f"the graph has no edge {name!r}{near(name, known)}")
            edges[known[name]] = True
        return cls(graph, edges)

    @classmethod
    def _of_flat(cls, graph: Graph, places: Tensor) -> Circuit:
        edges = torch.zeros(graph.edges.numel(), dtype=torch.bool)
        edges[places] = True
        return cls(graph, edges.view_as(graph.edges))

    def __len__(self) -> int:
        return int(self.edges.sum())

    @cached_property
    def in_circuit(self) -> Bool[Tensor, " node"]:
        """Which nodes are an end of a kept edge.

        A key or value that several heads share is an end at those of them that write in the circuit or whose query is
        read in it; at all of them where there is none.
        """
        graph, read = self.graph, self.edges.any(0)
        writing = torch.cat([self.edges.any(1), torch.zeros(1, dtype=torch.bool)])
        entered = graph.entries & read
        shared = graph.entries.sum(0) > 1
        found = writing | entered[:, ~shared].any(1)
        for reader in (read & shared).nonzero().flatten().tolist():
            feeds = graph.entries[:, reader]
            if not bool((found & feeds).any()):
                found = found | feeds
        return found

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of the nodes that are in."""
        return tuple(name for name, kept in zip(self.graph.nodes, self.in_circuit.tolist(), strict=True) if kept)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the edges, in the order of the graph."""
        return tuple(self.graph.edge_name(*place) for place in map(tuple, self.edges.nonzero().tolist()))

    def pruned(self) -> Circuit:
        """The circuit without what hangs in the air.

        From the last node backwards: one that no kept edge leaves goes, with the edges into it (those into a key or a
        value, with the last of the heads that share it). Then forwards: one other than the input that no kept edge
        enters goes, with the edges out of it. Each pass is enough: an edge leads on in the order of the nodes.
        """
        graph, edges = self.graph, self.edges.clone()
        gone = torch.zeros(len(graph.nodes), dtype=torch.bool)
        for node in range(len(graph.writers) - 1, -1, -1):
            if not bool(edges[node].any()):
                gone[node] = True
                dead = graph.entries[node] & ~graph.entries[~gone].any(0)
                edges[:, dead] = False
        for node in range(1, len(graph.writers)):
            if not bool(edges[:, graph.entries[node]].any()):
                edges[node] = False
        return Circuit(graph, edges)

    def __repr__(self) -> str:
        return one_line(self, f"{len(self)} of {self.graph.n_edges} edges", many(int(self.in_circuit.sum()), "node"))


def top(graph: Graph, scores: Float[Tensor, "writer reader"], n: int) -> Circuit:
    """The n edges of largest |score|; all where there are fewer.

    Raises:
        InputError: for n below 1.
    """
    return Circuit._of_flat(graph, _order(graph, scores)[: _positive(n)])


def threshold(graph: Graph, scores: Float[Tensor, "writer reader"], least: float) -> Circuit:
    """The edges of a |score| of at least this much."""
    return Circuit(graph, graph.edges & (scores.abs() >= least))


def greedy(graph: Graph, scores: Float[Tensor, "writer reader"], n: int) -> Circuit:
    """From the logits backwards: n times the edge of largest |score| into a node that is in; its writer joins.

    Raises:
        InputError: for n below 1.
    """
    edges, size = torch.zeros_like(graph.edges), scores.abs().tolist()
    waiting: list[tuple[float, int, int]] = []
    opened: set[int] = set()

    def join(node: int) -> None:
        for reader in graph.entries[node].nonzero().flatten().tolist():
            if reader not in opened:
                opened.add(reader)
                for writer in range(int(graph.reach[reader])):
                    heapq.heappush(waiting, (-size[writer][reader], writer, reader))

    join(len(graph.nodes) - 1)
    for _ in range(_positive(n)):
        if not waiting:
            break
        _, writer, reader = heapq.heappop(waiting)
        edges[writer, reader] = True
        join(writer)
    return Circuit(graph, edges)


def _order(graph: Graph, scores: Float[Tensor, "writer reader"]) -> Tensor:
    """Edges, flat, by |score|, the largest first."""
    places = graph.edges.flatten().nonzero().flatten()
    return places[scores.abs().flatten()[places].argsort(descending=True, stable=True)]


def _positive(n: int) -> int:
    if n < 1:
        raise InputError(f"the number of edges must be at least 1, got {n}")
    return n
