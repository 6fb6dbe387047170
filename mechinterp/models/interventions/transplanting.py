"""Value vectors of one checkpoint inside another, for the time of a context."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor

from mechinterp.errors import InputError
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.files.weights import LazyWeights
from mechinterp.models.interventions.changing import units_of
from mechinterp.models.passes.sequences import OnDevices


@contextmanager
def transplant(
    checkpoint: Checkpoint, source: Checkpoint | LazyWeights, neurons: Mapping[int, Int[Tensor, " neuron"] | None]
) -> Iterator[Checkpoint]:
    """Give neurons the value vectors of another checkpoint; afterwards the weights are what they were, bit for bit.

    Only the replaced rows are kept meanwhile. The values are rounded to the type of this checkpoint.

    Args:
        checkpoint: whose W_V is changed for the time of the context.
        source: whose rows are taken.
        neurons: block -> the neurons there; None for all, with the bias of the MLP's second matrix where it has one.

    Returns:
        The checkpoint as changed: the same model, under a fingerprint of its own.

    Raises:
        InputError: for unknown blocks or neurons, or a source of another shape.
    """
    chosen: dict[int, OnDevices | None] = {}
    for block, indices in neurons.items():
        checkpoint.names.check_block(block)
        own, other = checkpoint.value_matrix(block), source.value_matrix(block)
        if own.shape != other.shape:
            raise InputError(
                f"{source.source} does not fit {checkpoint.source}: W_V of block {block} is {tuple(other.shape)} and "
                f"{tuple(own.shape)}; give a checkpoint of the same architecture and size"
            )
        chosen[block] = units_of(indices, len(own), f"block {block}", named="neuron")
    saved: list[tuple[Tensor, Tensor | slice, Tensor]] = []
    try:
        with torch.no_grad():
            for block, rows in chosen.items():
                for own, other in _pairs(checkpoint, source, block, bias=rows is None):
                    where = slice(None) if rows is None else rows.on(own.device)
                    new = other if rows is None else other[rows.on(other.device)]
                    saved.append((own, where, own[where].clone()))
                    own[where] = new.to(own)
        yield replace(checkpoint)  # the old one may remember the fingerprint it had
    finally:
        with torch.no_grad():
            for own, where, before in saved:
                own[where] = before


def _pairs(
    checkpoint: Checkpoint, source: Checkpoint | LazyWeights, block: int, *, bias: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """Views of the checkpoint's weights with the source's."""
    yield checkpoint.value_matrix(block), source.value_matrix(block)
    if bias and checkpoint.names.value_bias_parameter(block) is not None:
        yield checkpoint.value_bias(block), source.value_bias(block)
