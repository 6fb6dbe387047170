"""Recording a direction of each prompt's own: base and tuned model read the prompts together, a few at a time.

Both are in memory meanwhile; what is held does not grow with the prompts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.audit.evidence.inputs import Inputs
from mechinterp.audit.evidence.of_prompts import PromptTerms
from mechinterp.measures.large_matrices import products_and_lengths
from mechinterp.measures.prompt_sums import PromptSums
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.names import h_down
from mechinterp.models.passes.recording import record_positions

GROUPS = 128
"""Of prompts, for intervals; with no more prompts each is its own."""

_AT_ONCE = 64
"""Prompts whose activations of all blocks are held together."""


@torch.no_grad()
def decompose_prompts(base: Checkpoint, tuned: Checkpoint, inputs: Inputs) -> PromptTerms:
    """Decompose the change of every block's write along each prompt's own direction.

    Args:
        base, tuned: both in memory, left as they were; the same one twice for its own writes.
        inputs: whose `per_prompt` has the directions.

    Raises:
        InputError: if activations are not finite.
    """
    directions = inputs.per_prompt
    assert directions is not None
    n, n_blocks = len(directions.rows), base.n_blocks
    groups = min(n, GROUPS)
    sums = [PromptSums(len(base.value_matrix(block)), groups) for block in range(n_blocks)]
    writes = torch.zeros(n, dtype=torch.float64)
    for start in range(0, n, _AT_ONCE):
        some = slice(start, min(start + _AT_ONCE, n))
        prompts, units = [inputs.prompts[row] for row in directions.rows[some]], directions.vectors[some].double()
        read = [_activations(each, prompts, inputs.truncate) for each in ((base,) if tuned is base else (base, tuned))]
        group = torch.arange(some.start, some.stop) % groups
        for block in range(n_blocks):
            own = _along(base, block, units)
            other = own if tuned is base else _along(tuned, block, units)
            activations = read[0][h_down(block)], read[-1][h_down(block)]
            readouts, biases = (own[0], other[0]), (own[1], other[1])
            writes[some] += sums[block].add(group, activations, readouts, biases)
    sizes = torch.bincount(torch.arange(n) % groups).double()
    return PromptTerms(tuple(each.decomposition() for each in sums), sizes, writes)


def _activations(checkpoint: Checkpoint, prompts: Sequence[str], truncate: bool) -> dict[str, Tensor]:
    """h_down of every block at the last token of each prompt."""
    hooks = [h_down(block) for block in range(checkpoint.n_blocks)]
    recording = record_positions(checkpoint, prompts, hooks, ["last"], keep=hooks, groups=1, truncate=truncate)["last"]
    recording.check_finite(checkpoint.source)
    return dict(recording.inputs)


def _along(
    checkpoint: Checkpoint, block: int, units: Float[Tensor, "prompt d_model"]
) -> tuple[Float[Tensor, "prompt d_mlp"], Float[Tensor, " prompt"]]:
    """g of a block, and its output bias, along each prompt's direction."""
    readouts = products_and_lengths(checkpoint.value_matrix(block), units)[0].cpu()
    return readouts, units @ checkpoint.value_bias(block).double().cpu()
