"""How much of an answer a model has right, and how much of what it said it still says (KnowEdit, arXiv 2401.01286).

    token accuracy     share of the answer's tokens that are the most probable ones, teacher-forced
    sequence accuracy  1 if all are, else 0
    locality           the same shares, of the tokens that were the most probable ones before
    portability        mean over the kinds of prompts of the mean over the prompts of a kind

Token accuracy flatters long answers: most tokens of a name follow from its first ones. A right answer in other words
counts as wrong in both.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence

import torch
from torch import Tensor

from mechinterp.measures.intervals import Interval
from mechinterp.measures.statistics import bootstrap, lower_median, wilson_of_shares


def share_equal(said: Sequence[int], wanted: Sequence[int]) -> float:
    """Share of places at which two sequences of tokens of one length have the same; NaN where one is -1, undefined.

    Raises:
        ValueError: for sequences of different lengths, which are not of the same text.
    """
    if -1 in said or -1 in wanted or not wanted:
        return math.nan
    return sum(a == b for a, b in zip(said, wanted, strict=True)) / len(wanted)


def share_kept(said: Sequence[int], before: Sequence[int]) -> float:
    """Share of the tokens of an earlier answer that a later one has in the same place; NaN for an empty one.

    An answer that is shorter lacks the rest; what is longer does not count (Sanitation's locality).
    """
    return sum(a == b for a, b in zip(said, before, strict=False)) / len(before) if before else math.nan


def says(answer: str, target: str) -> bool:
    """Whether a text occurs in an answer, whatever the case (Sanitation's success, there with the prompt in it)."""
    return target.strip().casefold() in answer.casefold()


def mean_over_kinds(kinds: Mapping[str, Sequence[float]]) -> float:
    """Mean over kinds of the mean over each one's values, in that order; NaN for none.

    The released code takes the mean of one kind only, or of all prompts at once, as its version has it.
    """
    means = [sum(values) / len(values) for values in kinds.values() if values]
    return sum(means) / len(means) if means else math.nan


def mean_of_shares(shares: Sequence[float], units: Sequence[Hashable]) -> Interval:
    """Mean of shares with Wilson's interval for as many answers as there are different units.

    Shares of one unit (facts of one subject) are not independent. What is undefined (NaN) makes the mean so.

    Args:
        shares: from 0 to 1.
        units: what each is of.
    """
    if not shares:
        return Interval(math.nan, math.nan, math.nan)
    mean = sum(shares) / len(shares)
    if math.isnan(mean):
        return Interval(math.nan, math.nan, math.nan)
    return wilson_of_shares(min(mean, 1.0), len(set(units)))


def mean_of_values(values: Sequence[float], units: Sequence[Hashable], *, seed: int) -> Interval:
    """Mean of values of any size with a bootstrap interval over the different units, each drawn whole; of a single
    unit without ends.

    Args:
        values: such as log-probabilities.
        units: what each is of.
        seed: of the bootstrap.
    """
    if not values or any(map(math.isnan, values)):
        return Interval(math.nan, math.nan, math.nan)
    groups: dict[Hashable, list[float]] = {}
    for value, unit in zip(values, units, strict=True):
        groups.setdefault(unit, []).append(value)
    means = torch.tensor([sum(group) / len(group) for group in groups.values()], dtype=torch.float64)
    sizes = torch.tensor([float(len(group)) for group in groups.values()], dtype=torch.float64)
    return bootstrap(lambda weights: weights @ means, len(means), seed=seed, sizes=sizes)


def median_of_values(values: Sequence[float], units: Sequence[Hashable], *, seed: int) -> Interval:
    """Likewise the median, of an even number between the two in the middle: of ratios, one of which may be huge."""
    if not values or any(map(math.isnan, values)):
        return Interval(math.nan, math.nan, math.nan)
    number = {unit: i for i, unit in enumerate(dict.fromkeys(units))}
    of = torch.tensor([number[unit] for unit in units])
    sizes, own = of.bincount().double(), torch.tensor(values, dtype=torch.float64)

    def median(weights: Tensor) -> Tensor:
        each = (weights / sizes)[:, of]
        return (lower_median(own, each) - lower_median(-own, each)) / 2

    return bootstrap(median, len(sizes), seed=seed, sizes=sizes)
