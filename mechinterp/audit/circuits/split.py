"""Why an edge is worth something else to a tuned model: what is written, or how it is read. Exact, edge by edge.

    s' - s = <D' - D, (g + g') / 2>  +  <(D + D') / 2, g' - g>
              what is written            how it is read

D, g the writers' differences and the readers' gradients of the base, D', g' of the tuned model, on the same pairs;
summed over positions, averaged over pairs. The four products D g, D' g, D g', D' g' are all that is kept. The middle of
the two models on either side makes the split symmetric: seen from the tuned model it is the same with its sign turned.
A weight that changes at one node changes what every node after it writes and reads, so the split says what happens
*along* an edge and not which weights did it (`origins`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.audit.circuits.batches import TokenPair, check_pairs, pair_batches
from mechinterp.audit.circuits.places import Places
from mechinterp.audit.circuits.scores import EdgeScores
from mechinterp.audit.circuits.scoring import STEPS, edge_scores, fractions, score_batch
from mechinterp.audit.circuits.writes import Ends
from mechinterp.errors import InputError
from mechinterp.models import processes
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.watching import Progress


@dataclass(frozen=True, eq=False)
class EdgeSplit:
    """A tuned model's scores beside its base's, with their difference in two parts.

    Attributes:
        base, tuned: the scores of both on the same pairs.
        written, read: of every edge; their sum is the difference of the two scores.
    """

    base: EdgeScores
    tuned: EdgeScores
    written: Float[Tensor, "writer reader"]
    read: Float[Tensor, "writer reader"]


def split_circuit(
    base: Checkpoint,
    tuned: Checkpoint,
    pairs: Sequence[TokenPair],
    *,
    steps: int = STEPS,
    max_tokens: int | None = None,
    quiet: bool = False,
    progress: Progress | None = None,
) -> EdgeSplit:
    """Score every edge of a base and of a tuned model, and split what is between them.

    Args:
        base, tuned: of the same shape, in memory together; left exactly as they were.
        pairs: a clean and a corrupted prompt of the same number of tokens each.
        steps: of the integration.
        max_tokens: padded tokens of a batch; twice the writes of one model are held.
        quiet: warn of no scores that are not complete; of the base's it is warned where it is scored by itself.
        progress: called with (pairs done, pairs in all) of this process's share.

    Raises:
        InputError: as `find_circuit`, or for models of different shapes.
    """
    check_pairs(pairs)
    models = (base, tuned)
    places = [Places.of(model) for model in models]
    graph = places[0].graph
    if places[1].graph != graph or base.names.d_model != tuned.names.d_model:
        raise InputError(
            f"{tuned.source} has other blocks or heads than {base.source}: edges cannot be set side by side"
        )
    products = torch.zeros(2, 2, len(graph.writers), len(graph.readers), dtype=torch.float64)  # [reading, writing]
    metrics: list[list[tuple[int, float, float]]] = [[], []]
    for batch in pair_batches(base, graph, pairs, max_tokens):
        ends = [Ends.of(model, place, batch) for model, place in zip(models, places, strict=True)]
        differences = [
            each.difference(place, batch.differing).to(base.device) for each, place in zip(ends, places, strict=True)
        ]
        for number, (model, place, own) in enumerate(zip(models, places, ends, strict=True)):
            products[number] += score_batch(model, place, batch, own, differences, fractions(steps))
            metrics[number] += zip(batch.numbers, own.clean_metric.tolist(), own.corrupted_metric.tolist(), strict=True)
        if progress is not None:
            progress(len(metrics[0]), len(pairs))
    processes.add_up([products])
    products = products / len(pairs)
    (own, of_tuned_writes), (by_tuned_reads, both) = products
    scores = [
        edge_scores(model, place, values, processes.gather(of_model), steps, quiet=quiet or model is base)
        for model, place, values, of_model in zip(models, places, (own, both), metrics, strict=True)
    ]
    written = (of_tuned_writes - own + (both - by_tuned_reads)) / 2
    read = (by_tuned_reads - own + (both - of_tuned_writes)) / 2
    return EdgeSplit(scores[0], scores[1], written, read)
