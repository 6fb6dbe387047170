"""How far an edit moves a model towards a trait, and how far it moves what it should not (PersonalityEdit).

    ES  = sigmoid(lp+_after - lp-_after) min(1, exp(lp+_after - lp+_before))
    DD  = mean over the answers' tokens of KL(before || after)                                  in nats

with lp+ and lp- the mean log-probability of all tokens of the opinions that show the trait, and of those that show
another (Mao et al. 2024, arXiv 2310.02168). The released code scores each token by the logits at that token itself,
which have seen it: a model's readiness to say it again. `own_place=True` gives that; else the logits before it count.
"""

from __future__ import annotations

import math

from jaxtyping import Bool, Float, Int
from torch import Tensor


def edit_success(trait_after: float, other_after: float, trait_before: float) -> float:
    """ES, from mean log-probabilities in nats; nan where one is."""
    if any(map(math.isnan, (trait_after, other_after, trait_before))):
        return math.nan
    preferred = 1 / (1 + math.exp(min(other_after - trait_after, 700.0)))  # beyond it is 0 anyway
    return preferred * math.exp(min(0.0, trait_after - trait_before))


def answer_logprobs(
    logits: Float[Tensor, "text token vocabulary"],
    labels: Int[Tensor, "text token"],
    answer: Bool[Tensor, "text token"],
    *,
    own_place: bool = False,
) -> Float[Tensor, " answer_token"]:
    """Log-probability of every token of the answers, text by text, in float64.

    Args:
        logits: of a model.
        labels: the tokens.
        answer: which of them are the answer's; a text's first token has none before it and never counts.
        own_place: as released, see the module.
    """
    if not own_place:
        logits, labels, answer = logits[:, :-1], labels[:, 1:], answer[:, 1:]
    wide = logits[answer].double()
    return wide.gather(1, labels[answer][:, None])[:, 0] - wide.logsumexp(1)
