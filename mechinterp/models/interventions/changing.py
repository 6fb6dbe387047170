"""Changing a forward pass: plain PyTorch hooks that give a module another input or output at the positions of a span.

The counterpart of `watching`. A change gets the values at the chosen positions and returns others in their place; what
the model computed is copied before it is changed. Contexts compose by nesting: at one hook point the outer change comes
first, and what is recorded inside a context is what the changes leave.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mechinterp.errors import InputError
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.names import HookSite
from mechinterp.models.passes.positions import Pass, Selected, Span, check_span
from mechinterp.models.passes.sequences import OnDevices

Change = Callable[[Float[Tensor, "row d"]], Float[Tensor, "row d"]]
"""New values for the chosen positions; what it is given must not be written to."""

_Begin = Callable[[Pass, Selected], Mapping[str, Change]]

_D_MODEL = ("hook_resid_pre", "hook_resid_post", "hook_attn_out", "hook_mlp_out")


@contextmanager
def changing(
    checkpoint: Checkpoint, hooks: Collection[str], begin: Mapping[str, Change] | _Begin, *, at: Span
) -> Iterator[None]:
    """Change the values at hook points for the time of the context.

    Args:
        checkpoint: its weights are left alone.
        hooks: the hook points that may be changed.
        begin: the changes by hook point; or called at the beginning of every pass that has positions of the span or
            may prepare for them, with the pass and its chosen positions, and gives the changes of this pass.
        at: the positions.

    Raises:
        InputError: for hook points that do not exist or cannot be changed, or an unknown span.
    """
    check_span(at)
    sites = [_changeable(checkpoint, hook) for hook in hooks]
    running: list[tuple[Selected, Mapping[str, Change]]] = []  # passes may nest: a model can be its own source

    def enter(model: nn.Module, args: Any, kwargs: Any) -> None:
        this = Pass.of(model, args, kwargs)
        selected = this.selected(at)
        running.append((selected, begin(this, selected) if callable(begin) else begin))

    def leave(*_: Any) -> None:
        if running:
            running.pop()

    def changed(name: str, value: Tensor) -> Tensor | None:
        if not running:
            raise InputError("interventions act on calls of the whole model, not of a part of it")
        selected, changes = running[-1]
        if selected.empty or name not in changes:
            return None
        return selected.put(value, changes[name](selected.take(value)))

    handles = []
    try:
        if sites:
            handles.append(checkpoint.model.register_forward_pre_hook(enter, with_kwargs=True))
            handles.append(checkpoint.model.register_forward_hook(leave, always_call=True))
        for site in sites:
            module = checkpoint.model.get_submodule(site.module)
            if site.side == "input":
                handles.append(module.register_forward_pre_hook(_input_hook(site.name, changed), with_kwargs=True))
            else:
                handles.append(module.register_forward_hook(_output_hook(site.name, changed)))
        yield
    finally:
        for handle in handles:
            handle.remove()


_Changed = Callable[[str, Tensor], Tensor | None]


def _input_hook(name: str, changed: _Changed) -> Callable[..., Any]:
    def hook(_: nn.Module, args: Any, kwargs: Any) -> Any:
        new = changed(name, args[0] if args else kwargs["hidden_states"])
        if new is None:
            return None
        return ((new, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": new})

    return hook


def _output_hook(name: str, changed: _Changed) -> Callable[..., Any]:
    def hook(_: nn.Module, args: Any, output: Any) -> Any:
        new = changed(name, output[0] if isinstance(output, tuple) else output)
        if new is None:
            return None
        return (new, *output[1:]) if isinstance(output, tuple) else new

    return hook


def _changeable(checkpoint: Checkpoint, hook: str) -> HookSite:
    """The site of a hook point at which what the model goes on with can be changed."""
    if hook.endswith("hook_resid_mid"):
        raise InputError(
            f"{hook} can be read but not changed: it is what the MLP's norm sees, and the stream passes it by; change "
            "hook_resid_pre and hook_attn_out, or hook_resid_post"
        )
    return checkpoint.names.site(hook)


def width(checkpoint: Checkpoint, hook: str) -> int | None:
    """Number of units at a hook point, None where it cannot be told without running the model."""
    site = _changeable(checkpoint, hook)
    if hook.endswith(_D_MODEL):
        return checkpoint.names.d_model
    weight = getattr(checkpoint.model.get_submodule(site.module), "weight", None)
    if not isinstance(weight, Tensor) or weight.dim() > 2:
        return None
    if weight.dim() == 1:  # a norm's gain
        return len(weight)
    outputs_first = isinstance(checkpoint.model.get_submodule(site.module), nn.Linear)
    return int(weight.shape[int((site.side == "input") == outputs_first)])


def units_of(
    units: Int[Tensor, " unit"] | None, size: int | None, called: str, *, named: str = "unit"
) -> OnDevices | None:
    """Check indices of units and make them ready for use on every device.

    Args:
        units: from 0; None for all of them.
        size: how many units there are, None if that is not known.
        called: what they are units of, for errors.
        named: what one of them is called there.

    Raises:
        InputError: if they are not whole numbers in one row, or out of range.
    """
    if units is None:
        return None
    units = torch.as_tensor(units)
    if units.numel() == 0:
        return OnDevices(torch.empty(0, dtype=torch.long))
    if units.dim() != 1 or units.dtype == torch.bool or units.is_floating_point() or units.is_complex():
        raise InputError(
            f"{called}: {named} numbers must be whole numbers in one row, got {units.dtype} of shape "
            f"{tuple(units.shape)} (of a mask: mask.nonzero().flatten())"
        )
    units = units.detach().cpu().long()
    low, high = int(units.min()), int(units.max())
    if low < 0 or (size is not None and high >= size):
        last = "" if size is None else f" to {size - 1}"
        raise InputError(f"{called}: {named} {low if low < 0 else high} is out of range, there are {named}s 0{last}")
    return OnDevices(units)


def unit_vector(direction: Float[Tensor, " d_model"], d_model: int) -> Float[Tensor, " d_model"]:
    """A direction at length 1, in float32 or better.

    Raises:
        InputError: if it has another width, is not finite, or has no length.
    """
    direction = direction.detach()
    direction = direction.to(torch.promote_types(direction.dtype, torch.float32))
    if tuple(direction.shape) != (d_model,):
        raise InputError(f"the direction has shape {tuple(direction.shape)}, the stream is {d_model} wide")
    length = float(direction.norm())
    if not math.isfinite(length) or length == 0:
        raise InputError(f"the direction has length {length}; it must be finite and not zero")
    return direction / direction.norm()


def check_number(name: str, value: float) -> None:
    """Raise `InputError` unless a number is finite."""
    if not math.isfinite(value):
        raise InputError(f"{name} must be a finite number, got {value}")
