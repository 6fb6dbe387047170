"""Whether two tensors differ by no more than the codes that one of them is stored in.

A GGML type keeps a few bits per weight and, for each block of them, a scale. Where the package `gguf` can write a type,
the other tensor is written in it and must give the same numbers: then the difference is that type's rounding and
nothing else. Where it cannot, or another program chose the scales, each difference is held against one step of its
block, the smallest distance between two of its values. A change of the weights that is smaller than a step cannot be
told from rounding.
"""

from __future__ import annotations

from typing import Literal

import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize, quantize
from torch import Tensor

_PIECE = 2**20  # elements
_GROUP = 16  # weights that share a scale in every type of whole steps
_FLOATS = {"F16": torch.float16, "BF16": torch.bfloat16}
_ROUNDINGS = 1 + 2**-6  # scales are rounded, too

Rounding = Literal["rounded", "step"]


def is_coded(stored_type: str) -> bool:
    """Whether a type's name is one of GGML's, all of which are coarser than the float32 that is read of them."""
    return stored_type in GGMLQuantizationType.__members__


def rounding(read: Tensor, other: Tensor, stored_type: str) -> Rounding | None:
    """Say whether a tensor may be another's rounding to the type that it is stored in.

    Args:
        read: what was read of the codes, in float32.
        other: of the same shape.
        stored_type: GGML's name of the codes' type, `Q4_1`.

    Returns:
        `rounded` if it is the other written in that type; `step` if no element is further from the other than a step
        of its block; else None.
    """
    kind = GGMLQuantizationType[stored_type]
    width = read.shape[-1]
    rows = max(1, _PIECE // width)
    pieces = zip(read.reshape(-1, width).split(rows), other.float().reshape(-1, width).split(rows), strict=True)
    exact = True
    for mine, theirs in pieces:
        exact = exact and _written(theirs, kind, mine)
        if not exact and not _within_a_step(mine, theirs, kind):
            return None
    return "rounded" if exact else "step"


def _written(values: Tensor, kind: GGMLQuantizationType, read: Tensor) -> bool:
    """Whether values written in a type are what was read."""
    if kind.name in _FLOATS:
        return torch.equal(values.to(_FLOATS[kind.name]).float(), read)
    if values.shape[-1] % GGML_QUANT_SIZES[kind][0]:
        return False
    try:
        again = dequantize(quantize(values.numpy(), kind), kind)
    except NotImplementedError:  # gguf reads this type alone
        return False
    return torch.equal(torch.from_numpy(again), read)


def _within_a_step(read: Tensor, other: Tensor, kind: GGMLQuantizationType) -> bool:
    if kind.name in _FLOATS or read.shape[-1] % _GROUP:
        return False
    groups = read.reshape(-1, _GROUP)
    gaps = groups.sort(dim=1).values.diff(dim=1)
    smallest = torch.where(gaps > 0, gaps, torch.inf).min(dim=1).values
    step = torch.where(smallest.isinf(), 0.0, smallest)  # all of one value: nothing is known of its steps
    return bool(((other.reshape(-1, _GROUP) - groups).abs() <= _ROUNDINGS * step[:, None]).all())
