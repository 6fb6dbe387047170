"""Watching a forward pass: plain PyTorch hooks at named points, removed again come what may.

The hooks sit on the modules that TransformerLens's names translate to, so attention kernels, precision and device
placement are the model's own; the pass ends as soon as the last wanted point has been seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from mechinterp.models.names import HookSite

Progress = Callable[[int, int], None]
"""Told (done, in all) from time to time."""


_DEPTH: ContextVar[int] = ContextVar("depth", default=0)
"""How many passes the present one is nested in: a source's, read in the middle of another model's, or of its own."""


class _Stop(Exception):  # noqa: N818 - control flow, not an error
    """Raised inside a hook when everything wanted has been seen."""


@contextmanager
def watching(
    model: nn.Module, sites: Sequence[HookSite], see: Callable[[str, Tensor], None], *, stop: bool = True
) -> Iterator[None]:
    """Call `see(name, tensor)` whenever a forward pass reaches a site; remove the hooks at the end, come what may.

    Passes of the same model that are nested in the watched one (`nested`) are not seen.

    Args:
        sites: hook points as found by `HookNames.site`.
        see: receives the tensor itself; must not modify it.
        stop: end the forward pass by `_Stop` once every site has been seen.
    """
    waiting: set[str] = set()
    depth = _DEPTH.get()

    def begin(module: nn.Module, args: Any) -> None:
        if _DEPTH.get() == depth:
            waiting.clear()
            waiting.update(site.name for site in sites)

    def seen(name: str, value: Any) -> None:
        if _DEPTH.get() != depth:
            return
        see(name, value[0] if isinstance(value, tuple) else value)
        waiting.discard(name)
        if stop and not waiting:
            raise _Stop

    handles = []
    try:
        handles.append(model.register_forward_pre_hook(begin))
        for site in sites:
            module = model.get_submodule(site.module)
            if site.side == "input":
                handles.append(
                    module.register_forward_pre_hook(
                        lambda _, args, kwargs, name=site.name: seen(
                            name, args[0] if args else kwargs["hidden_states"]
                        ),
                        with_kwargs=True,
                    )
                )
            else:
                handles.append(module.register_forward_hook(lambda _, args, output, name=site.name: seen(name, output)))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def nested() -> Iterator[None]:
    """Passes made here are another's own affair: whatever watches the model already does not see them."""
    token = _DEPTH.set(_DEPTH.get() + 1)
    try:
        yield
    finally:
        _DEPTH.reset(token)


def run_until_seen(model: PreTrainedModel, **inputs: Any) -> None:
    """Forward pass for the sake of its hooks: no gradient, no cache unless one is given, ended by `_Stop`."""
    with torch.no_grad():
        until_seen(model, **inputs)


def until_seen(model: PreTrainedModel, **inputs: Any) -> None:
    """The same in the caller's grad mode: what is seen can be differentiated."""
    with suppress(_Stop):
        model(**inputs, use_cache="past_key_values" in inputs)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switch to evaluation mode (no dropout), then give every module its own mode back."""
    training = [module for module in model.modules() if module.training]
    try:
        model.eval()
        yield
    finally:
        for module in training:
            module.training = True
