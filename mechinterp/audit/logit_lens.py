"""The logit lens of the tokens that start unsafe and safe answers, as a table: after Lee et al., their figure 2.

Base and tuned read the same prompts; where in depth their curves part, the answer is decided differently.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.audit.directions.standard import first_tokens
from mechinterp.data.pairs import AnyPair
from mechinterp.errors import InputError
from mechinterp.measures.intervals import with_ends
from mechinterp.measures.statistics import percentiles, resample_weights
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.lens import EMBEDDING, LensToken, LogitLens
from mechinterp.models.unembedding import token_texts

ALL = "all"
"""What stands for a token in the rows of a whole set; a token of that name is quoted."""


def answer_tokens(checkpoint: Checkpoint, instances: Sequence[AnyPair], *, k: int = 5) -> tuple[LensToken, ...]:
    """The most frequent first tokens of unsafe and of safe answers; no forward pass.

    Args:
        checkpoint: its tokenizer is used.
        instances: their unsafe and safe responses.
        k: at most this many of each set.

    Returns:
        The unsafe ones first, the most frequent first in each. A token that starts both belongs to the set that it
        starts more often, and to neither if equally often.

    Raises:
        InputError: if k is below 1, or unsafe and safe answers start alike.
    """
    if k < 1:
        raise InputError(f"the number of tokens of each set must be at least 1, got {k}")
    unsafe = Counter(first_tokens(checkpoint, instances, [instance.unsafe for instance in instances]))
    safe = Counter(first_tokens(checkpoint, instances, [instance.safe for instance in instances]))
    chosen = []
    for name, own, other in (("unsafe", unsafe, safe), ("safe", safe, unsafe)):
        ids = sorted((i for i in own if own[i] > other[i]), key=lambda i: (-own[i], i))[:k]
        texts = token_texts(checkpoint.tokenizer, ids)
        chosen += [LensToken(i, text, name) for i, text in zip(ids, texts, strict=True)]  # type: ignore[arg-type]
    if not chosen:
        raise InputError("safe and unsafe responses start with the same tokens; there are none for the logit lens")
    return tuple(chosen)


def lens_table(method: str, lens: LogitLens, *, seed: int) -> pd.DataFrame:
    """The rows of one checkpoint in `logit_lens.csv`.

    Args:
        method: its label, `base` for the base.
        lens: see `models.passes.lens.read_lens`.
        seed: of the bootstrap over inputs.

    Returns:
        A row for each point and token: method, position, block (none for the embedding), point (embed, mid or post),
        token (JSON), token_id, token_set, logit and probability with 95% intervals. The rows of token `all` are of a
        set together: the mean of its logits, and the sum of its probabilities.
    """
    places: list[dict[str, object]] = [
        {"token": json.dumps(token.text, ensure_ascii=False), "token_id": token.id, "token_set": token.token_set}
        for token in lens.tokens
    ]
    sets = dict.fromkeys(token.token_set for token in lens.tokens)
    of_sets = {name: [i for i, token in enumerate(lens.tokens) if token.token_set == name] for name in sets}
    places += [{"token": ALL, "token_id": None, "token_set": name} for name in of_sets]
    logits = [lens.logits, *(lens.logits[..., own].mean(-1, keepdim=True) for own in of_sets.values())]
    sums = [lens.probabilities, *(lens.probabilities[..., own].sum(-1, keepdim=True) for own in of_sets.values())]
    labels = [
        {"method": method, "position": "prompt_last", **_place(point), **place}
        for point in lens.points
        for place in places
    ]
    return pd.DataFrame(labels).assign(
        **_intervals("logit", torch.cat(logits, dim=-1), lens.group_sizes, seed),
        **_intervals("probability", torch.cat(sums, dim=-1), lens.group_sizes, seed),
    )


def _intervals(
    name: str, values: Float[Tensor, "group point token"], sizes: Float[Tensor, " group"], seed: int
) -> dict[str, list[float]]:
    """Means over inputs and their percentile intervals, the same resamples for every number."""
    weights = resample_weights(len(sizes), resamples=2000, seed=seed, sizes=sizes)
    flat = values.flatten(1)
    low, high = percentiles(weights @ flat)
    mean = sizes.double() @ flat / sizes.sum()
    return dict(zip(with_ends(name), (mean.tolist(), low.tolist(), high.tolist()), strict=True))


def _place(point: str) -> dict[str, object]:
    if point == EMBEDDING:
        return {"block": None, "point": "embed"}
    return {"block": int(point.split(".")[1]), "point": point.rpartition("_")[2]}
