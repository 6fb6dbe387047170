"""Whether a label can be read off states, on categories that the reader was not trained on, beyond what words tell.

A logistic regression (scikit-learn's C = 1, features centred and scaled as a whole to root mean square 1 on what it is
trained on) is trained on all folds but one and scores that one. Its AUROC is set against that of the same regression on
which words occur, with which a prompt that is decoded by its wording alone is decoded as well.

What it does not tell: that a model uses what can be read off its states.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from mechinterp.measures.intervals import Interval
from mechinterp.measures.statistics import percentile_interval, resample_weights

FOLDS = 3


def why_undefined(positive: Bool[Tensor, " input"], fold: Int[Tensor, " input"]) -> str:
    """Why nothing can be read on held-out categories; empty where it can be.

    Each class must stand in two folds of categories, to be trained on in one and held out in another, and both in one.
    """
    for answered, own in (("unsafely", positive), ("safely", ~positive)):
        if len(fold[own].unique()) < 2:
            return f"the prompts that the base answers {answered} are not of several categories: none could be held out"
    if not bool((fold[positive][:, None] == fold[~positive][None]).any()):
        return "no categories that are held out together have prompts that the base answers safely and others"
    return ""


def held_out_scores(
    features: Float[Tensor, "input d"], positive: Bool[Tensor, " input"], fold: Int[Tensor, " input"]
) -> Float[Tensor, " input"]:
    """Log-odds of every input by a regression that was trained on the other folds; NaN where those are of one class."""
    wide = features.double().numpy()

    def prepare(rows: np.ndarray) -> np.ndarray:
        centred = wide - wide[rows].mean(0)
        return centred / (math.sqrt((centred[rows] ** 2).mean()) or 1.0)

    return _cross(prepare, positive, fold)


def word_scores(
    texts: Sequence[str], positive: Bool[Tensor, " input"], fold: Int[Tensor, " input"]
) -> Float[Tensor, " input"]:
    """The same of which words occur in a text; the words are those of the texts that it is trained on."""

    def prepare(rows: np.ndarray) -> Any:
        words = CountVectorizer(binary=True, token_pattern=r"\w+").fit(
            [texts[row] for row in rows.nonzero()[0].tolist()]
        )
        return words.transform(texts).astype(float)

    return _cross(prepare, positive, fold)


def _cross(
    prepare: Callable[[np.ndarray], Any], positive: Bool[Tensor, " input"], fold: Int[Tensor, " input"]
) -> Float[Tensor, " input"]:
    y, folds = positive.numpy().astype(int), fold.numpy()
    scores = np.full(len(y), np.nan)
    for number in np.unique(folds):
        held, rest = folds == number, folds != number
        if len(np.unique(y[rest])) == 2:
            x = prepare(rest)
            scores[held] = LogisticRegression(max_iter=2000).fit(x[rest], y[rest]).decision_function(x[held])
    return torch.from_numpy(scores)


def auroc_above(
    scores: Float[Tensor, " input"],
    others: Float[Tensor, " input"],
    positive: Bool[Tensor, " input"],
    fold: Int[Tensor, " input"],
    *,
    seed: int,
    resamples: int = 2000,
) -> tuple[Interval, Interval]:
    """The AUROC of scores, and how far it lies above that of others on the same inputs, drawn by class together.

    Pairs of inputs count that one regression scored: those of one fold, as another's log-odds have another scale.
    """
    within = fold[positive][:, None] == fold[~positive][None]
    weights = [
        resample_weights(int(own.sum()), resamples=resamples, seed=seed + i)
        for i, own in enumerate((positive, ~positive))
    ]
    parts = [_ordered(each, positive) for each in (scores, others)]
    defined = within & torch.isfinite(parts[0]) & torch.isfinite(parts[1])
    pairs = ((weights[0] @ defined.double()) * weights[1]).sum(1)

    def rates(part: Float[Tensor, "unsafe safe"]) -> tuple[float, Float[Tensor, " resample"]]:
        ordered = torch.where(defined, part, 0)
        value = float(ordered.sum() / defined.sum()) if bool(defined.any()) else math.nan
        return value, ((weights[0] @ ordered) * weights[1]).sum(1) / pairs

    (own, draws), (other, other_draws) = map(rates, parts)
    return percentile_interval(own, draws), percentile_interval(own - other, draws - other_draws)


def _ordered(scores: Float[Tensor, " input"], positive: Bool[Tensor, " input"]) -> Float[Tensor, "unsafe safe"]:
    """1 for a pair in the right order, 1/2 for a tie, 0; NaN where either has no score."""
    high, low = scores[positive][:, None], scores[~positive][None]
    found = (high > low).double() + 0.5 * (high == low).double()
    return torch.where(torch.isfinite(high) & torch.isfinite(low), found, torch.nan)
