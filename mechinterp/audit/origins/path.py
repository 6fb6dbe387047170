"""Path attribution: what every single weight contributes to a change of behaviour.

    phi_w = integral over t from 0 to 1 of dF/dw at B + t (T - B), times (T - B)_w

the Aumann-Shapley value of the game that `game` plays with groups: sums over any weights are the values of these, and
all together make up F(T) - F(B), but for the integral, which is taken by Gauss-Legendre quadrature over n nodes. A node
costs a forward and a backward pass. How much of the change the sum makes up (completeness) is told beside it.

What a piece of the line contributes is known without a gradient, F at its end less F at its start. So where the sum is
off, the piece that is off most is halved, and n nodes spent on each half: a read-out that falls steeply near one end
gets its nodes there.

No gradient is kept: as soon as a parameter's is there it is multiplied with the difference, summed and dropped, apart
for each of some groups of prompts, from which intervals are drawn. (Aumann and Shapley 1974; Sundararajan et al. 2017.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from mechinterp.audit.origins.change import Change
from mechinterp.audit.origins.game import Ends
from mechinterp.audit.origins.units import Units
from mechinterp.audit.readouts import Readout, ReadoutTexts, in_batches, read
from mechinterp.models import processes
from mechinterp.models.names import HookNames
from mechinterp.models.passes.watching import Progress

COMPLETE = (0.98, 1.02)
"""What the contributions make up of the change, outside of which a warning is due: more nodes are."""


TOLERANCE = 0.02
"""What the pieces of the line may be off, summed up, as a share of the change, before one is halved."""


@dataclass(frozen=True)
class Path:
    """What came out, as means over the prompts of each unit.

    Attributes:
        groups: all of them.
        before, after: the read-out of both models.
        places: of every group in every block, and outside the blocks in the last row.
        neurons: of every value vector, W_V without its bias.
        heads: of every head's rows of the attention's output matrix; None where they cannot be told apart.
        nodes: of the quadrature, on all pieces of the line.
        present: rows and groups of `places` in which the model has weights.
    """

    groups: tuple[str, ...]
    before: Float[Tensor, " unit"]
    after: Float[Tensor, " unit"]
    places: Float[Tensor, "unit block group"]
    neurons: Float[Tensor, "unit block d_mlp"]
    heads: Float[Tensor, "unit block head"] | None
    nodes: int
    present: frozenset[tuple[int, str]]

    @property
    def change(self) -> Float[Tensor, " unit"]:
        """F(T) - F(B)."""
        return self.after - self.before

    @property
    def phi(self) -> Float[Tensor, "unit group"]:
        """Of every group."""
        return self.places.sum(1)


def attribute(
    change: Change,
    texts: ReadoutTexts,
    readout: Readout,
    units: Units,
    *,
    nodes: int = 4,
    at_most: int = 0,
    ends: Ends | None = None,
    progress: Progress | None = None,
) -> Path:
    """Attribute a change of a read-out to weights.

    Args:
        change: between the two models, which are left as they were.
        texts, readout: what is read.
        units: groups of prompts, kept apart for intervals.
        nodes: of the quadrature on a piece of the line, n; at first the whole is one.
        at_most: nodes that are spent in all where pieces are halved, those of what is halved counted too.
        ends: the read-out of both models in the type of nodes, where it is known.
        progress: called with (passes made, passes in all as far as is known).
    """
    ends = ends or (_read(change, texts, readout, 0.0), _read(change, texts, readout, 1.0))
    spent, known = 0, {0.0: float(ends[0].mean()), 1.0: float(ends[1].mean())}

    def piece(start: float, end: float) -> _Piece:
        nonlocal spent
        collected = _Collected.of(change, len(units))
        for t, weight in _quadrature(nodes, start, end):
            collected.weight = weight
            _collect(collected, change, texts, readout, units, t)
            spent += 1
            if progress is not None:
                progress(spent, nodes * math.ceil(spent / nodes))
        processes.add_up(collected.sums.values())
        attributed = sum(float(total.sum()) for total in collected.sums.values()) / len(texts)
        return _Piece(start, end, abs(attributed - (known[end] - known[start])), collected)

    pieces, allowed = [piece(0.0, 1.0)], TOLERANCE * abs(known[1.0] - known[0.0])
    while sum(each.off for each in pieces) > allowed and spent + 2 * nodes <= at_most:
        worst = max(pieces, key=lambda each: each.off)
        pieces.remove(worst)
        middle = (worst.start + worst.end) / 2
        known[middle] = float(_read(change, texts, readout, middle).mean())
        pieces += [piece(worst.start, middle), piece(middle, worst.end)]
    return _Collected.together([each.collected for each in pieces]).path(units, ends, nodes * len(pieces))


@dataclass(frozen=True)
class _Piece:
    """A piece of the line.

    Attributes:
        start, end: from 0 to 1.
        off: what the sum of its contributions misses of what the read-out changes along it, as a mean over prompts.
        collected: those contributions.
    """

    start: float
    end: float
    off: float
    collected: _Collected


def _collect(
    collected: _Collected, change: Change, texts: ReadoutTexts, readout: Readout, units: Units, t: float
) -> None:
    """Add the contributions at one node."""
    unit_of = {prompt: unit for unit, prompts in enumerate(units.prompts) for prompt in prompts}
    with change.node(t) as new:
        for name, parameter in new.items():
            parameter.register_post_accumulate_grad_hook(partial(collected.take, name))
        # closed whatever happens to a backward pass: the model then has its mode back
        with closing(in_batches(change.base, texts, readout, groups=units.prompts)) as batches:
            for order, values in batches:
                if new and values.requires_grad:
                    collected.unit = unit_of[order[0]]
                    values.sum().backward(inputs=list(new.values()))


def _quadrature(nodes: int, start: float, end: float) -> Iterator[tuple[float, float]]:
    """Places and weights of Gauss-Legendre quadrature over a piece of the line."""
    places, weights = np.polynomial.legendre.leggauss(nodes)
    length = end - start
    return zip((start + length * (places + 1) / 2).tolist(), (length * weights / 2).tolist(), strict=True)


def _read(change: Change, texts: ReadoutTexts, readout: Readout, t: float) -> Tensor:
    with change.node(t, gradient=False):
        return read(change.base, texts, readout)


_PIECE = 2**18
"""Products of gradients and differences that a processor sums at a time, in float64: they stay in its cache."""


@dataclass
class _Collected:
    """Gradients times differences, summed as they come.

    Attributes:
        change: whose difference.
        parts: of a parameter whose units are told apart: sums over each of them, of what was collected for all of it.
        sums: by parameter, [unit] or [unit, part], where the parameter is.
        unit, weight: of the batch that is being read, and of its node.
    """

    change: Change
    own: Mapping[str, nn.Parameter]
    parts: Mapping[str, Callable[[Tensor], Tensor]]
    sums: dict[str, Tensor]
    unit: int = 0
    weight: float = 0.0

    @classmethod
    def of(cls, change: Change, units: int) -> _Collected:
        """Nothing yet."""
        own, parts, sums = dict(change.base.model.named_parameters()), dict[str, Any](), dict[str, Tensor]()
        for name in change.tensors:
            shape: tuple[int, ...] = ()
            if found := _rows(change, name):
                parts[name], shape = found[0], (found[1],)
            wide = torch.float32 if own[name].device.type == "mps" else torch.float64
            sums[name] = torch.zeros(units, *shape, dtype=wide, device=own[name].device)
        return cls(change, own, parts, sums)

    def take(self, name: str, parameter: nn.Parameter) -> None:
        """Add what a parameter's gradient says, and drop it."""
        gradient, parameter.grad = parameter.grad, None
        assert gradient is not None
        into, kind = self.sums[name][self.unit], self.sums[name].dtype
        if name in self.parts:
            product = gradient.mul_(self.change.difference(name, self.own[name]))
            into += self.weight * self.parts[name](product.to(kind))
            return
        after, before = self.change.tensors[name].reshape(-1), self.own[name].detach().reshape(-1)
        size = _PIECE if gradient.device.type == "cpu" else max(1, gradient.numel())
        for start in range(0, gradient.numel(), size):
            piece = slice(start, start + size)
            product = gradient.reshape(-1)[piece].mul_(self.change.between(after[piece], before[piece]))
            into += self.weight * product.to(kind).sum()

    @staticmethod
    def together(found: Sequence[_Collected]) -> _Collected:
        """What was collected on several pieces of the line, in the first."""
        for other in found[1:]:
            for name, total in found[0].sums.items():
                total += other.sums[name]
        return found[0]

    def path(self, units: Units, ends: Ends, nodes: int) -> Path:
        """What it comes to."""
        change, names = self.change, self.change.base.names
        blocks, groups = names.n_blocks, {group: place for place, group in enumerate(self.change.groups)}
        places = torch.zeros(len(units), blocks + 1, len(groups), dtype=torch.float64)
        neurons = torch.zeros(len(units), blocks, len(change.base.value_matrix(0)), dtype=torch.float64)
        n_heads = heads_of(names)
        heads = None if n_heads is None else torch.zeros(len(units), blocks, n_heads, dtype=torch.float64)
        for name, total in self.sums.items():
            mean, place = total.cpu().double() / units.sizes.reshape(-1, *[1] * (total.dim() - 1)), change.places[name]
            if place.block is not None and name in self.parts:
                own = neurons if place.kind == "mlp.out" else heads
                assert own is not None
                own[:, place.block] += mean
                mean = mean.sum(1)
            places[:, blocks if place.block is None else place.block, groups[place.group]] += mean
        before, after = (units.means(end) for end in ends)
        present = frozenset((blocks if p.block is None else p.block, p.group) for p in change.places.values())
        return Path(change.groups, before, after, places, neurons, heads, nodes, present)


def heads_of(names: HookNames) -> int | None:
    """How many heads write through a block's output matrix; None where no one matrix is theirs."""
    heads = getattr(names.config.get_text_config(), "num_attention_heads", None)
    return int(heads) if isinstance(heads, int) and names.has("blocks.0.attn.o") else None


def _rows(change: Change, name: str) -> tuple[Callable[[Tensor], Tensor], int] | None:
    """How a parameter's entries are summed over every neuron or head, and how many of those there are."""
    names, place = change.base.names, change.places[name]
    if place.block is None or not name.endswith(".weight"):
        return None
    if place.kind == "mlp.out":
        over = 0 if names.value_parameter(place.block)[1] else 1
        return (lambda product: product.sum(over)), change.base.parameter(name).shape[1 - over]
    heads = heads_of(names)
    if heads is None or place.kind != "attention" or name != f"{names.module(f'blocks.{place.block}.attn.o')}.weight":
        return None
    over = 0 if isinstance(change.base.module(f"blocks.{place.block}.attn.o"), nn.Linear) else 1
    if change.base.parameter(name).shape[1 - over] % heads:
        return None
    return (lambda product: product.sum(over).unflatten(0, (heads, -1)).sum(1)), heads
