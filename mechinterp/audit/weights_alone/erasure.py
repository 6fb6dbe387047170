"""The mechanism as far as the weights tell it: no model is built, one block's W_V is read at a time.

    toxicity of a region                T = mean_j cos(v_j, w)
    erasure at the base's activations   sum_j a_j (g'_j - g_j) + (b' - b),   g = W_V w_hat

b is the output bias along w_hat and a the base's mean h_down, from a saved recording: the second line is the change of
the base's mean write if the parameters of that block changed and everything that flows into it stayed. It is not the
erasure of `decomposition`, which weighs the same difference with the mean of both models' activations; the two differ
by half of sum_j (a'_j - a_j)(g'_j - g_j), and are equal where a' = a or g' = g: in every block, if one W_V was edited.

What this does not show: what flows into the regions of the tuned model, that is any bypass, nor whether the direction
matters for what is said. Both need forward passes (`mechinterp compare`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.errors import InputError
from mechinterp.measures.intervals import Interval
from mechinterp.measures.large_matrices import products_and_lengths
from mechinterp.measures.region import cosines
from mechinterp.measures.statistics import bootstrap
from mechinterp.models.files.weights import LazyWeights
from mechinterp.models.names import h_down
from mechinterp.models.passes.recorded import Recording


def block_cosines(weights: LazyWeights, block: int, direction: Float[Tensor, " d_model"]) -> Float[Tensor, " d_mlp"]:
    """Cosine of every value vector of a block with a direction, float64; their mean is the region's toxicity T.

    Only that block's W_V is read, in small pieces: memory is that of the tensor as stored and little more.

    Raises:
        InputError: for a block that is out of range or has no single W_V, a direction of another width, or weights
            that are not finite.
    """
    return finite_cosines(weights, block, value_matrix(weights, block, len(direction)), direction)


@dataclass(frozen=True)
class ErasureAtBase:
    """What a change of one block's parameters does to the mean write at the base's own activations.

    Attributes:
        write_base: the base's mean write, [direction].
        erasure: sum_j a_j (g'_j - g_j) + (b' - b) with a 95% interval over inputs, one for each direction.
        bias: b' - b, [direction].
    """

    write_base: Float[Tensor, " direction"]
    erasure: tuple[Interval, ...]
    bias: Float[Tensor, " direction"]


def erasure_at_base(
    base: LazyWeights,
    tuned: LazyWeights,
    block: int,
    recording: Recording,
    directions: Float[Tensor, "direction d_model"],
    *,
    seed: int,
) -> ErasureAtBase:
    """Erasure of one block at the base's own mean activations, along several directions; see the head of this file.

    Args:
        recording: of the base, with h_down of the block.
        directions: one in each row; of any length.
        seed: of the bootstrap over groups of inputs.

    Raises:
        InputError: if the recording lacks the block, is of other sizes, or holds values that are not finite.
    """
    units = directions.double() / directions.double().norm(dim=1, keepdim=True)
    groups, sizes = group_means(recording, block), recording.group_sizes.double()
    readouts, biases = [], []
    for weights in (base, tuned):
        values = value_matrix(weights, block, units.shape[1])
        if len(values) != groups.shape[1]:
            raise InputError(
                f"{weights.source}: block {block} has {len(values)} neurons, the recording of "
                f"{recording.checkpoint or 'the base'} {groups.shape[1]}"
            )
        readouts.append(products_and_lengths(values, units)[0])
        biases.append(units @ weights.value_bias(block).double())
    change, bias = readouts[1] - readouts[0], biases[1] - biases[0]
    mean = sizes @ groups / sizes.sum()
    by_group = groups @ change.T + bias
    return ErasureAtBase(
        write_base=readouts[0] @ mean + biases[0],
        erasure=tuple(
            bootstrap(lambda draws, column=column: draws @ column, len(sizes), seed=seed, sizes=sizes)  # type: ignore[misc]
            for column in by_group.T
        ),
        bias=bias,
    )


def value_matrix(weights: LazyWeights, block: int, width: int) -> Float[Tensor, "d_mlp d_model"]:
    """W_V of a block, for directions of this width."""
    check_shape(weights, weights, block, width)
    return weights.value_matrix(block)


def check_shape(weights: LazyWeights, base: LazyWeights, block: int, width: int) -> None:
    """Refuse another architecture, or a block that does not fit the base or the direction, from headers alone."""
    kinds = [each.names.config.model_type for each in (weights, base)]
    if kinds[0] != kinds[1]:
        raise InputError(
            f"{weights.source} cannot be compared with {base.source}: they have different architectures "
            f"({kinds[0]}, {kinds[1]})"
        )
    if weights.names.n_blocks != base.names.n_blocks:
        raise InputError(
            f"{weights.source} cannot be compared with {base.source}: it has {weights.names.n_blocks} blocks, the base "
            f"{base.names.n_blocks}"
        )
    if width != weights.names.d_model:
        raise InputError(
            f"{weights.source}: its residual stream has width {weights.names.d_model}, the direction {width}; "
            "the probe is of another model"
        )
    shapes = [each.shape(each.names.value_parameter(block)[0]) for each in (weights, base)]
    if shapes[0] != shapes[1]:
        raise InputError(
            f"{weights.source} cannot be compared with {base.source}: W_V of block {block} is stored as {shapes[0]} "
            f"and {shapes[1]}"
        )


def finite_cosines(
    weights: LazyWeights, block: int, values: Float[Tensor, "d_mlp d_model"], direction: Float[Tensor, " d_model"]
) -> Float[Tensor, " d_mlp"]:
    """Cosines of a block's value vectors, or which checkpoint is damaged."""
    if not (torch.isfinite(direction).all() and direction.any()):
        raise InputError("the toxic direction is zero or not finite, so there are no cosines with it")
    found = cosines(values, direction)
    if bad := int((~torch.isfinite(found)).sum()):
        raise InputError(
            f"{weights.source}: block {block} has {bad} value vectors with NaN or infinite values; "
            "the checkpoint is damaged"
        )
    return found


def group_means(recording: Recording, block: int) -> Float[Tensor, "group d_mlp"]:
    """Group means of a block's h_down, or why there are none to use."""
    hook = h_down(block)
    if hook not in recording.groups:
        raise InputError(f"the recording has no {hook}; record h_down of every block that is asked for")
    if bad := recording.non_finite.get(hook, 0):
        raise InputError(f"the recording has {bad} NaN or infinite values at {hook}; record it in a wider type")
    return recording.groups[hook].double()
