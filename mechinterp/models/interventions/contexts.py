"""Interventions on a running model, as context managers that compose by nesting and always undo themselves.

    steer         h + alpha w_hat                at the stream after blocks
    project_out   h - (h . w_hat) w_hat          at the stream after blocks
    silence       the same                       of everything that is written into the stream
    ablate        0, or a mean                   at units of any hook points
    patch         another checkpoint's values    at units of any hook points, on the same tokens
    scale_keys    factor x key                   of neurons: their inflow into the nonlinearity
    scale_values  factor x value vector          of neurons: what they write for an activation
    transplant    another checkpoint's rows      of W_V

All but `transplant` act by hooks, at the tokens of a span (`positions.Span`), which means the same in generation, in
scoring and in recording; no weight is touched. At one hook point the outer context acts first. Un-aligning by larger
keys is Lee et al. 2024 (the 7 most toxic value vectors, factor 10).

That behaviour changes under an intervention shows that what was changed can carry it, not that it does in the model as
it is; a control of the same size (random directions, random neurons) belongs beside every such number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechinterp.errors import InputError
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.interventions.changing import Change, changing, check_number, unit_vector, units_of, width
from mechinterp.models.interventions.patching import patch
from mechinterp.models.interventions.transplanting import transplant
from mechinterp.models.names import attn_out, h_down, mlp_out, resid_post, resid_pre
from mechinterp.models.passes.positions import Span, check_span
from mechinterp.models.passes.sequences import OnDevices

__all__ = ["Span", "ablate", "patch", "project_out", "scale_keys", "scale_values", "silence", "steer", "transplant"]


@contextmanager
def steer(
    checkpoint: Checkpoint,
    direction: Float[Tensor, " d_model"],
    *,
    block: int | Sequence[int],
    alpha: float,
    at: Span = "all",
) -> Iterator[None]:
    """Add alpha x unit direction to the residual stream after blocks.

    Args:
        checkpoint: the model; its weights are not touched.
        direction: any length but zero; its unit vector is used.
        block: the block or blocks whose output is changed.
        alpha: length of the added vector, in units of the residual stream; negative to subtract, 0 to do nothing.
        at: the positions; at `response` the first response token is chosen by an unchanged model.

    Raises:
        InputError: for an unknown span or block, or a direction or alpha that is not finite or does not fit.
    """
    blocks = [block] if isinstance(block, int) else list(block)
    check_number("alpha", alpha)
    step = OnDevices((alpha * unit_vector(direction, checkpoint.names.d_model)).cpu())

    def add(values: Tensor) -> Tensor:
        wide = _wide(values)
        return wide + step.on(values.device).to(wide)

    with _at_blocks(checkpoint, blocks, add, at=at, idle=alpha == 0):
        yield


@contextmanager
def project_out(
    checkpoint: Checkpoint, direction: Float[Tensor, " d_model"], *, blocks: Sequence[int], at: Span = "all"
) -> Iterator[None]:
    """Take the component along a direction out of the residual stream after blocks, in float32 or better.

    Later blocks may write along the direction again; name every block to keep the stream free of it.

    Args:
        checkpoint: the model; its weights are not touched.
        direction: any length but zero.
        blocks: whose output is changed.
        at: the positions.

    Raises:
        InputError: as `steer`.
    """
    with _at_blocks(checkpoint, blocks, _without(checkpoint, direction), at=at):
        yield


@contextmanager
def silence(checkpoint: Checkpoint, direction: Float[Tensor, " d_model"]) -> Iterator[None]:
    """Take the component along a direction out of all that is written: by embeddings, every attention and every MLP.

    At every token, so that no block reads anything along it. The same can be done to weights, for good
    (`methods.constructed.silenced`; Arditi et al. 2024, 2406.11717).

    Args:
        checkpoint: the model; its weights are not touched.
        direction: any length but zero.

    Raises:
        InputError: for a direction that does not fit, is not finite or has no length.
    """
    blocks = range(checkpoint.n_blocks)
    hooks = [resid_pre(0), *(hook(block) for block in blocks for hook in (attn_out, mlp_out))]
    changes = dict.fromkeys(hooks, _without(checkpoint, direction))
    with changing(checkpoint, changes, changes, at="all"):
        yield


@contextmanager
def ablate(
    checkpoint: Checkpoint,
    units: Mapping[str, Int[Tensor, " unit"] | None],
    *,
    to: Literal["zero"] | Mapping[str, Float[Tensor, " d"]] = "zero",
    at: Span = "all",
) -> Iterator[None]:
    """Hold units at zero or at a mean.

    Args:
        checkpoint: the model; its weights are not touched.
        units: hook point -> the units there, None for all (`{h_down(3): torch.tensor([5, 7])}`).
        to: `zero`, or by hook point the mean of all its units, from `Recording.mean`.
        at: the positions.

    Raises:
        InputError: for unknown hook points, units out of range, or means that are missing, of another width or not
            finite.
    """
    changes: dict[str, Change] = {}
    if isinstance(to, str) and to != "zero":
        raise InputError(f"to must be 'zero' or means by hook point, got {to!r}")
    for hook, indices in units.items():
        size = width(checkpoint, hook)
        chosen = units_of(indices, size, hook)
        if isinstance(to, str):
            changes[hook] = _held(chosen, None)
        else:
            changes[hook] = _held(chosen, OnDevices(_mean(to, hook, size)))
    with changing(checkpoint, changes, changes, at=at):
        yield


@contextmanager
def scale_keys(
    checkpoint: Checkpoint, neurons: Mapping[int, Int[Tensor, " neuron"]], factor: float, *, at: Span = "all"
) -> Iterator[None]:
    """Scale the keys of neurons: the rows, with their biases, of the matrix that feeds the nonlinearity.

    That matrix is `mlp.gate` where there is one, else `mlp.in`. Its output is scaled, which equals scaling the weights.

    Args:
        checkpoint: the model; its weights are not touched.
        neurons: block -> the neurons there, from 0.
        factor: 1 to do nothing.
        at: the positions.

    Raises:
        InputError: for unknown blocks or neurons, a factor that is not finite, or an architecture that packs this
            matrix into another.
    """
    changes = {}
    for block, chosen in _neurons(checkpoint, neurons).items():
        gated = checkpoint.names.has(f"blocks.{block}.mlp.gate")
        changes[f"blocks.{block}.mlp.{'gate' if gated else 'in'}.hook_out"] = _scaled(chosen, factor)
    check_number("factor", factor)
    check_span(at)
    for hook in changes:
        checkpoint.names.site(hook)
    if factor == 1:
        changes = {}
    with changing(checkpoint, changes, changes, at=at):
        yield


@contextmanager
def scale_values(
    checkpoint: Checkpoint, neurons: Mapping[int, Int[Tensor, " neuron"]], factor: float, *, at: Span = "all"
) -> Iterator[None]:
    """Scale the value vectors of neurons; done on their activations, which equals scaling rows of W_V.

    Args:
        checkpoint: the model; its weights are not touched.
        neurons: block -> the neurons there, from 0.
        factor: 1 to do nothing, 0 to remove what they write.
        at: the positions.

    Raises:
        InputError: for unknown blocks or neurons, or a factor that is not finite.
    """
    changes = {h_down(block): _scaled(chosen, factor) for block, chosen in _neurons(checkpoint, neurons).items()}
    check_number("factor", factor)
    check_span(at)
    if factor == 1:
        changes = {}
    with changing(checkpoint, changes, changes, at=at):
        yield


@contextmanager
def _at_blocks(
    checkpoint: Checkpoint, blocks: Sequence[int], change: Change, *, at: Span, idle: bool = False
) -> Iterator[None]:
    """The same change of the stream after blocks."""
    check_span(at)
    changes = {resid_post(checkpoint.names.check_block(block)): change for block in blocks}
    if idle:
        changes = {}
    with changing(checkpoint, changes, changes, at=at):
        yield


def _neurons(checkpoint: Checkpoint, neurons: Mapping[int, Int[Tensor, " neuron"]]) -> dict[int, OnDevices]:
    """The neurons of every block, checked; blocks without any are left out."""
    found = {}
    for block, indices in neurons.items():
        checkpoint.names.check_block(block)
        chosen = units_of(indices, len(checkpoint.value_matrix(block)), f"block {block}", named="neuron")
        if chosen is None:
            raise InputError(f"block {block}: name the neurons to scale, got None (all: torch.arange(d_mlp))")
        if len(chosen.host):
            found[block] = chosen
    return found


def _scaled(units: OnDevices, factor: float) -> Change:
    def scale(values: Tensor) -> Tensor:
        indices = units.on(values.device)
        return values.index_copy(1, indices, values.index_select(1, indices) * factor)

    return scale


def _held(units: OnDevices | None, mean: OnDevices | None) -> Change:
    def hold(values: Tensor) -> Tensor:
        new = torch.zeros_like(values) if mean is None else mean.on(values.device).to(values).repeat(len(values), 1)
        if units is None:
            return new
        indices = units.on(values.device)
        return values.index_copy(1, indices, new.index_select(1, indices))

    return hold


def _mean(means: Mapping[str, Float[Tensor, " d"]], hook: str, size: int | None) -> Float[Tensor, " d"]:
    if hook not in means:
        raise InputError(f"to has no mean for {hook}, only for {sorted(means)}; record it there")
    mean = means[hook].detach().cpu()
    if mean.dim() != 1 or (size is not None and len(mean) != size):
        raise InputError(f"the mean for {hook} has shape {tuple(mean.shape)}, there are {size} units")
    if not torch.isfinite(mean).all():
        raise InputError(f"the mean for {hook} has {int((~torch.isfinite(mean)).sum())} values that are not finite")
    return mean


def _without(checkpoint: Checkpoint, direction: Float[Tensor, " d_model"]) -> Change:
    unit = OnDevices(unit_vector(direction, checkpoint.names.d_model).cpu())

    def project(values: Tensor) -> Tensor:
        wide = _wide(values)
        along = unit.on(values.device).to(wide)
        return wide - (wide @ along)[:, None] * along

    return project


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
