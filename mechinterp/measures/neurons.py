"""Which neurons carry a change of the toxic write: groups of neurons, a cumulative curve, the random-direction null.

A neuron's part of the change is its erasure plus its bypass, a'_j g'_j - a_j g_j (`decomposition`), so sums over any
neurons are exact. A neuron is toxic where g_j > 0 in the base, anti-toxic where g_j < 0. Three definitions of groups:

    activation_change  sign of g_j and of a'_j - a_j: toxic_down, anti_toxic_up, toxic_up, anti_toxic_down
    projection         sign of g_j and of a'_j g'_j - a_j g_j, the change of what it writes (Yang et al.): likewise
    activation_sign    sign of g_j and of a_j: toxic_positive, toxic_negative, anti_toxic_positive, anti_toxic_negative

Every neuron is in one group: where either sign is 0, in `neither`. An edit of W_V at one block changes no activation up
to there, so by activation_change it is all in `neither`.

Net, gross reduction (sum of the negative parts) and gross increase (of the positive ones) belong together: a small net
change may be a small difference of large ones, and a share of the reduction alone says nothing about the net. Along any
direction some neurons lower the write and some raise it, and a group's share of the reduction is large where the group
is; so every share is set against the same share along random directions. That a group carries a change does not show
that the behaviour depends on it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechinterp.errors import InputError, near
from mechinterp.measures.statistics import NullComparison, compare_with_null, percentiles

Definition = Literal["activation_change", "projection", "activation_sign"]
DEFINITIONS: tuple[Definition, ...] = get_args(Definition)

NEITHER = "neither"
"""The group of neurons whose g or whose activation (or its change) is exactly 0."""

_CHANGES = ("toxic_down", "anti_toxic_up", "toxic_up", "anti_toxic_down", NEITHER)
GROUPS: dict[Definition, tuple[str, ...]] = {
    "activation_change": _CHANGES,
    "projection": _CHANGES,
    "activation_sign": ("toxic_positive", "toxic_negative", "anti_toxic_positive", "anti_toxic_negative", NEITHER),
}
"""Names of the groups of every definition, in the order of the numbers that `assign` gives."""


@dataclass(frozen=True)
class Neurons:
    """What is known of some neurons, along one direction at one place.

    Attributes:
        activation, new_activation: a and a', mean h_down of both checkpoints, float64 [neuron].
        readout, new_readout: g and g' of both, see `decomposition.readout`, float64 [neuron].
    """

    activation: Float[Tensor, " neuron"]
    new_activation: Float[Tensor, " neuron"]
    readout: Float[Tensor, " neuron"]
    new_readout: Float[Tensor, " neuron"]

    @cached_property
    def erasure(self) -> Float[Tensor, " neuron"]:
        """(a + a')/2 (g' - g)."""
        return (self.activation + self.new_activation) / 2 * (self.new_readout - self.readout)

    @cached_property
    def bypass(self) -> Float[Tensor, " neuron"]:
        """(a' - a) (g + g')/2."""
        return (self.new_activation - self.activation) * ((self.readout + self.new_readout) / 2)

    @cached_property
    def change(self) -> Float[Tensor, " neuron"]:
        """Erasure + bypass: a' g' - a g."""
        return self.erasure + self.bypass

    def assign(self, definition: Definition) -> Int[Tensor, " neuron"]:
        """Which group of a definition each neuron is in, a number into `GROUPS[definition]`.

        Raises:
            InputError: for an unknown definition.
        """
        check_definition(definition)
        if definition == "activation_sign":
            moved = self.activation
            order = (0, 1, 2, 3)  # toxic and above 0, toxic and below, anti-toxic and above, anti-toxic and below
        else:
            moved = self.new_activation - self.activation
            if definition == "projection":
                moved = self.change
            order = (2, 0, 1, 3)
        group = torch.full(self.readout.shape, len(order), dtype=torch.long, device=self.readout.device)
        for toxic, above, number in zip((1, 1, -1, -1), (1, -1, 1, -1), order, strict=True):
            group[(self.readout.sign() == toxic) & (moved.sign() == above)] = number
        return group


def check_definition(definition: str) -> None:
    """Raise `InputError` for a definition of groups that does not exist."""
    if definition not in DEFINITIONS:
        meant = near(definition, DEFINITIONS)
        raise InputError(f"the definition of neuron groups must be one of {DEFINITIONS}, got {definition!r}{meant}")


@dataclass(frozen=True)
class GroupSums:
    """Sums over the neurons of each group, in units of the residual stream.

    Attributes:
        n_neurons: in each group, [group].
        erasure, bypass: their sum is the group's net change, float64 [group].
        reduction: gross, sum of the negative parts, at most 0, float64 [group].
        increase: gross, sum of the positive parts, float64 [group].
    """

    n_neurons: Int[Tensor, " group"]
    erasure: Float[Tensor, " group"]
    bypass: Float[Tensor, " group"]
    reduction: Float[Tensor, " group"]
    increase: Float[Tensor, " group"]

    @property
    def change(self) -> Float[Tensor, " group"]:
        """Net change of each group: erasure + bypass."""
        return self.erasure + self.bypass

    @property
    def share_of_reduction(self) -> Float[Tensor, " group"]:
        """Each group's share of the gross reduction, in [0, 1]; nan where nothing lowers the write."""
        size = self.reduction.abs()
        return size / size.sum()


def sum_groups(neurons: Neurons, group: Int[Tensor, " neuron"], n_groups: int) -> GroupSums:
    """Sum the terms of neurons over groups.

    Args:
        group: number of each neuron's group, see `Neurons.assign`.
        n_groups: how many groups there are; those without a neuron are 0.
    """
    change = neurons.change

    def summed(terms: Tensor) -> Tensor:
        return torch.bincount(group, terms, minlength=n_groups)

    return GroupSums(
        n_neurons=torch.bincount(group, minlength=n_groups),
        erasure=summed(neurons.erasure),
        bypass=summed(neurons.bypass),
        reduction=summed(change.clamp_max(0)),
        increase=summed(change.clamp_min(0)),
    )


@dataclass(frozen=True)
class Curve:
    """The terms summed over the first n neurons, from the one that lowers the write most to the one that raises it.

    Attributes:
        n_neurons: the points n, [point].
        erasure, bypass: summed over them, float64 [point].
    """

    n_neurons: Int[Tensor, " point"]
    erasure: Float[Tensor, " point"]
    bypass: Float[Tensor, " point"]

    @property
    def change(self) -> Float[Tensor, " point"]:
        """Net change over the first n neurons."""
        return self.erasure + self.bypass


def curve_points(n_neurons: int) -> Int[Tensor, " point"]:
    """The numbers n, at most 200, at which a curve is given: close together at both ends, where neurons matter most.

    The last is `n_neurons`, and so is the last point of `cumulative` the sum over all of them.
    """
    if n_neurons <= 200:
        return torch.arange(1, n_neurons + 1)
    half = torch.logspace(0, math.log2(n_neurons / 2), 99, base=2, dtype=torch.float64).round().long()
    return torch.cat([half, n_neurons - half, torch.tensor([n_neurons])]).unique()


def cumulative(neurons: Neurons, points: Int[Tensor, " point"]) -> Curve:
    """The curve at some numbers of neurons; ties in the order of the neurons."""
    order, at = neurons.change.sort(stable=True).indices, points - 1
    return Curve(points, neurons.erasure[order].cumsum(0)[at], neurons.bypass[order].cumsum(0)[at])


@dataclass(frozen=True)
class Null:
    """The same numbers along random directions.

    Attributes:
        shares: by definition, every group's share of the gross reduction, [draw, group].
        curve: net change over the first n neurons, ordered anew for every direction, [draw, point].
    """

    shares: dict[Definition, Float[Tensor, "draw group"]]
    curve: Float[Tensor, "draw point"]

    @property
    def band(self) -> tuple[Float[Tensor, " point"], Float[Tensor, " point"]]:
        """95% of the curves, point by point."""
        low, high = percentiles(self.curve)
        return low, high

    def compare(self, definition: Definition, shares: Float[Tensor, " group"]) -> list[NullComparison]:
        """Observed shares against those along random directions; nan where nothing lowers the write."""
        found = []
        for observed, null in zip(shares.tolist(), self.shares[definition].T, strict=True):
            if math.isfinite(observed) and bool(torch.isfinite(null).all()):
                found.append(compare_with_null(observed, null))
            else:
                found.append(NullComparison(math.nan, math.nan, math.nan, math.nan))
        return found


def null_of(draws: Iterable[Neurons], points: Int[Tensor, " point"]) -> Null:
    """Shares and curves along random directions; one direction's neurons are held at a time.

    Args:
        draws: the same neurons along every random direction.
        points: of the curve.
    """
    shares: dict[Definition, list[Tensor]] = {definition: [] for definition in DEFINITIONS}
    curves = []
    for neurons in draws:
        for definition in DEFINITIONS:
            groups = neurons.assign(definition)
            shares[definition].append(sum_groups(neurons, groups, len(GROUPS[definition])).share_of_reduction)
        curves.append(cumulative(neurons, points).change)
    if not curves:
        raise InputError("there are no random directions; draw at least one (null_draws)")
    return Null({definition: torch.stack(found) for definition, found in shares.items()}, torch.stack(curves))


def sums_by_input(
    activations: Iterable[tuple[Float[Tensor, "input d_mlp"], Float[Tensor, "input d_mlp"]]],
    readout: Float[Tensor, "block d_mlp"],
    new_readout: Float[Tensor, "block d_mlp"],
    group: Int[Tensor, "block d_mlp"],
    n_groups: int,
) -> tuple[Float[Tensor, "input group"], Float[Tensor, "input group"]]:
    """Erasure and bypass of every group of neurons for each input (or group of inputs): what intervals are made of.

    Args:
        activations: of both checkpoints, block after block; two blocks' worth are never held.
        readout, new_readout: g of both.
        group: number of every neuron's group, the same for all inputs.
        n_groups: how many groups of neurons there are.
    """
    erasure = bypass = torch.zeros(())
    for block, (a, a_new) in enumerate(activations):
        g, g_new = readout[block, :, None], new_readout[block, :, None]
        member = torch.nn.functional.one_hot(group[block], n_groups).double()
        erasure = erasure + (a + a_new).double() / 2 @ ((g_new - g) * member)
        bypass = bypass + (a_new - a).double() @ ((g + g_new) / 2 * member)
    return erasure, bypass
