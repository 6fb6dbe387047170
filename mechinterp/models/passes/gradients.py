"""Gradients of chosen parameters of a model that is otherwise left as it is."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from torch import nn

from mechinterp.models.passes.watching import evaluating


@contextmanager
def gradients_of(model: nn.Module, names: Collection[str] | None = None) -> Iterator[dict[str, nn.Parameter]]:
    """Gradients of some parameters and of no others; then what each wanted, and had, before.

    The model is in evaluation mode; grad mode is the caller's, who sets it where he goes backward.

    Args:
        model: whose parameters they are.
        names: the model's own names; None for all that are floating point.

    Returns:
        The parameters by name, tied ones once.
    """
    parameters = dict(model.named_parameters())
    before = [(parameter, parameter.requires_grad, parameter.grad) for parameter in parameters.values()]
    chosen = {
        name: parameter
        for name, parameter in parameters.items()
        if parameter.is_floating_point() and (names is None or name in names)
    }
    try:
        for parameter, _, _ in before:
            parameter.requires_grad_(False)
            parameter.grad = None
        for parameter in chosen.values():
            parameter.requires_grad_(True)
        with evaluating(model):
            yield chosen
    finally:
        for parameter, wanted, gradient in before:
            parameter.requires_grad_(wanted)
            parameter.grad = gradient
