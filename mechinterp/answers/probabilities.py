"""How probable answers are to a model, token by token, over the prompts that they may follow.

    P(answer | prompt) = exp(mean over the answer's tokens of log p), the answer after the prompt and a blank
    P of a query       = mean of that over its prompts                           (Li et al. 2024, arXiv 2310.02129)

The released code counts an answer's tokens by tokenising it alone, so that a tokenizer's BOS is one of them; here they
are those that follow the prompt's. A mean over tokens favours answers whose later tokens follow from the first ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.data.facts.queries import Query
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.scoring import score


def probabilities_of(checkpoint: Checkpoint, queries: Sequence[Query], **scoring: Any) -> Float[Tensor, " query"]:
    """The probability of each query's answer; a prompt with an answer that several have is read once.

    Args:
        checkpoint: the model; left as it was.
        queries: in any number.
        scoring: `truncate`, `max_batch`, `progress` and the like, as `scoring.score` takes them.

    Returns:
        From 0 to 1, float64; NaN where a logit is not finite. No batch changes them, but for rounding.

    Raises:
        InputError: for an empty or too long text.
    """
    wanted = list(dict.fromkeys((str(prompt), query.answer) for query in queries for prompt in query.prompts))
    prompts = {str(prompt): prompt for query in queries for prompt in query.prompts}
    scores = score(checkpoint, [prompts[text] for text, _ in wanted], [answer for _, answer in wanted], **scoring)
    known = dict(zip(wanted, scores.exp().tolist(), strict=True))
    found = [[known[str(prompt), query.answer] for prompt in query.prompts] for query in queries]
    return torch.tensor([sum(each) / len(each) for each in found], dtype=torch.float64)
