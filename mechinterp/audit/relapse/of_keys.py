"""`keys`: the keys of the base's most toxic value vectors, scaled in the tuned model (Lee et al. 2024)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from jaxtyping import Float, Int
from torch import Tensor

from mechinterp.audit.relapse.treatment import Known, Neurons, Treatment, by_block
from mechinterp.errors import InputError
from mechinterp.measures.region import cosines

if TYPE_CHECKING:
    from mechinterp.models.checkpoints import Checkpoint

_logger = logging.getLogger(__name__)


def toxic_neurons(base: Checkpoint, direction: Float[Tensor, " d_model"], n: int) -> dict[int, Int[Tensor, " neuron"]]:
    """The neurons whose value vectors have the largest cosine with a direction, over all blocks."""
    best: list[tuple[float, int, int]] = []
    for block in range(base.n_blocks):
        found = cosines(base.value_matrix(block).cpu(), direction.cpu())
        top = found.topk(min(n, len(found)))
        best += [(-v, block, j) for v, j in zip(top.values.tolist(), top.indices.tolist(), strict=True)]
    d_mlp = len(base.value_matrix(0))
    return by_block([block * d_mlp + j for _, block, j in sorted(best)[:n]], d_mlp)


def _most_toxic(known: Known) -> Callable[[float], Neurons] | None:
    """The most toxic neurons, if their keys can be scaled."""
    if known.toxic_direction is None:
        return None
    toxic = toxic_neurons(known.base, known.toxic_direction, known.settings.top_vectors)
    try:
        with _scaled(known.base, known.base, toxic, 1.0):
            return lambda _: toxic
    except InputError as error:  # the matrix of the keys is packed into another
        _logger.warning("keys are not scaled: %s", error)
        return None


def _scaled(tuned: Checkpoint, base: Checkpoint, neurons: Neurons, dose: float) -> AbstractContextManager[object]:
    from mechinterp.models.interventions.contexts import scale_keys

    return scale_keys(tuned, {block: part for block, part in neurons.items() if part is not None}, dose)


KEYS = Treatment(
    "keys",
    "keys of toxic vectors\n(scaled by)",
    "factor",
    "direction",
    lambda settings, _: settings.key_factors,
    _most_toxic,
    _scaled,
    beside=False,
)
