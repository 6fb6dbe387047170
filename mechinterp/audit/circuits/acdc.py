"""ACDC: cut one edge after the other, running the model each time; what is not missed stays cut (Conmy et al. 2023).

Readers from the logits downwards: of a block the MLP, then values, keys, queries, the last head first; of each reader
its writers, the last block first, MLP before heads. An edge stays cut if the metric rises by less than the threshold;
the metric is the mean negative log-probability of the right token, less the whole model's. A reader whose node nothing
kept reads is passed over, with all its edges.

One forward pass an edge: a reference for small models. `released=True` does what the code of Yao et al. 2024 does:
every query, key and value has one edge more, from its input to itself, which is tried before those of all inputs of the
block; and the metric is divided by the prompts' tokens (its mean runs over all positions, not over the answer's).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mechinterp.audit.circuits.batches import PairBatch, TokenPair, check_pairs, pair_batches
from mechinterp.audit.circuits.circuit import Circuit
from mechinterp.audit.circuits.graph import LETTERS, Graph
from mechinterp.audit.circuits.places import Places, projection_paths
from mechinterp.audit.circuits.running import Replaced, Replacement, run_circuit
from mechinterp.audit.circuits.writes import Ends, last_logits
from mechinterp.errors import InputError
from mechinterp.models import processes
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.names import HookSite
from mechinterp.models.passes.watching import evaluating, watching

NO_MEAN = "ACDC cuts edges with the corrupted prompts’ writes, or with zero; replace by one of these"


@dataclass(frozen=True)
class Kept:
    """What ACDC leaves.

    Attributes:
        circuit: the edges between nodes.
        direct: queries, keys and values that are their own still, by name; all where they were not tried.
        effects: by how much the metric rose when a kept edge was tried, by its name.
        metric: of the circuit.
        runs: forward passes of a batch, of this process.
    """

    circuit: Circuit
    direct: tuple[str, ...]
    effects: dict[str, float]
    metric: float
    runs: int


def acdc(
    checkpoint: Checkpoint,
    pairs: Sequence[TokenPair],
    *,
    least: float,
    replace: Replacement = "corrupted",
    released: bool = False,
    heads_ascending: bool = True,
    max_tokens: int | None = None,
) -> Kept:
    """Search a circuit by cutting edges.

    Args:
        checkpoint: the model; left exactly as it was.
        pairs: whose first right token's probability is to be kept.
        least: how much the metric must rise for an edge to be kept, nats (a token of the answer; `released`: of the
            prompt).
        replace: what a cut edge carries, `corrupted` or `zero`.
        released: as the released code does, see the module.
        heads_ascending: the order in which the heads of a block are tried as writers.
        max_tokens: of a batch; what all batches need is held at once.

    Raises:
        InputError: for pairs of unequal length, a threshold that is not above 0, another replacement, or an
            architecture for which circuits are not defined.
    """
    check_pairs(pairs)
    if not least > 0:
        raise InputError(f"the threshold of ACDC must be above 0, got {least}")
    if replace == "mean":
        raise InputError(NO_MEAN)
    places = Places.of(checkpoint)
    batches = list(pair_batches(checkpoint, places.graph, pairs, max_tokens))
    scale = 1 / len(pairs) / (max(len(pair.clean) for pair in pairs) if released else 1)
    search = _Search(checkpoint, places, batches, replace, released, scale)
    graph = places.graph
    search.writers_of(len(graph.readers) - 1, least, heads_ascending)
    for block in range(graph.blocks - 1, -1, -1):
        search.writers_of(graph.reader(block, "m"), least, heads_ascending)
        readers = [
            graph.reader(block, letter, head)
            for letter in reversed(LETTERS)
            for head in range(graph.count(letter) - 1, -1, -1)
        ]
        if released:
            for reader in readers:
                search.itself(reader, least)
        for reader in readers:
            search.writers_of(reader, least, heads_ascending)
    return search.found()


@dataclass
class _Search:
    """The circuit so far; the same in every process, whose batches are its share."""

    checkpoint: Checkpoint
    places: Places
    batches: list[PairBatch]
    replace: Replacement
    released: bool
    scale: float
    effects: dict[str, float] = field(default_factory=dict)
    runs: int = 0

    def __post_init__(self) -> None:
        self.edges = self.places.graph.edges.clone()
        self.silent: set[int] = set()
        self.replaced: list[Replaced] = []
        self.others: list[dict[int, Tensor]] = []
        for batch in self.batches:
            ends = Ends.of(self.checkpoint, self.places, batch)
            self.replaced.append(Replaced.of(self.places, batch, ends, self.replace))
            self.others.append(self._projected(batch) if self.released else {})
        self.whole, self.now = 0.0, 0.0
        self.whole = self._metric()

    @property
    def graph(self) -> Graph:
        return self.places.graph

    def found(self) -> Kept:
        """What is left."""
        direct = tuple(
            name
            for number, name in enumerate(self.graph.readers)
            if "<" in name and number not in self.silent and self._connected(number)
        )
        return Kept(Circuit(self.graph, self.edges), direct, self.effects, self.now, self.runs)

    def itself(self, reader: int, least: float) -> None:
        """Try whether a query, key or value may be another's."""
        if self._connected(reader):
            self.silent.add(reader)
            if not self._missed(self.graph.readers[reader], least):
                return
            self.silent.discard(reader)

    def writers_of(self, reader: int, least: float, heads_ascending: bool) -> None:
        """Try every edge into a reader."""
        if reader in self.silent or not self._connected(reader):
            self.edges[:, reader] = False
            return
        for writer in _order(self.graph, int(self.graph.reach[reader]), heads_ascending):
            self.edges[writer, reader] = False
            if self._missed(self.graph.edge_name(writer, reader), least):
                self.edges[writer, reader] = True

    def _missed(self, name: str, least: float) -> bool:
        """Whether the metric rises by what was just cut; else it stays cut."""
        new = self._metric()
        rise = new - self.now
        if rise < least:
            self.now = new
            return False
        self.effects[name] = rise
        return True

    def _connected(self, reader: int) -> bool:
        nodes = self.graph.entries[:, reader]
        return bool(nodes[-1]) or bool(self.edges[nodes[:-1]].any())

    @torch.no_grad()
    def _metric(self) -> float:
        circuit, total = Circuit(self.graph, self.edges), torch.zeros(1, dtype=torch.float64)
        for batch, replaced, others in zip(self.batches, self.replaced, self.others, strict=True):
            silenced = [(reader, others[reader]) for reader in self.silent]
            logits = run_circuit(self.checkpoint, self.places, batch, circuit, replaced, silenced=silenced)
            right = torch.tensor([pair.right[0] for pair in batch.pairs], device=logits.device)
            logprobs = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
            total -= logprobs.gather(1, right[:, None]).double().sum().cpu()
            self.runs += 1
        processes.add_up([total])
        return total.item() * self.scale - self.whole

    @torch.no_grad()
    def _projected(self, batch: PairBatch) -> dict[int, Tensor]:
        """The queries, keys and values that stand in for a batch's, [pair, pos, width] by reader.

        Those of the corrupted prompts; or what is made of the stream that is left when no node writes.
        """
        places, seen = self.places, dict[str, Tensor]()
        sites = [HookSite(path, path, "output") for block in places.blocks for path in projection_paths(block)]
        with evaluating(places.model), watching(places.model, sites, seen.__setitem__, stop=False):
            last_logits(self.checkpoint, batch.corrupted)
        found = {}
        for number, block in enumerate(places.blocks):
            for letter in LETTERS:
                projection = block.projections[letter]
                values = projection.of(seen[projection.path].reshape(*batch.shape, -1))
                if self.replace == "zero":
                    values = places.unwritten(number, letter).expand_as(values)
                for head in range(projection.heads):
                    found[self.graph.reader(number, letter, head)] = values[:, :, head]
        return found


def _order(graph: Graph, reach: int, heads_ascending: bool) -> list[int]:
    """The writers of a reader of some reach, in the order in which they are tried."""
    found = []
    for block in range(graph.blocks - 1, -1, -1):
        heads = [graph.head(block, head) for head in range(graph.heads)]
        found += [graph.head(block, graph.heads), *(heads if heads_ascending else reversed(heads))]
    return [writer for writer in [*found, 0] if writer < reach]
