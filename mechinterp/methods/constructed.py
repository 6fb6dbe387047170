"""Checkpoints whose truth is known by construction: what was changed, and what was left alone, is not to be found out.

    interpolate             theta_t = theta_base + t (theta_tuned - theta_base), every parameter
    perturb_like            theta_base + noise, of every parameter tensor as long as what tuning changed in it
    silenced                without a direction in all that embeddings, attentions and MLPs write into the stream
    train_without_values    SFT with every W_V frozen: value vectors are bit for bit the base's
    train_values            SFT of W_V alone, in some blocks or in all

They calibrate an instrument that tells erasure from bypass. None of them is a method of detoxification.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mechinterp.data.pairs import AnyPair
from mechinterp.errors import InputError
from mechinterp.methods.training.sft import SftSettings, train_sft
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.comparability import unlike_models


@torch.no_grad()
def interpolate(base: Checkpoint, tuned: Checkpoint, t: float) -> Checkpoint:
    """A checkpoint on the straight line between two: base + t (tuned - base).

    Args:
        base, tuned: two checkpoints of one shape; left as they were.
        t: from 0 (the base, bit for bit) to 1 (tuned, bit for bit).

    Returns:
        A new checkpoint in the base's types, computed in float64 and rounded once.

    Raises:
        InputError: for t outside [0, 1], or models of different shapes.
    """
    if not 0 <= t <= 1:
        raise InputError(f"t must be from 0 (the base) to 1 (tuned), got {t}")
    _check_fit(base, tuned)
    made = base.copied(name=f"{tuned.name}:{t:g}", source=f"{t:g} of the way from {base.source} to {tuned.source}")
    for parameter, end in _pairs(made, tuned):
        if t == 1:
            parameter.copy_(end)
        elif t > 0:
            start = parameter.double()
            parameter.copy_(start + t * (end.to(start) - start))
    return made


@torch.no_grad()
def perturb_like(base: Checkpoint, tuned: Checkpoint, *, seed: int) -> Checkpoint:
    """The base with random changes of the size that tuning had: what a change of this size does on its own.

    Args:
        base, tuned: two checkpoints of one shape; left as they were.
        seed: of the noise, which is drawn on the CPU, the same on every device.

    Returns:
        A new checkpoint. Every parameter tensor is off the base's by Gaussian noise of the same Frobenius norm as
        `tuned` is, up to rounding to its type; a tensor that tuning left alone is left alone.

    Raises:
        InputError: for models of different shapes.
    """
    _check_fit(base, tuned)
    made = base.copied(name=f"{tuned.name}:noise", source=f"{base.source} + noise of the size of {tuned.source}")
    generator = torch.Generator().manual_seed(seed)
    for parameter, end in _pairs(made, tuned):
        start = parameter.double()
        size = (end.to(start) - start).norm()
        # drawn where it is not used too, so that a tensor's noise does not depend on which others were tuned
        noise = torch.randn(parameter.shape, generator=generator).to(start)
        if size > 0:
            parameter.copy_(start + noise * (size / noise.norm()))
    return made


@torch.no_grad()
def silenced(base: Checkpoint, direction: Float[Tensor, " d_model"]) -> Checkpoint:
    """A checkpoint that writes nothing along a direction: neither embeddings nor attention nor MLPs, at any block.

    Its outputs are those of the base under `interventions.contexts.silence`: a projection of activations that anyone
    can make for good (Arditi et al. 2024, 2406.11717). A tied unembedding gets the old rows as its own.

    Args:
        base: left as it was.
        direction: of any length but zero.

    Returns:
        A new checkpoint, computed in float64 and rounded once.

    Raises:
        InputError: for a direction of another width, of length 0 or not finite; or where a norm stands between a
            matrix and the stream (Gemma 2), through which no projection passes.
    """
    _check_direction(base, direction)
    made = base.copied(name=f"{base.name}:silenced", source=f"{base.source} without a direction in all that is written")
    _keep_unembedding(made)
    for rows in _written(made):
        _take_out(rows, direction)
    return made


def _keep_unembedding(made: Checkpoint) -> None:
    """Give a tied unembedding rows of its own, so that the embedding can be changed alone."""
    config = made.model.config.get_text_config()
    if config.tie_word_embeddings:
        rows = made.parameter(f"{made.names.module('unembed')}.weight").detach().clone()
        made.module("unembed").register_parameter("weight", nn.Parameter(rows))
        config.tie_word_embeddings = False


def _written(made: Checkpoint) -> Iterator[Tensor]:
    """Views of all that is written into the stream, [row, d_model]: embeddings, and every block's W_O, W_V, biases."""
    names = made.names
    for component in ("embed", "pos_embed"):
        if names.has(component):
            yield made.parameter(f"{names.module(component)}.weight").detach()
    for block in range(made.n_blocks):
        if between := [norm for norm in ("ln1_post", "ln2_post") if names.has(f"blocks.{block}.{norm}")]:
            raise InputError(
                f"{made.source}: {between[0]} stands between the matrices of a block and the stream, so that no change "
                "of weights is the projection; take it out of the activations instead (`silence`)"
            )
        for part in ("attn.o", "mlp.out"):
            path = names.module(f"blocks.{block}.{part}")
            module, weight = made.model.get_submodule(path), made.parameter(f"{path}.weight").detach()
            yield weight.T if isinstance(module, nn.Linear) else weight
            if getattr(module, "bias", None) is not None:
                yield made.parameter(f"{path}.bias").detach()[None]


def _take_out(rows: Float[Tensor, "row d_model"], direction: Float[Tensor, " d_model"]) -> None:
    """Subtract from each row, in place, its component along the direction."""
    wide = rows.double()
    unit = direction.to(wide) / direction.to(wide).norm()
    rows.copy_(wide - torch.outer(wide @ unit, unit))


def train_without_values(
    base: Checkpoint, instances: Sequence[AnyPair], *, seed: int, settings: SftSettings, **more: Any
) -> Checkpoint:
    """SFT with W_V and its bias frozen at every block: value vectors cannot change, so nothing can be erased.

    Args:
        base, instances, seed, more: as in `train_sft`.
        settings: SFT's; what else they freeze stays frozen too.
    """
    return _trained(base, instances, seed, settings, {"freeze": (*settings.freeze, "mlp.out")}, more)


def train_values(
    base: Checkpoint,
    instances: Sequence[AnyPair],
    *,
    seed: int,
    settings: SftSettings,
    blocks: Sequence[int] | None = None,
    **more: Any,
) -> Checkpoint:
    """SFT of W_V and its bias alone: nothing but value vectors can change.

    What flows into the lowest of these blocks, and into any below, stays what it was, bit for bit on the same input.

    Args:
        base, instances, seed, more: as in `train_sft`.
        settings: SFT's; its `only` is replaced.
        blocks: where W_V is trained; None for everywhere.

    Raises:
        InputError: for a block that the model has not.
    """
    only = ("mlp.out",) if blocks is None else tuple(f"blocks.{base.names.check_block(b)}.mlp.out" for b in blocks)
    return _trained(base, instances, seed, settings, {"only": only}, more)


def _trained(
    base: Checkpoint,
    instances: Sequence[AnyPair],
    seed: int,
    settings: SftSettings,
    changes: dict[str, Any],
    more: dict[str, Any],
) -> Checkpoint:
    chosen = SftSettings.model_validate({**settings.model_dump(), **changes})
    return train_sft(base, instances, seed=seed, settings=chosen, **more)[0]


def _check_direction(base: Checkpoint, direction: Float[Tensor, " d_model"]) -> None:
    if tuple(direction.shape) != (base.names.d_model,):
        raise InputError(f"a direction of {base.source} has {base.names.d_model} entries, got {tuple(direction.shape)}")
    length = direction.double().norm()
    if not 0 < length < torch.inf:
        raise InputError(f"a direction has a finite length above 0, got {float(length)}")


def _check_fit(base: Checkpoint, tuned: Checkpoint) -> None:
    if differences := [*unlike_models(base, tuned)]:
        raise InputError(f"{base.source} and {tuned.source} do not fit each other: they differ in {differences[0]}")


def _pairs(made: Checkpoint, tuned: Checkpoint) -> Iterator[tuple[nn.Parameter, Tensor]]:
    """The parameters of two models of one shape, tied ones once."""
    for name, parameter in made.model.named_parameters():
        yield parameter, tuned.parameter(name).detach()
