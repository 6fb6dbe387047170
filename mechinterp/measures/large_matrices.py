"""Large matrices in small pieces: what is needed of a value matrix W_V, in float64, without a float64 copy of it.

    products            d . v_j      of every value vector with one direction or several
    lengths             ||v_j||
    mean unit vector    (1/d_mlp) sum_j v_j / ||v_j||

In float64 the W_V of a 7B model takes 470 MB, four times what is stored. Pieces run along the axis along which the
matrix is stored, so that a file mapped into memory is read in order; each is small enough to stay in the processor's
cache. A matrix of at most `WHOLE` elements is one piece.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.measures.threads import share_out

WHOLE = 2**22
"""Elements up to which a matrix is taken in one piece (32 MB in float64)."""

_PIECE = 2**18
"""Elements of a piece of a larger one (2 MB in float64: it stays in a core's cache, and few enough calls are made)."""


def products_and_lengths(
    value_vectors: Float[Tensor, "d_mlp d_model"], directions: Float[Tensor, "*direction d_model"]
) -> tuple[Float[Tensor, "*direction d_mlp"], Float[Tensor, " d_mlp"]]:
    """Products of every value vector with one direction or several, and its length, in one pass.

    Args:
        value_vectors: W_V in any floating type and either storage order; only read.
        directions: a vector, or a matrix with a direction in each row; their lengths are left as they are.

    Returns:
        The products and the lengths ||v_j||, both float64.
    """
    directions = directions.double().to(value_vectors.device)
    if value_vectors.numel() <= WHOLE:
        vectors = value_vectors.double()
        return directions @ vectors.T, vectors.norm(dim=1)
    found = share_out(lambda some: _products_and_lengths(some, directions), _neurons(value_vectors))
    products, lengths = zip(*found, strict=True)
    return torch.cat(products, dim=-1), torch.cat(lengths)


def _products_and_lengths(value_vectors: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """The same of some of the value vectors, in pieces."""
    products = directions.new_zeros(*directions.shape[:-1], len(value_vectors))
    lengths = directions.new_zeros(len(value_vectors))
    if _rows_are_stored(value_vectors):
        for part, piece in _pieces(value_vectors):
            products[..., part] = directions @ piece.T
            lengths[part] = piece.norm(dim=1)
        return products, lengths
    ones = directions.new_ones(value_vectors.shape[1])
    for part, piece in _pieces(value_vectors.T):
        if directions.dim() == 1:
            products.addmv_(piece.T, directions[part])
        else:
            products.addmm_(directions[:, part], piece)
        lengths.addmv_(piece.mul_(piece).T, ones[part])
    return products, lengths.sqrt_()


def mean_unit_vector(value_vectors: Float[Tensor, "d_mlp d_model"]) -> Float[Tensor, " d_model"]:
    """Mean of the value vectors scaled to length 1, float64; a vector of length 0 counts as 0.

    Its product with a unit direction is the toxicity T along that direction, so T along a thousand random directions
    costs one small product.
    """
    if value_vectors.numel() <= WHOLE:
        vectors = value_vectors.double()
        return (vectors / vectors.norm(dim=1, keepdim=True)).nan_to_num(0.0).mean(0)
    sums = share_out(_sum_of_units, _neurons(value_vectors))
    return torch.stack(sums).sum(0) / len(value_vectors)


def _sum_of_units(value_vectors: Tensor) -> Tensor:
    """Sum of some of the value vectors scaled to length 1, in pieces."""
    total = value_vectors.new_zeros(value_vectors.shape[1], dtype=torch.float64)
    _, lengths = _products_and_lengths(value_vectors, total)
    weights = (1 / lengths).nan_to_num(0.0, posinf=0.0)
    if _rows_are_stored(value_vectors):
        for part, piece in _pieces(value_vectors):
            total += weights[part] @ piece
        return total
    for part, piece in _pieces(value_vectors.T):
        total[part] = piece @ weights
    return total


def _neurons(value_vectors: Tensor) -> list[Tensor]:
    """The value vectors in as many groups as there are threads; on a device that has its own, in one."""
    groups = torch.get_num_threads() if value_vectors.device.type == "cpu" else 1
    return list(value_vectors.tensor_split(groups))


def _rows_are_stored(matrix: Tensor) -> bool:
    """Whether a row's elements lie side by side (GPT-2's W_V), or a column's (a transposed `nn.Linear`)."""
    return matrix.stride(1) == 1


def _pieces(matrix: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Some rows at a time in float64, in one buffer that is used again: a piece is gone when the next one comes."""
    step = max(1, _PIECE // matrix.shape[1])
    buffer = torch.empty(step, matrix.shape[1], dtype=torch.float64, device=matrix.device)
    for start in range(0, len(matrix), step):
        part = slice(start, min(start + step, len(matrix)))
        yield part, buffer[: part.stop - start].copy_(matrix[part])
