"""What a treatment is: something of the base that is put back into a tuned model, in doses, with random controls.

All act at every token, of prompt and answer. Models and their contexts are imported when a treatment is given, so that
its name, label and doses cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

if TYPE_CHECKING:
    from mechinterp.audit.relapse.treatments import RelapseSettings
    from mechinterp.models.checkpoints import Checkpoint

PATCHED_BYTES = 2**31
"""Of a base's activations held at a time while they are patched in: batches of a large model are smaller."""

Neurons = Mapping[int, Int[Tensor, " neuron"] | None]
"""Block -> indices of neurons; None for all of the block's."""

Apply = Callable[["Checkpoint", "Checkpoint", Neurons, float], AbstractContextManager[object]]
"""(tuned, base, neurons, dose) -> context in which the tuned model is treated."""

Unit = Literal["blocks", "share", "factor", "group"]
"""Of a dose: number of blocks, share of all neurons, what keys are multiplied by, or a group's share of all neurons."""


@dataclass(frozen=True)
class Known:
    """What a treatment may choose its neurons by.

    Attributes:
        base: the unedited model; its shape and value vectors are used.
        settings: of the test.
        block: the toxic layer, from 0.
        toxic_direction: None where there is no probe.
        ranking: size by which neurons are ranked; None without evidence.
        groups: number of every neuron's group in `neurons.GROUPS["activation_change"]`; None without evidence.
    """

    base: Checkpoint
    settings: RelapseSettings
    block: int
    toxic_direction: Float[Tensor, " d_model"] | None = None
    ranking: Float[Tensor, "block d_mlp"] | None = None
    groups: Int[Tensor, "block d_mlp"] | None = None

    @property
    def d_mlp(self) -> int:
        """Neurons of a block."""
        return len(self.base.value_matrix(0))


@dataclass(frozen=True)
class Treatment:
    """A treatment.

    Attributes:
        name: as configs, tables and the command line give it.
        label: as figures and the report print it.
        unit: of its doses.
        needs: what it cannot be given without: `direction` (a toxic one), `evidence`, or nothing.
        doses: (settings, number of blocks) -> its ladder; nan where only the evidence tells.
        choose: what is known -> (dose -> the neurons that are treated); None where it cannot be given.
        apply: (tuned, base, neurons, dose) -> context in which the tuned model is treated.
        controlled: whether random controls say something: the same treatment of as many neurons.
        beside: whether the base runs beside the tuned model.
    """

    name: str
    label: str
    unit: Unit
    needs: Literal["", "direction", "evidence"]
    doses: Callable[[RelapseSettings, int], Sequence[float]]
    choose: Callable[[Known], Callable[[float], Neurons] | None]
    apply: Apply
    controlled: bool = True
    beside: bool = True

    @property
    def nothing(self) -> float:
        """The dose at which nothing is changed."""
        return 1.0 if self.unit == "factor" else 0.0

    def whole(self, n_blocks: int) -> float | None:
        """The dose of the whole model, of which there is no random control; None for none."""
        return {"blocks": float(n_blocks), "share": 1.0}.get(self.unit)

    def printed(self, dose: float) -> str:
        """A dose as figures print it."""
        if self.unit == "share":
            return f"{100 * dose:.3g}"
        return f"×{dose:.3g}" if self.unit == "factor" else f"{dose:.3g}"


def by_block(flat: Sequence[int], d_mlp: int) -> dict[int, Tensor]:
    """Block -> sorted indices, from numbers over all blocks."""
    found: dict[int, list[int]] = {}
    for block, neuron in (divmod(i, d_mlp) for i in sorted(flat)):
        found.setdefault(block, []).append(neuron)
    return {block: torch.tensor(neurons) for block, neurons in found.items()}


def patched(tuned: Checkpoint, base: Checkpoint, neurons: Neurons, dose: float) -> AbstractContextManager[object]:
    """The base's h_down on the same tokens patched into the tuned model, at some neurons."""
    from mechinterp.models.interventions.contexts import patch
    from mechinterp.models.names import h_down

    return patch(tuned, base, {h_down(block): part for block, part in neurons.items()})


def patched_tokens(base: Checkpoint) -> int:
    """Padded tokens of a batch while the base's activations are patched in at every block."""
    matrix = base.value_matrix(0)
    kept = base.n_blocks * len(matrix) * matrix.element_size()  # of a token
    return min(16384, max(512, PATCHED_BYTES // kept))
