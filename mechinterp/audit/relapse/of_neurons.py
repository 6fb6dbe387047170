"""`neurons`: the base's activations of the neurons with the largest |bypass|, over all blocks."""

from __future__ import annotations

from collections.abc import Callable

from mechinterp.audit.relapse.treatment import Known, Neurons, Treatment, by_block, patched


def _ranked(known: Known) -> Callable[[float], Neurons] | None:
    if known.ranking is None:
        return None
    order = known.ranking.flatten().argsort(descending=True, stable=True).tolist()
    return lambda dose: by_block(order[: max(1, round(dose * len(order)))], known.d_mlp)


NEURONS = Treatment(
    "neurons",
    "activations of neurons\n(% of all)",
    "share",
    "evidence",
    lambda settings, _: settings.neuron_shares,
    _ranked,
    patched,
)
