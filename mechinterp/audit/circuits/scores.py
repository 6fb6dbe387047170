"""Scores of all edges of a model on some pairs of prompts, and what is asked of them: circuits, nodes, completeness."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mechinterp.audit.circuits.circuit import Circuit, greedy, threshold, top
from mechinterp.audit.circuits.graph import Graph
from mechinterp.data.counting import many
from mechinterp.data.showing import one_line
from mechinterp.data.storage.files import replacing, write_json
from mechinterp.errors import InputError

COMPLETE = (0.8, 1.2)
"""Shares of the gap that the edges out of the input should make up."""


@dataclass(frozen=True, eq=False)
class EdgeScores:
    """What every edge is worth to a behaviour, with what it was measured on.

    Attributes:
        graph: nodes and edges.
        scores: of every edge, in units of the metric; 0 where there is no edge. Positive: it supports the behaviour.
        clean, corrupted: the metric of every pair.
        steps: of the integration.
        checkpoint, fingerprint: the model's name and weights.
    """

    graph: Graph
    scores: Float[Tensor, "writer reader"]
    clean: tuple[float, ...]
    corrupted: tuple[float, ...]
    steps: int
    checkpoint: str
    fingerprint: str

    @property
    def writers(self) -> tuple[str, ...]:
        """Names of the rows."""
        return self.graph.writers

    @property
    def readers(self) -> tuple[str, ...]:
        """Names of the columns."""
        return self.graph.readers

    @cached_property
    def gap(self) -> float:
        """Mean over the pairs of the metric on the clean prompt less that on the corrupted one."""
        return (sum(self.clean) - sum(self.corrupted)) / len(self.clean)

    @cached_property
    def attributed(self) -> float:
        """Sum of the edges out of the input: the gap, if the integration is fine enough."""
        return float(self.scores[0].sum())

    @property
    def completeness(self) -> float:
        """`attributed` as a share of `gap`; NaN without one."""
        return self.attributed / self.gap if self.gap else float("nan")

    @property
    def complete(self) -> bool:
        """Whether that share is between 0.8 and 1.2."""
        return COMPLETE[0] <= self.completeness <= COMPLETE[1]

    @cached_property
    def of_nodes(self) -> Float[Tensor, " writer"]:
        """Of every writer: the sum of the edges out of it, its own direct attribution."""
        return self.scores.sum(1)

    def top(self, n: int) -> Circuit:
        """The n edges of largest |score|."""
        return top(self.graph, self.scores, n)

    def share(self, share: float) -> Circuit:
        """The edges of largest |score|, this share of all (one at least)."""
        return self.top(count_of(self.graph, share))

    def threshold(self, least: float) -> Circuit:
        """The edges of a |score| of at least this much."""
        return threshold(self.graph, self.scores, least)

    def greedy(self, n: int) -> Circuit:
        """From the logits backwards, n times the edge of largest |score| into a node that is in."""
        return greedy(self.graph, self.scores, n)

    def nodes(self) -> pd.DataFrame:
        """A row per writer: node, kind, block, and the sum of its edges."""
        graph = self.graph
        return pd.DataFrame(
            {
                "node": graph.writers,
                "kind": [graph.kind_of(node) for node in range(len(graph.writers))],
                "block": pd.array([graph.block_of(node) for node in range(len(graph.writers))], dtype="Int64"),
                "score": self.of_nodes.tolist(),
            }
        )

    def edges(self, n: int = 50) -> pd.DataFrame:
        """The n edges of largest |score|, the largest first: writer, reader, score."""
        kept = self.top(n).edges
        rows = [(self.writers[u], self.readers[v], float(self.scores[u, v])) for u, v in kept.nonzero().tolist()]
        table = pd.DataFrame(rows, columns=["writer", "reader", "score"])
        return table.sort_values("score", key=abs, ascending=False, kind="stable", ignore_index=True)

    def save(self, folder: str | Path) -> Path:
        """Save as `edges.safetensors` and `edges.json` in a folder, whole or not at all.

        Raises:
            InputError: if the folder cannot be written, or holds what this tool did not write.
        """
        with replacing(Path(folder)) as partial:
            partial.mkdir()
            self.write(partial)
        return Path(folder)

    def write(self, folder: Path) -> None:
        """Write the two files into a folder that is there."""
        labels = {name: getattr(self, name) for name in ("clean", "corrupted", "steps", "checkpoint", "fingerprint")}
        labels |= {name: getattr(self, name) for name in ("writers", "readers", "gap", "attributed")}
        save_file({"scores": self.scores.contiguous()}, folder / "edges.safetensors")
        write_json(folder / "edges.json", {"graph": asdict(self.graph), **labels})

    @classmethod
    def load(cls, folder: str | Path) -> EdgeScores:
        """Read back what `save` wrote.

        Raises:
            InputError: if it is not there, or damaged.
        """
        folder = Path(folder)
        try:
            labels = json.loads((folder / "edges.json").read_text(encoding="utf-8"))
            scores = load_file(folder / "edges.safetensors")["scores"]
            graph = Graph(**labels["graph"])
            clean, corrupted = tuple(labels["clean"]), tuple(labels["corrupted"])
            found = cls(graph, scores, clean, corrupted, labels["steps"], labels["checkpoint"], labels["fingerprint"])
            if scores.shape != graph.edges.shape:
                raise ValueError("its matrix is not that of its graph")
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise InputError(f"{folder}: no scores of edges can be read ({error}); score the circuit again") from error
        return found

    def __repr__(self) -> str:
        gap = f"gap {self.gap:.3g}, attributed {self.attributed:.3g}"
        return one_line(self, self.checkpoint, many(self.graph.n_edges, "edge"), many(len(self.clean), "pair"), gap)


def count_of(graph: Graph, share: float) -> int:
    """How many edges a share of all is: one at least.

    Raises:
        InputError: for a share that is not above 0 and at most 1.
    """
    if not 0 < share <= 1:
        raise InputError(f"a share of the edges must be above 0 and at most 1, got {share}")
    return max(1, round(share * graph.n_edges))
