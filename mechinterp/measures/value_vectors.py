"""Value vectors one by one: ranked along a direction, their common subspace, and their drift (Lee et al. 3).

    cosine      cos(v_j, w)
    projection  v_j . w_hat,   w_hat = w / ||w||: what one unit of activation writes along w, so long vectors come first
    subspace    U S C^T of the k highest-ranked vectors, each scaled to length 1 and not centred; the components are C's
    drift       cos(v_j, v'_j) and ||v'_j - v_j|| / ||v_j|| between base and tuned

A rank says what a vector would write if its neuron were active. Whether it is, and whether what it writes matters,
takes activations and interventions; and among thousands of random vectors some lie close to any direction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechinterp.errors import InputError, near
from mechinterp.measures.large_matrices import products_and_lengths

Ranking = Literal["cosine", "projection"]
RANKINGS: tuple[Ranking, ...] = ("cosine", "projection")

_TINY = torch.finfo(torch.float64).tiny


def check_ranking(by: str) -> None:
    """Raise `InputError` for a ranking that does not exist."""
    if by not in RANKINGS:
        raise InputError(f"the ranking must be one of {RANKINGS}, got {by!r}{near(by, RANKINGS)}")


class TopNeurons:
    """The k neurons of the highest score, over blocks that are added one at a time; ties go by block, then neuron.

    Args:
        top: k.

    Raises:
        InputError: if k is not at least 1.
    """

    def __init__(self, top: int) -> None:
        if top < 1:
            raise InputError(f"the number of value vectors listed must be at least 1, got {top}")
        self.top = top
        self.block = torch.empty(0, dtype=torch.long)
        self.neuron = torch.empty(0, dtype=torch.long)
        self.score = torch.empty(0, dtype=torch.float64)
        self.columns: dict[str, Tensor] = {}

    def add(self, block: int, score: Float[Tensor, " d_mlp"], columns: Mapping[str, Tensor]) -> None:
        """Add the neurons of a block.

        Args:
            block: its number, from 0.
            score: of every neuron, finite.
            columns: what else to keep of the neurons that stay, first axis d_mlp; the same names for every block.
        """
        score = score.detach().cpu().double()
        best = score.sort(descending=True, stable=True).indices[: self.top]
        blocks = torch.cat([self.block, torch.full_like(best, block)])
        neurons, scores = torch.cat([self.neuron, best]), torch.cat([self.score, score[best]])
        kept = {name: values[best.to(values.device)].cpu() for name, values in columns.items()}
        if self.columns:
            kept = {name: torch.cat([self.columns[name], values]) for name, values in kept.items()}
        order = torch.from_numpy(np.lexsort((neurons.numpy(), blocks.numpy(), -scores.numpy()))[: self.top])
        self.block, self.neuron, self.score = blocks[order], neurons[order], scores[order]
        self.columns = {name: values[order] for name, values in kept.items()}


@dataclass(frozen=True)
class RankedVectors:
    """The value vectors that lie closest to a direction, over the blocks that were ranked; the closest first.

    Attributes:
        by: `cosine` or `projection`.
        block, neuron: where each is, both from 0, [k].
        cosine: cos(v, w) in [-1, 1], float64 [k]; 0 for a vector of length 0.
        projection: v . w_hat, in the unit of the weights, float64 [k].
        norm: ||v||, float64 [k].
        vectors: the value vectors, in float32 or the wider type of the weights, [k, d_model].
    """

    by: Ranking
    block: Int[Tensor, " k"]
    neuron: Int[Tensor, " k"]
    cosine: Float[Tensor, " k"]
    projection: Float[Tensor, " k"]
    norm: Float[Tensor, " k"]
    vectors: Float[Tensor, "k d_model"]

    @property
    def places(self) -> tuple[tuple[int, int], ...]:
        """(block, neuron) of each, in order."""
        return tuple(zip(self.block.tolist(), self.neuron.tolist(), strict=True))


def rank(
    blocks: Iterable[tuple[int, Float[Tensor, "d_mlp d_model"]]],
    direction: Float[Tensor, " d_model"],
    *,
    by: Ranking = "cosine",
    top: int = 128,
) -> RankedVectors:
    """The k value vectors closest to a direction, over all given blocks.

    Args:
        blocks: (number, W_V) of each block, from 0; one is held at a time.
        direction: w, of any length.
        by: `cosine` or `projection`.
        top: k; all, if there are fewer.

    Raises:
        InputError: for an unknown ranking, no blocks, a direction that is zero, not finite or of another width, or
            weights that are not finite.
    """
    check_ranking(by)
    return rank_along(blocks, {"w": direction}, rankings=[by], top=top)["w", by]


def rank_along(
    blocks: Iterable[tuple[int, Float[Tensor, "d_mlp d_model"]]],
    directions: Mapping[str, Float[Tensor, " d_model"]],
    *,
    rankings: Sequence[Ranking] = RANKINGS,
    top: int = 128,
) -> dict[tuple[str, Ranking], RankedVectors]:
    """`rank` along several directions and by several rankings, in one pass over the blocks.

    Returns:
        The ranked vectors by (name of the direction, ranking).

    Raises:
        InputError: as `rank`; also if there are no directions or rankings.
    """
    if not directions or not rankings:
        raise InputError("there is nothing to rank by: give at least one direction and one ranking")
    for by in rankings:
        check_ranking(by)
    units = torch.stack([unit(direction, name) for name, direction in directions.items()])
    found: dict[tuple[str, Ranking], TopNeurons] = {(n, by): TopNeurons(top) for n in directions for by in rankings}
    for block, values in blocks:
        if values.shape[1] != units.shape[1]:
            raise InputError(
                f"block {block}: value vectors of width {values.shape[1]} and directions of {units.shape[1]} do not fit"
            )
        products, lengths = products_and_lengths(values, units)
        if bad := int((~torch.isfinite(lengths)).sum()):
            raise InputError(f"block {block} has {bad} value vectors with NaN or infinite values")
        cosines = products / lengths.clamp_min(_TINY)
        for i, name in enumerate(directions):
            columns = {"cosine": cosines[i], "projection": products[i], "norm": lengths, "vectors": values}
            for by in rankings:
                found[name, by].add(block, columns[by], columns)
    if any(not len(neurons.block) for neurons in found.values()):
        raise InputError("there are no blocks to rank value vectors of")
    return {(name, by): _ranked(by, neurons) for (name, by), neurons in found.items()}


def _ranked(by: Ranking, neurons: TopNeurons) -> RankedVectors:
    columns = dict(neurons.columns)
    vectors = columns.pop("vectors")
    return RankedVectors(by, neurons.block, neurons.neuron, vectors=wide(vectors), **columns)


def wide(vectors: Float[Tensor, "*k d_model"]) -> Float[Tensor, "*k d_model"]:
    """In float32, or the wider type that they have; nothing is rounded."""
    return vectors.to(torch.promote_types(vectors.dtype, torch.float32))


def unit(direction: Float[Tensor, " d_model"], name: str = "the direction") -> Float[Tensor, " d_model"]:
    """w_hat in float64 on the CPU.

    Raises:
        InputError: for a direction that is zero or not finite.
    """
    direction = direction.detach().cpu().double()
    length = direction.norm()
    if not (torch.isfinite(length) and length > 0):
        raise InputError(f"{name} is zero or not finite, so nothing can be measured along it")
    return direction / length


def along(
    vectors: Float[Tensor, "k d_model"], direction: Float[Tensor, " d_model"]
) -> tuple[Float[Tensor, " k"], Float[Tensor, " k"]]:
    """Cosine and projection of vectors with a direction, float64; the cosine is 0 for a vector of length 0."""
    products, lengths = products_and_lengths(vectors, unit(direction))
    return products / lengths.clamp_min(_TINY), products


@dataclass(frozen=True)
class Subspace:
    """Singular vectors of a set of value vectors, the strongest first.

    Attributes:
        components: unit vectors in the residual stream, float64 [component, d_model].
        singular_values: float64 [component].
        variance_share: s^2 / sum of s^2, which sum to 1 (about the origin: nothing was centred).
        cosine_with_direction: in [0, 1], by the choice of sign.
    """

    components: Float[Tensor, "component d_model"]
    singular_values: Float[Tensor, " component"]
    variance_share: Float[Tensor, " component"]
    cosine_with_direction: Float[Tensor, " component"]


def subspace(vectors: Float[Tensor, "k d_model"], direction: Float[Tensor, " d_model"]) -> Subspace:
    """SVD of value vectors, each scaled to length 1, in float64.

    A singular vector has no sign of its own: each is turned to the side of the direction, so that its cosine with it is
    not negative. Where it stands at a right angle to it, the sum of its cosines with the vectors is positive; where
    that is zero too, its largest coordinate. Components of equal singular values are any basis of their span.

    Args:
        vectors: the k highest-ranked; those of length 0 count as 0.
        direction: w.

    Raises:
        InputError: if no vector has a length, or the direction is zero or not finite.
    """
    lengths = vectors.detach().cpu().double().norm(dim=1, keepdim=True)
    if not (torch.isfinite(lengths).all() and lengths.any()):
        raise InputError("the value vectors are all zero or not all finite; they span no subspace")
    units = vectors.detach().cpu().double() / lengths.clamp_min(_TINY)
    _, values, components = torch.linalg.svd(units, full_matrices=False)
    with_direction = components @ unit(direction)
    largest = components.gather(1, components.abs().argmax(1, keepdim=True))[:, 0]
    sign = torch.zeros_like(values)
    for candidate in (with_direction, (components @ units.T).sum(1), largest):
        clear = candidate.abs() > 1e-12
        sign = torch.where((sign == 0) & clear, candidate.sign(), sign)
    return Subspace(components * sign[:, None], values, values**2 / (values**2).sum(), (with_direction * sign).abs())


@dataclass(frozen=True)
class Drift:
    """How far each of some vectors moved.

    Attributes:
        cosine: cos(v, v'), float64 [k]; exactly 1 for a vector that did not move, 0 where one of the two has length 0.
        relative: ||v' - v|| / ||v||, float64 [k]; exactly 0 for one that did not move, infinite where v has length 0.
    """

    cosine: Float[Tensor, " k"]
    relative: Float[Tensor, " k"]


def drift(base: Float[Tensor, "k d_model"], tuned: Float[Tensor, "k d_model"]) -> Drift:
    """How far vectors moved from one checkpoint to another.

    Raises:
        InputError: if they are not as many, or of another width.
    """
    if base.shape != tuned.shape:
        raise InputError(f"vectors {tuple(base.shape)} and {tuple(tuned.shape)} are not the same ones")
    before, after = base.detach().cpu().double(), tuned.detach().cpu().double()
    lengths = before.norm(dim=1), after.norm(dim=1)
    turned = before / lengths[0].clamp_min(_TINY)[:, None] - after / lengths[1].clamp_min(_TINY)[:, None]
    # 1 - |u - u'|^2 / 2 keeps its digits near 1, where a product of the two would lose them
    cosine = torch.where((lengths[0] > 0) & (lengths[1] > 0), 1 - turned.square().sum(1) / 2, 0.0)
    moved = (after - before).norm(dim=1)
    return Drift(cosine, torch.where(moved > 0, moved / lengths[0], 0.0))
