"""The base's activations of one group of neurons over all blocks, each a single dose (Yang et al.).

The groups are those of `measures.neurons` by the sign of the value vector and of the change of its mean activation. The
first two are where a changed activation lowers the toxic write.
"""

from __future__ import annotations

from collections.abc import Callable
from math import nan

from mechinterp.audit.relapse.treatment import Known, Neurons, Treatment, by_block, patched
from mechinterp.measures.neurons import GROUPS

_LABELS = {
    "toxic_down": "toxic, less active",
    "anti_toxic_up": "anti-toxic, more active",
    "toxic_up": "toxic, more active",
    "anti_toxic_down": "anti-toxic, less active",
}


def _group(name: str, label: str) -> Treatment:
    number = GROUPS["activation_change"].index(name)

    def members(known: Known) -> Callable[[float], Neurons] | None:
        if known.groups is None:
            return None
        chosen = by_block((known.groups.flatten() == number).nonzero().flatten().tolist(), known.d_mlp)
        return lambda _: chosen

    return Treatment(name, label, "group", "evidence", lambda settings, n_blocks: (nan,), members, patched)


NEURON_GROUPS = tuple(_group(name, label) for name, label in _LABELS.items())
