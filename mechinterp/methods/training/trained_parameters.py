"""Which parameters are trained, by TransformerLens's component names: `mlp.out`, `blocks.3.mlp.out`, `embed`."""

from __future__ import annotations

from collections.abc import Sequence

from mechinterp.errors import InputError
from mechinterp.models.checkpoints import Checkpoint


def trained_parameters(
    checkpoint: Checkpoint, *, only: Sequence[str] = (), freeze: Sequence[str] = ()
) -> frozenset[str]:
    """Names of the parameters that are trained: those of `only` (all if empty), less those of `freeze`.

    Args:
        checkpoint: the model.
        only, freeze: components. One without a block (`mlp.out`) means that of every block, a part of a name all below
            it (`mlp`, `blocks.3`); weights and biases go together. Tied parameters are one: it has both names.

    Returns:
        The model's own names, tied parameters once.

    Raises:
        InputError: for a component that no parameter belongs to, or if nothing is left to train.
    """
    called: dict[int, set[str]] = {}
    for name, parameter in checkpoint.model.named_parameters(remove_duplicate=False):
        block, component = checkpoint.names.component(name)
        full = component if block is None else f"blocks.{block}.{component}"
        called.setdefault(id(parameter), set()).update({component, full})
    names = {id(parameter): name for name, parameter in checkpoint.model.named_parameters()}

    def chosen(wanted: str) -> set[int]:
        found = {i for i, own in called.items() if any(_belongs(name, wanted) for name in own)}
        if not found:
            known = sorted({name for own in called.values() for name in own if not name.startswith("blocks.")})
            raise InputError(
                f"{checkpoint.source} has no parameters called {wanted!r}; there are {', '.join(known)}; "
                f"blocks.N.COMPONENT is that of one block, N from 0 to {checkpoint.n_blocks - 1}"
            )
        return found

    trained = set().union(*map(chosen, only)) if only else set(called)
    trained -= set().union(*map(chosen, freeze))
    if not trained:
        raise InputError(f"nothing is left to train: only {', '.join(only) or 'all'} without {', '.join(freeze)}")
    return frozenset(names[i] for i in trained)


def _belongs(name: str, wanted: str) -> bool:
    return name == wanted or name.startswith(f"{wanted}.")


def linear_maps(checkpoint: Checkpoint, parameters: frozenset[str]) -> list[str]:
    """Paths of the blocks' linear maps whose weights are among some parameters: what adapters can be put on.

    Raises:
        InputError: if there are none.
    """
    found = [
        name.removesuffix(".weight")
        for name in sorted(parameters)
        if name.endswith(".weight")
        and checkpoint.parameter(name).dim() == 2
        and checkpoint.names.component(name)[0] is not None
    ]
    if not found:
        raise InputError("adapters go on linear maps of the blocks, and none of what is to be trained is one")
    return found
