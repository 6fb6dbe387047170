"""Edge attribution patching: what an edge is worth, to first order, from a few passes for all edges at once.

    s(u -> v) = mean over pairs, sum over positions of (z_u(corrupted) - z_u(clean)) . g_v
    g_v = d loss / d input of v

with loss = - metric, so that s > 0 says: putting the corrupted writer into the edge lowers the metric; the edge
supports the behaviour. One step takes g on the clean prompt (EAP; Nanda 2023, Syed et al. 2023); m steps take its mean
at e_corrupted + k/m (e_clean - e_corrupted), k = 1..m, of the stream before block 0, everything above recomputed
(EAP-IG; Hanna et al. 2024). Then the edges out of `input` sum up to metric(clean) - metric(corrupted) as m grows:
completeness.

g_v follows from the gradient at the output of the query, key and value matrices (G = rows of the head's matrix,
transposed, times it) and of the norms, pulled back through the norm in front (its vector-Jacobian product), a block at
a time.

It is a derivative: what an edge does when it is really cut, running the circuit shows (`faithfulness`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.audit.circuits.batches import PairBatch, TokenPair, check_pairs, pair_batches, room
from mechinterp.audit.circuits.graph import LETTERS, Graph
from mechinterp.audit.circuits.places import Places, projection_paths
from mechinterp.audit.circuits.projections import wide_type
from mechinterp.audit.circuits.scores import EdgeScores
from mechinterp.audit.circuits.writes import Ends, last_logits, starting_from
from mechinterp.errors import InputError
from mechinterp.methods.editing.descent import ready
from mechinterp.models import processes
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.watching import Progress, watching
from mechinterp.models.text.batches import token_budget

logger = logging.getLogger(__name__)

STEPS = 5
"""Of the integration, where nobody says how many."""

Matrix = Float[Tensor, "writer reader"]


def find_circuit(
    checkpoint: Checkpoint,
    pairs: Sequence[TokenPair],
    *,
    steps: int = STEPS,
    max_tokens: int | None = None,
    progress: Progress | None = None,
) -> EdgeScores:
    """Score every edge of a model on pairs of prompts.

    Args:
        checkpoint: the model; left exactly as it was.
        pairs: a clean and a corrupted prompt of the same number of tokens each.
        steps: of the integration; 1 is plain attribution patching. A pair takes one pass over both of its prompts, and
            a forward and a backward pass for each step; steps share a batch where there is room.
        max_tokens: padded tokens of a batch, see `pair_batches`.
        progress: called with (pairs done, pairs in all) of this process's share.

    Returns:
        Scores of all edges; a warning says where they are not complete.

    Raises:
        InputError: for pairs of unequal length, no step, an architecture for which circuits are not defined, or scores
            that are not finite.
    """
    check_pairs(pairs)
    places = Places.of(checkpoint)
    total = torch.zeros(len(places.graph.writers), len(places.graph.readers), dtype=torch.float64)
    metrics: list[tuple[int, float, float]] = []
    for batch in pair_batches(checkpoint, places.graph, pairs, max_tokens):
        ends = Ends.of(checkpoint, places, batch)
        difference = ends.difference(places, batch.differing)
        total += score_batch(checkpoint, places, batch, ends, [difference], fractions(steps))[0]
        metrics += zip(batch.numbers, ends.clean_metric.tolist(), ends.corrupted_metric.tolist(), strict=True)
        if progress is not None:
            progress(len(metrics), len(pairs))
    processes.add_up([total])
    return edge_scores(checkpoint, places, total / len(pairs), processes.gather(metrics), steps)


def edge_scores(
    checkpoint: Checkpoint,
    places: Places,
    scores: Matrix,
    metrics: list[tuple[int, float, float]],
    steps: int,
    *,
    quiet: bool = False,
) -> EdgeScores:
    """The result of some scores, with a warning where they are not complete, unless it is to be quiet."""
    if not bool(torch.isfinite(scores).all()):
        raise InputError(f"{checkpoint.source}: scores are not finite; use a wider type (`dtype=float32`)")
    _, clean, corrupted = map(tuple, zip(*sorted(metrics), strict=True))
    found = EdgeScores(places.graph, scores, clean, corrupted, steps, checkpoint.name, checkpoint.fingerprint)
    if not (found.complete or quiet):
        logger.warning(
            "%s: the edges out of the input make up %.2f of the metric's gap of %.3g; take more `steps`",
            checkpoint.name,
            found.completeness,
            found.gap,
        )
    return found


def fractions(steps: int) -> tuple[float, ...]:
    """Where along the way from corrupted to clean gradients are taken.

    Raises:
        InputError: for no step.
    """
    if steps < 1:
        raise InputError(f"the number of steps must be at least 1, got {steps}")
    return tuple((step + 1) / steps for step in range(steps))


def score_batch(
    checkpoint: Checkpoint,
    places: Places,
    batch: PairBatch,
    ends: Ends,
    differences: Sequence[Float[Tensor, "writer pair pos d_model"]],
    points: Sequence[float],
) -> Float[Tensor, "difference writer reader"]:
    """Sums over a batch's pairs of writers' differences times the readers' mean gradients.

    Args:
        checkpoint, places: whose gradients.
        batch: the pairs.
        ends: of the same checkpoint.
        differences: of the writers' writes, at the columns that differ; several where another model's are asked too.
        points: where the gradients are taken, 0 the corrupted and 1 the clean stream.

    Returns:
        float64 on the host.
    """
    graph = places.graph
    found = torch.zeros(len(differences), len(graph.writers), len(graph.readers), dtype=torch.float64)
    at_once = points_at_once(checkpoint, graph, batch)
    for first_point in range(0, len(points), at_once):
        some = points[first_point : first_point + at_once]
        many = PairBatch.of(checkpoint, batch.pairs * len(some), range(len(some) * len(batch.pairs)))
        start = torch.cat([torch.lerp(ends.corrupted["input"], ends.clean["input"], point) for point in some])
        seen: dict[str, Tensor] = {}
        with ready(places.model), watching(places.model, places.read(), seen.__setitem__, stop=False):
            with starting_from(places, start.requires_grad_()):
                loss = -many.metric(last_logits(checkpoint, many.clean)).sum()
            at = [name for name in seen if not name.startswith(("before", "middle")) and name != "last"]
            gradients = dict(zip(at, torch.autograd.grad(loss, [seen[name] for name in at]), strict=True))
        for first, gradient in reader_gradients(places, many, seen, gradients):
            readers = slice(first, first + len(gradient))
            reach = int(graph.reach[first])
            summed = gradient.unflatten(1, (len(some), -1)).sum(1).flatten(1).T
            for number, difference in enumerate(differences):
                own = difference[:reach].flatten(1)
                found[number, :reach, readers] += (own @ summed.to(own)).double().cpu()
    return found / len(points)


def points_at_once(checkpoint: Checkpoint, graph: Graph, batch: PairBatch) -> int:
    """How many points of the integration share a pass: as fit the device, one at least."""
    pairs, width = batch.shape
    numbers = 4 * checkpoint.names.d_model * pairs * width
    readers = graph.readers_of_attention * numbers  # the gradients of one block's readers
    kept = 24 * checkpoint.n_blocks * numbers  # by a pass for its gradients, about
    most = room(checkpoint.device)
    return max(1, min(token_budget(checkpoint.device) // (pairs * width), most // readers, 2 * most // kept))


def reader_gradients(
    places: Places, batch: PairBatch, seen: Mapping[str, Tensor], gradients: Mapping[str, Tensor]
) -> Iterator[tuple[int, Float[Tensor, "reader pair pos d_model"]]]:
    """The gradients at the readers' inputs, those of one norm at a time, with the number of the first of them.

    Args:
        places: where everything is.
        batch: that was read.
        seen: streams in front of the norms.
        gradients: at the outputs of projections and norms.
    """

    def cut(value: Tensor) -> Float[Tensor, "pair pos d"]:
        part = value.detach().reshape(*batch.shape, -1)[:, batch.differing]
        return part.to(wide_type(part.dtype))

    for number, block in enumerate(places.blocks):
        whole = {path: cut(gradients[path]) for path in projection_paths(block)}
        pulled = []
        for letter in LETTERS:
            projection = block.projections[letter]
            own = projection.of(whole[projection.path])
            pulled.append(torch.einsum("bthw,hwd->bthd", own, projection.rows(own.dtype)))
        stream = cut(seen[f"before{number}"])
        yield (
            places.graph.reader(number),
            _through(places, block.attention_norm, stream, torch.cat(pulled, dim=2)),
        )
        after = cut(gradients[f"normed{number}"])[:, :, None]
        stream = cut(seen[f"middle{number}"])
        yield places.graph.reader(number, "m"), _through(places, block.mlp_norm, stream, after)
    after = cut(gradients["normed_last"])[:, :, None]
    yield len(places.graph.readers) - 1, _through(places, places.final_norm, cut(seen["last"]), after)


def _through(
    places: Places,
    norm: str,
    stream: Float[Tensor, "pair pos d_model"],
    after: Float[Tensor, "pair pos reader d_model"],
) -> Float[Tensor, "reader pair pos d_model"]:
    """Gradients behind a norm, pulled back to the stream in front of it."""
    with torch.enable_grad():
        copies = stream[:, :, None].expand_as(after).detach().requires_grad_()
        (before,) = torch.autograd.grad(places.normed(norm, copies), copies, after)
    return before.permute(2, 0, 1, 3)
