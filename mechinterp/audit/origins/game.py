"""The exact game: the Shapley value of every group of weights, over hybrids of two models.

    phi_g = sum over S without g of |S|! (k - |S| - 1)! / k! [F(S + g) - F(S)]

F(S) is the read-out of the hybrid S (`change`), k the number of groups in which anything differs: the others take no
part and have exactly 0. The values add up to F(T) - F(B) without remainder, by 2^k hybrids. Beside each: what it does
alone, F(g) - F(nothing), and what it does as the last, F(all) - F(all but g); they differ by the interplay of groups.
Above `EXACT` groups permutations are sampled, each with its reverse; they add up just the same, and every value has a
standard error. (Shapley 1953; antithetic sampling: Mitchell et al. 2022.)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.audit.origins.change import Change
from mechinterp.audit.origins.units import Units
from mechinterp.audit.readouts import Readout, ReadoutTexts, read
from mechinterp.models.passes.watching import Progress

EXACT = 8
"""Groups up to which all hybrids are read."""

Ends = tuple[Float[Tensor, " prompt"], Float[Tensor, " prompt"]]
"""The read-out of the base, and of the tuned model."""

_Value = Callable[[frozenset[str]], Float[Tensor, " unit"]]


@dataclass(frozen=True)
class Game:
    """What came out, as means over the prompts of each unit.

    Attributes:
        groups: all of them.
        before, after: the read-out of both models.
        phi, alone, last: of every group.
        error: standard error of each phi that sampling leaves; None of an exact game.
        hybrids: models read.
    """

    groups: tuple[str, ...]
    before: Float[Tensor, " unit"]
    after: Float[Tensor, " unit"]
    phi: Float[Tensor, "unit group"]
    alone: Float[Tensor, "unit group"]
    last: Float[Tensor, "unit group"]
    error: Float[Tensor, " group"] | None
    hybrids: int

    @property
    def change(self) -> Float[Tensor, " unit"]:
        """F(T) - F(B)."""
        return self.after - self.before


def play(
    change: Change,
    texts: ReadoutTexts,
    readout: Readout,
    units: Units,
    *,
    ends: Ends,
    permutations: int = 32,
    seed: int = 0,
    progress: Progress | None = None,
) -> Game:
    """Play the game.

    Args:
        change: between the two models, which are left as they were.
        texts, readout: what is read.
        units: over which intervals are drawn.
        ends: the read-out of both models.
        permutations: sampled above `EXACT` groups; an even number.
        seed: of those.
        progress: called with (hybrids read, hybrids in all at most).
    """
    players = change.changed
    everyone = frozenset(players)
    before, after = (units.means(end) for end in ends)
    known: dict[frozenset[str], Tensor] = {frozenset(): before, everyone: after}
    exact = len(players) <= EXACT
    orders = [] if exact else list(_orders(players, permutations, seed))
    total = 2 ** len(players) if exact else 2 + 2 * len(players) + len(orders) * (len(players) - 1)

    def value(groups: frozenset[str]) -> Tensor:
        if groups not in known:
            with change.hybrid(groups) as hybrid:
                known[groups] = units.means(read(hybrid, texts, readout))
            if progress is not None:
                progress(len(known), total)
        return known[groups]

    if exact:
        phi, error = {one: _shapley(value, one, everyone) for one in players}, None
    else:
        phi, error = _sampled(value, players, orders, units)
    alone = {one: value(frozenset([one])) - before for one in players}
    last = {one: after - value(everyone - {one}) for one in players}
    none = torch.zeros(len(units), dtype=torch.float64)

    def column(of: dict[str, Tensor]) -> Tensor:
        return torch.stack([of.get(group, none) for group in change.groups], dim=1)

    errors = None if error is None else torch.tensor([error.get(group, 0.0) for group in change.groups])
    return Game(change.groups, before, after, column(phi), column(alone), column(last), errors, len(known))


def _shapley(value: _Value, one: str, everyone: frozenset[str]) -> Tensor:
    others, k = sorted(everyone - {one}), len(everyone)
    total = torch.zeros_like(value(everyone))
    for size in range(k):
        weight = math.factorial(size) * math.factorial(k - size - 1) / math.factorial(k)
        for chosen in itertools.combinations(others, size):
            total += weight * (value(frozenset([*chosen, one])) - value(frozenset(chosen)))
    return total


def _orders(players: tuple[str, ...], permutations: int, seed: int) -> Iterator[list[str]]:
    """Seeded permutations, each followed by its reverse."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(max(2, permutations // 2)):
        order = [players[i] for i in torch.randperm(len(players), generator=generator).tolist()]
        yield order
        yield order[::-1]


def _sampled(
    value: _Value, players: tuple[str, ...], orders: list[list[str]], units: Units
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Mean contribution over the orders, and its standard error over the pairs of them."""
    found: dict[str, list[Tensor]] = {one: [] for one in players}
    for order in orders:
        so_far = frozenset[str]()
        for one in order:
            found[one].append(value(so_far | {one}) - value(so_far))
            so_far |= {one}
    phi, errors, weights = {}, {}, units.sizes / units.sizes.sum()
    for one, parts in found.items():
        pairs = torch.stack(parts).unflatten(0, (-1, 2)).mean(1)
        phi[one] = pairs.mean(0)
        errors[one] = float((pairs @ weights).std() / math.sqrt(len(pairs)))
    return phi, errors
