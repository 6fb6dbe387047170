"""Where a block's queries, keys and values come out: of a module each, or all of one, and in the order q, k, v."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mechinterp.audit.circuits.graph import LETTERS
from mechinterp.errors import InputError
from mechinterp.models.checkpoints import Checkpoint


@dataclass(frozen=True)
class Projection:
    """Where the queries, keys or values of a block come out of a module, which may give others too.

    Attributes:
        path: of the module.
        module: [.., d_model] -> [.., out].
        first: the first of its outputs that is theirs.
        heads: how many have one.
        width: numbers of each.
    """

    path: str
    module: nn.Module
    first: int
    heads: int
    width: int

    def of(self, outputs: Tensor) -> Float[Tensor, "*place head width"]:
        """Theirs among a module's outputs, a view."""
        return outputs[..., self.first : self.first + self.heads * self.width].unflatten(-1, (self.heads, self.width))

    def rows(self, dtype: torch.dtype) -> Float[Tensor, "head width d_model"]:
        """Their rows of the module's matrix."""
        return self.of(matrix_of(self.module).T).permute(1, 2, 0).to(dtype)

    def bias(self, dtype: torch.dtype) -> Float[Tensor, "head width"] | None:
        """Their part of its bias."""
        bias = getattr(self.module, "bias", None)
        return None if bias is None else self.of(bias.detach()).to(dtype)


def projections_of(checkpoint: Checkpoint, part: str) -> dict[str, Projection]:
    """The queries, keys and values of a block, by letter.

    Args:
        checkpoint: a skeleton will do.
        part: `blocks.3.`.

    Raises:
        InputError: if they are not whole heads, or their modules have no name.
    """
    names = checkpoint.names
    out = checkpoint.module(f"{part}attn.o")
    inflow, heads = matrix_of(out).shape[1], int(names.config.get_text_config().num_attention_heads)
    width = inflow // heads
    packed = names.has(f"{part}attn.qkv")
    paths = [names.module(f"{part}attn.{'qkv' if packed else letter}") for letter in LETTERS]
    sizes = [matrix_of(checkpoint.model.get_submodule(path)).shape[0] for path in paths]
    if packed:
        others = (sizes[0] - inflow) // 2
        sizes, firsts = [inflow, others, others], [0, inflow, inflow + others]
    else:
        firsts = [0, 0, 0]
    if sizes[0] != inflow or sizes[1] != sizes[2] or sizes[1] % width or heads % (sizes[1] // width):
        raise undefined(checkpoint, f"its queries, keys and values have {sizes} numbers, which are not whole heads")
    return {
        letter: Projection(path, checkpoint.model.get_submodule(path), first, size // width, width)
        for letter, path, first, size in zip(LETTERS, paths, firsts, sizes, strict=True)
    }


def check_order(
    checkpoint: Checkpoint, value: Projection, packed: Float[Tensor, "pos out"], mixed: Float[Tensor, "pos d_heads"]
) -> None:
    """Of a matrix that gives all three: the first head's value must be where it is taken to be.

    The first token attends to itself alone, so that what the first head gives there is its own value and no more.

    Args:
        checkpoint: whose matrix it is.
        value: where values are taken to be.
        packed: what the matrix gave.
        mixed: what the heads gave of it.

    Raises:
        InputError: if it is not there.
    """
    first, expected = mixed[0, : value.width], value.of(packed)[0, 0]
    if not torch.allclose(first.to(expected), expected, rtol=1e-2, atol=1e-3 * float(expected.abs().max())):
        raise undefined(checkpoint, f"{value.path} packs queries, keys and values in an order that is not known")


def matrix_of(module: nn.Module) -> Float[Tensor, "out inflow"]:
    """A linear module's matrix, a row for each output; GPT-2 stores it the other way round."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight.detach() if isinstance(module, nn.Linear) else weight.detach().T


def undefined(checkpoint: Checkpoint, why: str) -> InputError:
    """The error for an architecture of which the graph is not defined."""
    kind = type(checkpoint.model).__name__
    return InputError(f"{checkpoint.source}: no circuits are defined for {kind}: {why}; choose another architecture")


def wide_type(dtype: torch.dtype) -> torch.dtype:
    """The type in which products are taken: float32 or better."""
    return torch.promote_types(dtype, torch.float32)
