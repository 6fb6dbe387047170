"""What differs between a base's weights B and tuned ones T, and the models between them.

    hybrid S    the base's weights, with the groups in S taken from T
    node t      B + t (T - B), in float32 or wider

Both are the base's own model with other parameters put in for the time of a context: of a hybrid no weight is copied,
of a node those are that differ, and of a model in a narrower type than float32 all of them. T's weights stay where they
are; the difference is taken a parameter at a time, and never kept.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from mechinterp.audit.origins.groups import Grouping, Place, in_order, places
from mechinterp.errors import InputError
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.comparability import unlike_models
from mechinterp.models.deltas import WeightDelta, added
from mechinterp.models.interventions.replacing import replaced


@dataclass(frozen=True)
class Change:
    """A change of weights; see `Change.of`.

    Attributes:
        base: the model before.
        tensors: the tuned weights that differ from the base's, by its names.
        places: group and block of every parameter.
        mixed: the type in which both are computed, where they have different ones; None where not.
    """

    base: Checkpoint
    tensors: Mapping[str, Tensor] = field(repr=False)
    places: Mapping[str, Place] = field(repr=False)
    mixed: torch.dtype | None = None

    @classmethod
    @torch.no_grad()
    def of(cls, base: Checkpoint, tuned: Checkpoint | WeightDelta, grouping: Grouping = "kinds") -> Change:
        """Compare the weights of two models in memory, or of a model and an edit of it.

        Args:
            base: left as it was.
            tuned: of the same architecture and size; an edit of the base.
            grouping: how fine the partition is, see `groups`.

        Raises:
            InputError: for other shapes, an edit of other weights, or weights that are not in memory.
        """
        own = dict(base.model.named_parameters())
        where = places(base.names, own, grouping)
        if isinstance(tuned, WeightDelta):
            tuned.check(base)
            after = {name: added(own[name], delta).to(own[name].dtype) for name, delta in tuned.tensors.items()}
        else:
            if unlike := list(unlike_models(base, tuned)):
                raise InputError(f"{tuned.source} does not fit {base.source}: they differ in {'; '.join(unlike)}")
            after = {name: parameter.detach() for name, parameter in tuned.model.named_parameters()}
        if absent := [name for name, tensor in (own | after).items() if tensor.is_meta]:
            raise InputError(
                f"{base.source}: {absent[0]} is not in memory (offloaded by `device_map`); take devices that hold both"
            )
        types = {tensor.dtype for tensor in (*own.values(), *after.values())}
        mixed = None
        if any(own[name].dtype != tensor.dtype for name, tensor in after.items()):
            mixed = torch.float32
            for kind in types:
                mixed = torch.promote_types(mixed, kind)
        return cls(base, {n: t for n, t in after.items() if not _equal(own[n], t)}, where, mixed)

    @cached_property
    def groups(self) -> tuple[str, ...]:
        """All groups of the partition."""
        return in_order({place.group for place in self.places.values()})

    @cached_property
    def changed(self) -> tuple[str, ...]:
        """The groups in which anything differs; the others take no part in a game."""
        return in_order({self.places[name].group for name in self.tensors})

    @contextmanager
    def hybrid(self, groups: Collection[str]) -> Iterator[Checkpoint]:
        """The base with these groups of the tuned weights."""
        own = dict(self.base.model.named_parameters())
        chosen = {name: t.to(own[name].device) for name, t in self.tensors.items() if self.places[name].group in groups}
        if self.mixed is not None:
            chosen = {name: tensor.detach().to(self.mixed) for name, tensor in {**own, **chosen}.items()}
        with replaced(self.base.model, chosen):
            yield self.base

    @cached_property
    def wide(self) -> torch.dtype:
        """The type of nodes: that of the weights, and float32 at least."""
        found = torch.float32
        for tensor in (*self.base.model.parameters(), *self.tensors.values()):
            found = torch.promote_types(found, tensor.dtype)
        return found

    @property
    def nodes_as_hybrids(self) -> bool:
        """Whether both ends of the line are computed as the hybrids are, in one type."""
        return self.mixed == self.wide or all(p.dtype == self.wide for p in self.base.model.parameters())

    @contextmanager
    def node(self, t: float, *, gradient: bool = True) -> Iterator[dict[str, nn.Parameter]]:
        """The model a part t of the way from the base to the tuned weights; gives the parameters that differ there."""
        put = {
            name: self._between(name, parameter, t)
            for name, parameter in self.base.model.named_parameters()
            if name in self.tensors or parameter.dtype != self.wide
        }
        with replaced(self.base.model, put, gradient=gradient) as new:
            for name, parameter in new.items():
                parameter.requires_grad_(gradient and name in self.tensors)
            yield {name: new[name] for name in self.tensors}

    @torch.no_grad()
    def difference(self, name: str, own: Tensor) -> Tensor:
        """T - B of one parameter that differs, given the base's own, in the type of nodes."""
        return self.between(self.tensors[name], own.detach())

    def between(self, after: Tensor, before: Tensor) -> Tensor:
        """The difference of weights, or of as many of them, in the type of nodes, where the base's are."""
        return after.to(before.device, self.wide) - before.to(self.wide)

    @torch.no_grad()
    def _between(self, name: str, own: nn.Parameter, t: float) -> Tensor:
        before = own.detach().to(self.wide)
        if name not in self.tensors:
            return before
        return torch.lerp(before, self.tensors[name].to(own.device, self.wide), t)


def _equal(own: Tensor, other: Tensor) -> bool:
    wide = torch.promote_types(own.dtype, other.dtype)
    return torch.equal(own.detach().to(wide), other.to(own.device, wide))
