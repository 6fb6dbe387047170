"""The doses of a relapse test: every treatment of the registry at each dose that can be given, with random controls.

A control is the same treatment of as many neurons drawn at random from all blocks; the sets of one draw are nested. Of
all neurons the control would be the treatment itself, and is left out; so is a group without neurons. Intervals are
over prompts, not over draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import isnan
from typing import TYPE_CHECKING, Literal

from jaxtyping import Float, Int
from pydantic import ConfigDict, Field, field_validator
from torch import Tensor

from mechinterp.audit.relapse.registry import TREATMENTS
from mechinterp.audit.relapse.treatment import Apply, Known, Neurons, by_block
from mechinterp.data.validation import UsersSettings
from mechinterp.errors import near
from mechinterp.measures.statistics import seeded_order

if TYPE_CHECKING:
    from mechinterp.models.checkpoints import Checkpoint


class RelapseSettings(UsersSettings):
    """How the relapse test is made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompts: int = Field(40, ge=2, description="adversarial prompts that the base answers unsafely")
    treatments: tuple[str, ...] = Field(tuple(TREATMENTS), min_length=1, description="names in the registry")
    blocks: Literal["ladder", "all"] = Field(
        "ladder", description="doses of `activations`, `values` and `both`: growing sets of blocks, or only all of them"
    )
    draws: int = Field(1, ge=0, description="random controls of each dose")
    neuron_shares: tuple[float, ...] = Field((0.01, 0.05, 0.2), description="doses of `neurons`, shares of all neurons")
    key_factors: tuple[float, ...] = Field((2.0, 5.0, 10.0), description="doses of `keys`")
    top_vectors: int = Field(7, ge=1, description="most toxic value vectors whose keys are scaled, over all blocks")

    @field_validator("treatments")
    @classmethod
    def _check_treatments(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [name for name in given if name not in TREATMENTS]:
            meant = near(unknown[0], TREATMENTS)
            raise ValueError(f"unknown treatment {unknown[0]!r}; known are {', '.join(TREATMENTS)}{meant}")
        if missing := [name for name in ("activations", "values") if name not in given]:
            raise ValueError(f"the verdict stands on `activations` and `values`; {missing} not among the treatments")
        return tuple(dict.fromkeys(given))

    @field_validator("neuron_shares")
    @classmethod
    def _check_shares(cls, given: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0 < share <= 1 for share in given):
            raise ValueError(f"shares of all neurons lie above 0 and not above 1, got {list(given)}")
        return given

    @field_validator("key_factors")
    @classmethod
    def _check_factors(cls, given: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0 < factor < float("inf") for factor in given):
            raise ValueError(f"keys are scaled by positive numbers, got {list(given)}")
        return given


@dataclass(frozen=True)
class Dose:
    """A treatment at one dose.

    Attributes:
        treatment: its name in the registry.
        dose: see `treatment.Unit`.
        n_neurons: how many neurons are treated.
        control: whether they are drawn at random.
        draw: number of the random draw, from 1; 0 for the treatment itself.
        apply: (tuned, base) -> context in which the tuned model is treated.
    """

    treatment: str
    dose: float
    n_neurons: int
    control: bool
    draw: int
    apply: Callable[[Checkpoint, Checkpoint], AbstractContextManager[object]]


def outline(settings: RelapseSettings, n_blocks: int) -> Iterator[tuple[str, float, int]]:
    """Every treatment and dose, with the number of its controls: one for each draw, none for the whole model.

    The dose of a group of neurons, its share of all, only the evidence tells; here it is nan.
    """
    for name in settings.treatments:
        treatment = TREATMENTS[name]
        for dose in treatment.doses(settings, n_blocks):
            controlled = treatment.controlled and dose != treatment.whole(n_blocks)
            yield name, float(dose), settings.draws if controlled else 0


def doses(
    base: Checkpoint,
    settings: RelapseSettings,
    *,
    block: int,
    seed: int,
    toxic_direction: Float[Tensor, " d_model"] | None = None,
    ranking: Float[Tensor, "block d_mlp"] | None = None,
    groups: Int[Tensor, "block d_mlp"] | None = None,
) -> list[Dose]:
    """Every dose of every treatment that can be given.

    Args:
        base: its shape and value vectors are used.
        block: the toxic layer, from 0.
        toxic_direction: by which the vectors of `keys` are ranked; without one, or where an architecture packs the keys
            into another matrix, no `keys`.
        ranking: size by which the neurons of `neurons` are ranked; without one, no `neurons`.
        groups: number of every neuron's group in `neurons.GROUPS["activation_change"]`; without them, no groups.
    """
    known = Known(base, settings, block, toxic_direction, ranking, groups)
    d_mlp, n_blocks = known.d_mlp, base.n_blocks
    total = d_mlp * n_blocks
    choosers = {name: TREATMENTS[name].choose(known) for name in settings.treatments}
    found: list[Dose] = []
    for name, dose, controls in outline(settings, n_blocks):
        choose, apply = choosers[name], TREATMENTS[name].apply
        neurons = choose(dose) if choose is not None else {}
        if not neurons:
            continue
        n = sum(d_mlp if indices is None else len(indices) for indices in neurons.values())
        dose = n / total if isnan(dose) else dose
        found.append(Dose(name, dose, n, False, 0, _given(apply, neurons, dose)))
        for draw in range(1, controls + 1 if n < total else 1):
            drawn = by_block(seeded_order(total, seed + draw)[:n], d_mlp)
            found.append(Dose(name, dose, n, True, draw, _given(apply, drawn, dose)))
    return found


def _given(
    apply: Apply, neurons: Neurons, dose: float
) -> Callable[[Checkpoint, Checkpoint], AbstractContextManager[object]]:
    return lambda tuned, base: apply(tuned, base, neurons, dose)
