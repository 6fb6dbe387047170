"""The decomposition of a block's write along a direction of each prompt's own, added up a few prompts at a time.

With w_x the unit direction of prompt x, g_x = W_V w_x, a_x its activations and b . w_x the output bias along it, the
write a_x . g_x + b . w_x changes by, exactly,

    sum_j (a_xj + a'_xj)/2 (g'_xj - g_xj)  +  sum_j (a'_xj - a_xj) (g_xj + g'_xj)/2  +  (b' - b) . w_x

erasure, bypass and the bias of that prompt, of which the mean over prompts is taken. Where all prompts have one
direction this is `decomposition.decompose`. Means of activations do not do here: products are averaged, so that both
models' activations of a prompt are needed together, and no others'.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechinterp.measures.decomposition import BlockDecomposition


class PromptSums:
    """Sums over prompts of one block's terms; what they take does not grow with the prompts.

    Args:
        d_mlp: neurons.
        groups: of prompts, for intervals.
    """

    def __init__(self, d_mlp: int, groups: int) -> None:
        def zeros(n: int) -> Tensor:
            return torch.zeros(n, dtype=torch.float64)

        self._writes = zeros(2)
        self._of_neurons = zeros(d_mlp), zeros(d_mlp)
        self._of_groups = zeros(groups), zeros(groups), zeros(groups)
        self._sizes = zeros(groups)

    def add(
        self,
        group: Int[Tensor, " prompt"],
        activations: tuple[Float[Tensor, "prompt d_mlp"], Float[Tensor, "prompt d_mlp"]],
        readouts: tuple[Float[Tensor, "prompt d_mlp"], Float[Tensor, "prompt d_mlp"]],
        biases: tuple[Float[Tensor, " prompt"], Float[Tensor, " prompt"]],
    ) -> Float[Tensor, " prompt"]:
        """Add some prompts; gives each one's write in the second model.

        Args:
            group: number of each prompt's group.
            activations: h_down of every prompt in the base, and in the tuned model.
            readouts: g of both along each prompt's direction.
            biases: of the output, likewise.
        """
        (a, a_new), (g, g_new) = ([each.double() for each in both] for both in (activations, readouts))
        bias, bias_new = biases
        erasure, bypass = (a + a_new) / 2 * (g_new - g), (a_new - a) * ((g + g_new) / 2)
        writes = [(a * g).sum(1) + bias, (a_new * g_new).sum(1) + bias_new]
        self._writes += torch.stack([each.sum() for each in writes])
        for total, each in zip(self._of_neurons, (erasure, bypass), strict=True):
            total += each.sum(0)
        for total, each in zip(self._of_groups, (erasure.sum(1), bypass.sum(1), bias_new - bias), strict=True):
            total.index_add_(0, group, each)
        self._sizes.index_add_(0, group, torch.ones_like(bias))
        return writes[1]

    def decomposition(self) -> BlockDecomposition:
        """The means over all that was added."""
        n = self._sizes.sum()
        erasure, bypass, bias = (each / self._sizes for each in self._of_groups)
        write_base, write = (self._writes / n).tolist()
        return BlockDecomposition(
            write_base=write_base,
            write=write,
            erasure=self._of_neurons[0] / n,
            bypass=self._of_neurons[1] / n,
            bias=float(self._of_groups[2].sum() / n),
            group_erasure=erasure,
            group_bypass=bypass,
            group_bias=bias,
        )
