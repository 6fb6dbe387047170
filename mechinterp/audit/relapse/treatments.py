"""What the relapse test puts back into a tuned model: treatments, each a ladder of doses, with random controls.

    activations   the base's h_down on the same tokens, patched in at growing sets of blocks: the toxic layer, then the
                  nearest ones (the lower first), to all of them
    values        the base's W_V, and its bias, transplanted at the same blocks
    both          the two together, so that the MLPs' parts after the nonlinearity are the base's
    neurons       the base's activations of the neurons with the largest |bypass| over all blocks
    keys          the keys of the base's most toxic value vectors scaled in the tuned model (Lee et al. 2024)
    toxic_down, anti_toxic_up, toxic_up, anti_toxic_down
                  the base's activations of one group of neurons over all blocks, each a single dose (Yang et al.): the
                  groups of `measures.neurons` by sign of the value vector and of the change of its mean activation.
                  The first two are where a changed activation lowers the toxic write

All act at every token, of prompt and answer. A control is the same treatment of as many neurons drawn at random from
all blocks (of `values` their rows alone: a bias belongs to no neuron); the sets of one draw are nested. Of all neurons
the control would be the treatment itself, and is left out; so is a group without neurons. Intervals are over prompts,
not over draws.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from math import ceil, nan
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor

from mechinterp.errors import InputError
from mechinterp.measures.region import cosines
from mechinterp.measures.statistics import seeded_order
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.interventions.contexts import patch, scale_keys, transplant
from mechinterp.models.names import h_down

_logger = logging.getLogger(__name__)

NeuronGroup = Literal["toxic_down", "anti_toxic_up", "toxic_up", "anti_toxic_down"]
Treatment = Literal["activations", "values", "both", "neurons", "keys", NeuronGroup]
TREATMENTS: tuple[Treatment, ...] = get_args(Treatment)
NEURON_GROUPS: tuple[NeuronGroup, ...] = get_args(NeuronGroup)
"""Treatments of one group of neurons; in the order of `neurons.GROUPS["activation_change"]`."""
PATCHED: tuple[Treatment, ...] = ("activations", "both", "neurons", *NEURON_GROUPS)
"""Treatments in which the base runs beside the tuned model."""
Neurons = Mapping[int, Int[Tensor, " neuron"] | None]
"""Block -> indices of neurons; None for all of the block's."""
Apply = Callable[[Checkpoint, Checkpoint], AbstractContextManager[object]]


class RelapseSettings(BaseModel):
    """How the relapse test is made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompts: int = Field(40, ge=2, description="adversarial prompts that the base answers unsafely")
    treatments: tuple[Treatment, ...] = Field(TREATMENTS, min_length=1)
    blocks: Literal["ladder", "all"] = Field(
        "ladder", description="doses of `activations`, `values` and `both`: growing sets of blocks, or only all of them"
    )
    draws: int = Field(1, ge=0, description="random controls of each dose")
    neuron_shares: tuple[float, ...] = Field((0.01, 0.05, 0.2), description="doses of `neurons`, shares of all neurons")
    key_factors: tuple[float, ...] = Field((2.0, 5.0, 10.0), description="doses of `keys`")
    top_vectors: int = Field(7, ge=1, description="most toxic value vectors whose keys are scaled, over all blocks")

    @field_validator("treatments")
    @classmethod
    def _check_treatments(cls, given: tuple[Treatment, ...]) -> tuple[Treatment, ...]:
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
        treatment: see the module.
        dose: number of blocks; share of all neurons for `neurons` and the groups; factor for `keys`.
        n_neurons: how many neurons are treated.
        control: whether they are drawn at random.
        draw: number of the random draw, from 1; 0 for the treatment itself.
        apply: (tuned, base) -> context in which the tuned model is treated.
    """

    treatment: Treatment
    dose: float
    n_neurons: int
    control: bool
    draw: int
    apply: Apply


def outline(settings: RelapseSettings, n_blocks: int) -> Iterator[tuple[Treatment, float, int]]:
    """Every treatment and dose, with the number of its controls: one for each draw, none for the whole model.

    The dose of a group of neurons, its share of all, only the evidence tells; here it is nan.
    """
    sizes = [n_blocks] if settings.blocks == "all" else sorted({1, min(2, n_blocks), ceil(n_blocks / 2), n_blocks})
    for treatment in settings.treatments:
        steps: Sequence[float] = sizes
        if treatment in ("neurons", "keys"):
            steps = settings.neuron_shares if treatment == "neurons" else settings.key_factors
        elif treatment in NEURON_GROUPS:
            steps = (nan,)
        for dose in steps:
            whole = dose == {"keys": None, "neurons": 1}.get(treatment, n_blocks)
            yield treatment, float(dose), 0 if whole or treatment == "both" else settings.draws


def nearest_blocks(block: int, n_blocks: int, wanted: int) -> list[int]:
    """A block and those nearest to it, the lower first."""
    nearest = sorted(range(n_blocks), key=lambda other: (abs(other - block), other))
    return sorted(nearest[:wanted])


def toxic_neurons(base: Checkpoint, direction: Float[Tensor, " d_model"], n: int) -> dict[int, Int[Tensor, " neuron"]]:
    """The neurons whose value vectors have the largest cosine with a direction, over all blocks."""
    best: list[tuple[float, int, int]] = []
    for block in range(base.n_blocks):
        found = cosines(base.value_matrix(block).cpu(), direction.cpu())
        top = found.topk(min(n, len(found)))
        best += [(-v, block, j) for v, j in zip(top.values.tolist(), top.indices.tolist(), strict=True)]
    d_mlp = len(base.value_matrix(0))
    return _by_block([block * d_mlp + j for _, block, j in sorted(best)[:n]], d_mlp)


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
        groups: place of every neuron's group in `NEURON_GROUPS`, any other number for none of them; without them, no
            groups.
    """
    d_mlp, n_blocks = len(base.value_matrix(0)), base.n_blocks
    total = d_mlp * n_blocks
    toxic = None if toxic_direction is None else _with_keys(base, toxic_direction, settings.top_vectors)
    order = [] if ranking is None else ranking.flatten().argsort(descending=True, stable=True).tolist()
    found: list[Dose] = []
    for treatment, dose, controls in outline(settings, n_blocks):
        neurons: Neurons | None = toxic
        if treatment == "neurons":
            neurons = _by_block(order[: max(1, round(dose * total))], d_mlp)
        elif treatment in NEURON_GROUPS:
            members = [] if groups is None else _members(groups, NEURON_GROUPS.index(treatment))
            neurons, dose = _by_block(members, d_mlp), len(members) / total
        elif treatment != "keys":
            neurons = dict.fromkeys(nearest_blocks(block, n_blocks, int(dose)))
        if not neurons:
            continue
        n = sum(d_mlp if indices is None else len(indices) for indices in neurons.values())
        found.append(Dose(treatment, dose, n, False, 0, _applied(treatment, neurons, dose)))
        for draw in range(1, controls + 1 if n < total else 1):
            drawn = _by_block(seeded_order(total, seed + draw)[:n], d_mlp)
            found.append(Dose(treatment, dose, n, True, draw, _applied(treatment, drawn, dose)))
    return found


def _with_keys(base: Checkpoint, direction: Tensor, n: int) -> Neurons | None:
    """The most toxic neurons, if their keys can be scaled."""
    toxic = toxic_neurons(base, direction, n)
    try:
        with scale_keys(base, toxic, 1.0):
            return toxic
    except InputError as error:  # the matrix of the keys is packed into another
        _logger.warning("keys are not scaled: %s", error)
        return None


def _members(groups: Int[Tensor, "block d_mlp"], group: int) -> list[int]:
    """Numbers, over all blocks, of the neurons of a group."""
    found: list[int] = (groups.flatten() == group).nonzero().flatten().tolist()
    return found


def _by_block(flat: Sequence[int], d_mlp: int) -> dict[int, Tensor]:
    """Block -> sorted indices, from numbers over all blocks."""
    found: dict[int, list[int]] = {}
    for block, neuron in (divmod(i, d_mlp) for i in sorted(flat)):
        found.setdefault(block, []).append(neuron)
    return {block: torch.tensor(neurons) for block, neurons in found.items()}


def _applied(treatment: Treatment, neurons: Neurons, dose: float) -> Apply:
    @contextmanager
    def apply(tuned: Checkpoint, base: Checkpoint) -> Iterator[None]:
        with ExitStack() as stack:
            if treatment in ("values", "both"):
                stack.enter_context(transplant(tuned, base, neurons))
            if treatment in PATCHED:
                stack.enter_context(patch(tuned, base, {h_down(block): part for block, part in neurons.items()}))
            if treatment == "keys":
                named = {block: part for block, part in neurons.items() if part is not None}
                stack.enter_context(scale_keys(tuned, named, dose))
            yield

    return apply
