"""Other parameters in a model for the time of a context: the model's own are set aside, untouched, and come back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def replaced(
    model: nn.Module, tensors: Mapping[str, Tensor], *, gradient: bool = False
) -> Iterator[dict[str, nn.Parameter]]:
    """Let a model compute with other parameters; nothing is copied, and no number of its own is written.

    Tied parameters are replaced in every place. Those that stay need no gradient meanwhile.

    Args:
        model: left as it was, come what may: the same parameters, of the same `requires_grad`.
        tensors: by the model's own names (of tied parameters the first), in their shapes; of any type.
        gradient: whether the new ones need a gradient.

    Returns:
        The new parameters, by the same names.
    """
    own = dict(model.named_parameters())
    new = {name: nn.Parameter(tensor.detach(), requires_grad=gradient) for name, tensor in tensors.items()}
    by_identity = {id(own[name]): parameter for name, parameter in new.items()}
    places = [
        (module, name, parameter)
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False)
        if id(parameter) in by_identity
    ]
    trained = [parameter for parameter in own.values() if parameter.requires_grad]
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        for module, name, parameter in places:
            setattr(module, name, by_identity[id(parameter)])
        yield new
    finally:
        for module, name, parameter in places:
            setattr(module, name, parameter)
        for parameter in trained:
            parameter.requires_grad_(True)
