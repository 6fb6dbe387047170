"""How much of a behaviour a circuit carries by itself, beside random circuits of the same size.

    recovered = mean over pairs (m - m_corrupted) / mean over pairs (m_clean - m_corrupted)

the means divided, never the mean of ratios. 1: the circuit alone does what the model does; 0: it does nothing. It can
be below 0 and above 1. It is of the corrupted prompt's metric whatever edges outside the circuit carry: under another
replacement an empty circuit recovers something too, as the random ones beside it show. A circuit that recovers much is
enough; that every edge of it is needed is not said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.audit.circuits.batches import TokenPair, check_pairs, pair_batches
from mechinterp.audit.circuits.circuit import Circuit
from mechinterp.audit.circuits.means import mean_writes
from mechinterp.audit.circuits.places import Places
from mechinterp.audit.circuits.running import REPLACEMENTS, Replaced, Replacement, run_circuit
from mechinterp.audit.circuits.writes import Ends
from mechinterp.errors import InputError, near
from mechinterp.measures.statistics import bootstrap
from mechinterp.models import processes
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.watching import Progress

RANDOM = 20
"""Random circuits of each size."""


@dataclass(frozen=True, eq=False)
class Measured:
    """The metric of every pair when circuits run alone.

    Attributes:
        clean, corrupted: of the whole model.
        alone: of each circuit.
    """

    clean: Float[Tensor, " pair"]
    corrupted: Float[Tensor, " pair"]
    alone: Float[Tensor, "circuit pair"]

    def recovered(self, circuit: int) -> float:
        """What a circuit recovers; NaN where the model itself makes no difference."""
        return self.share(circuit, torch.full((1, len(self.clean)), 1 / len(self.clean), dtype=torch.float64)).item()

    def share(self, circuit: int, weights: Float[Tensor, "resample pair"]) -> Float[Tensor, " resample"]:
        """The same for weighted means over the pairs."""
        gap = weights @ (self.clean - self.corrupted)
        found = weights @ (self.alone[circuit] - self.corrupted) / gap
        return torch.where(gap == 0, torch.nan, found)


def run_alone(
    checkpoint: Checkpoint,
    pairs: Sequence[TokenPair],
    circuits: Sequence[Circuit],
    *,
    replace: Replacement = "corrupted",
    held_out: Sequence[TokenPair] = (),
    max_tokens: int | None = None,
    progress: Progress | None = None,
) -> Measured:
    """The metric of every pair when each circuit runs alone; a forward pass for each circuit, of every batch.

    Args:
        checkpoint: the model; left exactly as it was.
        pairs: a clean and a corrupted prompt of the same number of tokens each.
        circuits: of the model's graph.
        replace: what edges outside carry: the `corrupted` prompt's writes, their `mean` over other pairs, or `zero`.
        held_out: the pairs that the mean is of.
        max_tokens: padded tokens of a batch.
        progress: called with (passes done, passes in all) of one batch after the other.

    Raises:
        InputError: as `find_circuit`, for a circuit of another graph, an unknown replacement, or as `mean_writes`.
    """
    if replace not in REPLACEMENTS:
        raise InputError(f"replace must be one of {REPLACEMENTS}, got {replace!r}{near(replace, REPLACEMENTS)}")
    check_pairs(pairs)
    places = Places.of(checkpoint)
    if any(circuit.graph != places.graph for circuit in circuits):
        raise InputError(f"a circuit is of another graph than {checkpoint.source}: it has other blocks or heads")
    means = mean_writes(checkpoint, held_out, pairs, max_tokens=max_tokens) if replace == "mean" else None
    found: list[tuple[int, float, float, list[float]]] = []
    for batch in pair_batches(checkpoint, places.graph, pairs, max_tokens):
        ends = Ends.of(checkpoint, places, batch)
        replaced = Replaced.of(places, batch, ends, replace, means)
        alone = []
        for number, circuit in enumerate(circuits):
            logits = run_circuit(checkpoint, places, batch, circuit, replaced)
            alone.append(batch.metric(logits).double().cpu())
            if progress is not None:
                progress(number + 1, len(circuits))
        values = torch.stack(alone, dim=1).tolist() if alone else [[]] * len(batch.pairs)
        ends_of_pairs = ends.clean_metric.tolist(), ends.corrupted_metric.tolist()
        found += zip(batch.numbers, *ends_of_pairs, values, strict=True)
    _, clean, corrupted, of_circuits = zip(*sorted(processes.gather(found)), strict=True)
    alone_by_pair = torch.tensor(of_circuits, dtype=torch.float64).reshape(len(pairs), len(circuits))
    return Measured(
        torch.tensor(clean, dtype=torch.float64), torch.tensor(corrupted, dtype=torch.float64), alone_by_pair.T
    )


def faithfulness(
    checkpoint: Checkpoint,
    circuits: Mapping[str, Circuit],
    pairs: Sequence[TokenPair],
    *,
    replace: Replacement = "corrupted",
    held_out: Sequence[TokenPair] = (),
    random: int = RANDOM,
    seed: int = 0,
    max_tokens: int | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """What circuits recover, beside random ones of the same number of edges.

    Args:
        checkpoint, pairs, replace, held_out, max_tokens, progress: as `run_alone` takes them.
        circuits: by name.
        random: circuits of each size, drawn with as many seeds from `seed` on.
        seed: of these, and of the intervals over pairs.

    Returns:
        A row per circuit: circuit, edges, share (of all edges), nodes, n (pairs), clean, corrupted and alone (means of
        the metric), recovered with its interval, and of the random circuits the mean, least and most recovered.
    """
    sizes = dict.fromkeys(len(circuit) for circuit in circuits.values())
    graph = next(iter(circuits.values())).graph if circuits else None
    drawn = [(size, Circuit.random(graph, size, seed=seed + draw)) for size in sizes for draw in range(random) if graph]
    every = [*circuits.values(), *(circuit for _, circuit in drawn)]
    how = {"replace": replace, "held_out": held_out, "max_tokens": max_tokens, "progress": progress}
    measured = run_alone(checkpoint, pairs, every, **how)  # type: ignore[arg-type]
    by_size: dict[int, list[float]] = {size: [] for size in sizes}
    for number, (size, _) in enumerate(drawn, len(circuits)):
        by_size[size].append(measured.recovered(number))
    rows = []
    for number, (name, circuit) in enumerate(circuits.items()):
        others = pd.Series(by_size[len(circuit)], dtype=float)
        recovered = bootstrap(lambda weights, own=number: measured.share(own, weights), len(pairs), seed=seed)  # type: ignore[misc]
        rows.append(
            {
                "circuit": name,
                "edges": len(circuit),
                "share": len(circuit) / circuit.graph.n_edges,
                "nodes": int(circuit.in_circuit.sum()),
                "n": len(pairs),
                "clean": float(measured.clean.mean()),
                "corrupted": float(measured.corrupted.mean()),
                "alone": float(measured.alone[number].mean()),
                **recovered.columns("recovered"),
                "random": others.mean(),
                "random_least": others.min(),
                "random_most": others.max(),
            }
        )
    return pd.DataFrame(rows)
