"""The matrices of the blocks: what quantisers round. Embeddings, unembedding, norms and biases stay as they are."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from mechinterp.models.names import HookNames


def block_matrices(names: HookNames) -> Iterator[tuple[str, str, bool]]:
    """Parameter name, kind (`mlp.out`, `attn.q`, ...) and whether its rows are inputs, of every matrix in a block.

    A row is what one output is computed from; some architectures (GPT-2) store them as columns.
    """
    modules = dict(names.skeleton.named_modules())
    for name, parameter in names.skeleton.named_parameters():
        block, kind = names.component(name)
        if block is None or parameter.dim() < 2:
            continue
        module = modules[name.rpartition(".")[0]]
        yield name, kind, not isinstance(module, nn.Linear) and type(module).__name__ == "Conv1D"


def by_output(weight: Tensor, inputs_first: bool) -> Tensor:
    """A view of a matrix whose rows are outputs."""
    return weight.mT if inputs_first else weight
