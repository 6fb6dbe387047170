"""The value vectors of a base that lie closest to some directions, what they say, and what became of them in tuning.

Weights alone, one block in memory at a time, from a model or from its files: see `measures.value_vectors` for what the
numbers are and what they do not show. Whether the neurons of these vectors are active takes recordings.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mechinterp.errors import InputError, near
from mechinterp.measures.value_vectors import (
    RANKINGS,
    RankedVectors,
    Ranking,
    Subspace,
    along,
    drift,
    rank_along,
    subspace,
    wide,
)
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.files.weights import LazyWeights
from mechinterp.models.unembedding import TopTokens, top_tokens

Weights = Checkpoint | LazyWeights
Place = tuple[int, int]
"""(block, neuron), both from 0."""


@dataclass(frozen=True)
class TopVectors:
    """The base's value vectors closest to each direction.

    Attributes:
        source: what the base was opened from.
        directions: name -> direction, [d_model].
        ranked: by (name of the direction, ranking), the closest first.
        tokens: in the same order, what each vector says through the base's unembedding; empty if not asked for.
        subspaces: by name of the direction, SVD of its top vectors by cosine (by projection if that alone was ranked).
        subspace_tokens: what each of the first components says; empty if not asked for.
    """

    source: str
    directions: Mapping[str, Float[Tensor, " d_model"]]
    ranked: Mapping[tuple[str, Ranking], RankedVectors]
    tokens: Mapping[tuple[str, Ranking], tuple[TopTokens, ...]]
    subspaces: Mapping[str, Subspace]
    subspace_tokens: Mapping[str, tuple[TopTokens, ...]]

    @property
    def places(self) -> tuple[Place, ...]:
        """(block, neuron) of every vector in any list, once, sorted: what is to be read of the tuned checkpoints."""
        return tuple(sorted({place for ranked in self.ranked.values() for place in ranked.places}))

    def top(self, direction: str, k: int, by: Ranking = "cosine") -> tuple[Place, ...]:
        """(block, neuron) of the k vectors closest to a direction, the closest first."""
        if (direction, by) not in self.ranked:
            meant = near(direction, (name for name, _ in self.ranked))
            raise InputError(
                f"nothing was ranked along {direction!r} by {by!r}; there are {sorted(self.ranked)}{meant}"
            )
        return self.ranked[direction, by].places[:k]


def find_vectors(
    weights: Weights,
    directions: Mapping[str, Float[Tensor, " d_model"]],
    *,
    top: int = 128,
    tokens: int = 10,
    components: int = 10,
    rankings: Sequence[Ranking] = RANKINGS,
    final_norm: bool = False,
    tokenizer: PreTrainedTokenizerBase | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> TopVectors:
    """The value vectors of a base closest to each direction, over all blocks, with their top tokens and their subspace.

    Args:
        weights: the base: a model, or the files of one.
        directions: name -> direction, of any length.
        top: vectors in each list.
        tokens: tokens of each vector at either end; 0 for none.
        components: singular vectors whose tokens are looked up.
        rankings: of `cosine` and `projection`.
        final_norm: whether vectors pass the final norm's gain before the unembedding.
        tokenizer: for files, which have none of their own.
        progress: called with (blocks done, blocks in all).

    Raises:
        InputError: for a direction that is zero, not finite or of another width, an unknown ranking, weights that are
            not finite, or blocks without a single W_V.
    """
    source = weights.names.source
    for name, direction in directions.items():
        if direction.shape != (weights.names.d_model,):
            raise InputError(
                f"the direction {name!r} has shape {tuple(direction.shape)}, the residual stream of {source} width "
                f"{weights.names.d_model}; it is of another model"
            )
    try:
        ranked = rank_along(_value_matrices(weights, progress), directions, rankings=rankings, top=top)
    except InputError as error:
        raise error if source in str(error) else InputError(f"{source}: {error}") from error
    of_subspace = "cosine" if "cosine" in rankings else rankings[0]
    subspaces = {name: subspace(ranked[name, of_subspace].vectors, directions[name]) for name in directions}

    def said(vectors: Tensor) -> tuple[TopTokens, ...]:
        if not tokens:
            return ()
        return top_tokens(weights, vectors, k=tokens, final_norm=final_norm, tokenizer=tokenizer)

    return TopVectors(
        source,
        dict(directions),
        ranked,
        {key: said(found.vectors) for key, found in ranked.items()},
        subspaces,
        {name: said(found.components[:components]) for name, found in subspaces.items()},
    )


def _value_matrices(
    weights: Weights, progress: Callable[[int, int], None] | None
) -> Iterator[tuple[int, Float[Tensor, "d_mlp d_model"]]]:
    n_blocks = weights.names.n_blocks
    for block in range(n_blocks):
        yield block, weights.value_matrix(block)
        if progress is not None:
            progress(block + 1, n_blocks)


def vectors_at(weights: Weights, blocks: Sequence[int], neurons: Sequence[int]) -> Float[Tensor, "k d_model"]:
    """Some value vectors of a checkpoint, in the order given; every block is read once.

    Args:
        weights: a model, or the files of one.
        blocks, neurons: where each vector is, both from 0.

    Returns:
        In float32 or the wider type of the weights, on the CPU.

    Raises:
        InputError: for places that the model does not have.
    """
    if len(blocks) != len(neurons):
        raise InputError(f"{len(blocks)} blocks but {len(neurons)} neurons: a place is one of each")
    rows: dict[int, Tensor] = {}
    for block in sorted(set(blocks)):
        weights.names.check_block(block)
        values = weights.value_matrix(block)
        wanted = [i for i, other in enumerate(blocks) if other == block]
        if outside := sorted({neurons[i] for i in wanted if not 0 <= neurons[i] < len(values)}):
            raise InputError(
                f"{weights.names.source}: block {block} has neurons 0 to {len(values) - 1}, there is no {outside[0]}"
            )
        found = wide(values[torch.tensor([neurons[i] for i in wanted], device=values.device)]).cpu()
        rows.update(zip(wanted, found, strict=True))
    if not rows:
        return torch.empty(0, weights.names.d_model)
    return torch.stack([rows[i] for i in range(len(blocks))])


def vector_table(
    top: TopVectors,
    tuned: Mapping[str, Mapping[Place, Float[Tensor, " d_model"]]],
    *,
    activations: Mapping[str, Mapping[Place, float]] | None = None,
    base: str = "base",
) -> pd.DataFrame:
    """`value_vectors.csv`: each listed vector, what it says, and its drift in every tuned checkpoint.

    Args:
        top: of the base.
        tuned: label -> the same vectors of that checkpoint, at least those of `TopVectors.places`. If there is none,
            the table has the base alone under its label.
        activations: label (the base's too) -> mean h_down of each neuron; without them the two columns are left out.
        base: the base's label.

    Returns:
        A row for each tuned checkpoint, direction, ranking and rank (from 1): where the vector is, `cosine`,
        `projection` and `norm` in the base, `tokens` (JSON list), `cosine_tuned`, `projection_tuned`, `drift_cosine`,
        `drift_relative`, and `activation_base` and `activation`.
    """
    labels = list(tuned) or [base]
    frames = []
    for label in labels:
        for (direction, by), found in top.ranked.items():
            said = top.tokens[direction, by]
            columns: dict[str, object] = {
                "method": label,
                "direction": direction,
                "ranking": by,
                "rank": range(1, len(found.block) + 1),
                "block": found.block.tolist(),
                "neuron": found.neuron.tolist(),
                "cosine": found.cosine.tolist(),
                "projection": found.projection.tolist(),
                "norm": found.norm.tolist(),
                "tokens": [_listed(each.tokens) for each in said] or None,
            }
            if label in tuned:
                now = torch.stack([tuned[label][place] for place in found.places])
                cosine, projection = along(now, top.directions[direction])
                moved = drift(found.vectors, now)
                columns |= {
                    "cosine_tuned": cosine.tolist(),
                    "projection_tuned": projection.tolist(),
                    "drift_cosine": moved.cosine.tolist(),
                    "drift_relative": moved.relative.tolist(),
                }
            if activations is not None:
                for column, of in (("activation_base", base), ("activation", label)):
                    columns[column] = [activations[of][place] for place in found.places]
            frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)


def subspace_table(top: TopVectors, components: int = 10) -> pd.DataFrame:
    """`toxic_subspace.csv`: the first singular vectors of each direction's top value vectors.

    Returns:
        A row for each direction and component (from 1): `singular_value`, `variance_share`, `cosine_with_direction`,
        `tokens` and `tokens_opposite` (JSON lists; empty where tokens were not asked for).
    """
    rows = []
    for direction, found in top.subspaces.items():
        said = top.subspace_tokens[direction]
        for i in range(min(components, len(found.singular_values))):
            rows.append(
                {
                    "direction": direction,
                    "component": i + 1,
                    "singular_value": float(found.singular_values[i]),
                    "variance_share": float(found.variance_share[i]),
                    "cosine_with_direction": float(found.cosine_with_direction[i]),
                    "tokens": _listed(said[i].tokens) if i < len(said) else None,
                    "tokens_opposite": _listed(said[i].opposite) if i < len(said) else None,
                }
            )
    return pd.DataFrame(rows)


def _listed(tokens: Sequence[str]) -> str:
    return json.dumps(list(tokens), ensure_ascii=False)
