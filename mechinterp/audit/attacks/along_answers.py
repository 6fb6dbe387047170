"""How far a checkpoint's next-token distributions are from the base's along the base's own unsafe answers.

    KL(T || B) at each token of the answer, teacher-forced, in nats: the mean over prompts
    share      of the sum over all tokens, up to and with this one: of a shallow change most stands in the first five

After 2406.05946, section 2: alignment that acts on the first few tokens alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.answers.divergence import logits_at
from mechinterp.audit.attacks.attack import Known
from mechinterp.measures.divergence import kullback_leibler
from mechinterp.measures.intervals import ends
from mechinterp.measures.recovery import mean
from mechinterp.measures.statistics import percentile_ends, resample_weights
from mechinterp.models import processes
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.scoring import LOGITS
from mechinterp.models.text.batches import length_batches

_WIDE = 2**22  # numbers of the distributions compared at a time: 32 MiB in float64


def along_answers(target: Checkpoint, known: Known, options: Any) -> pd.DataFrame:
    """Rows: place (of the token, from 1), kl and share with intervals over prompts, n (answers that are so long)."""
    found = token_divergences(target, known)
    longest = max(len(values) for values in found)
    table = torch.zeros(len(found), longest, dtype=torch.float64)
    for row, values in enumerate(found):
        table[row, : len(values)] = values
    sums, total = table.cumsum(1), table.sum()
    weights = resample_weights(len(found), resamples=2000, seed=known.seed)
    shares = (weights @ sums) / (weights @ sums)[:, -1:]
    low, high = percentile_ends(shares.nan_to_num(0)) if total > 0 and len(found) > 1 else ([torch.nan] * longest,) * 2
    rows = []
    for place in range(longest):
        there = torch.stack([values[place] for values in found if len(values) > place])
        rows.append(
            {
                "place": place + 1,
                **mean(there, rate=False, seed=known.seed).columns("kl"),
                "share": float(sums[:, place].sum() / total),
                **dict(zip(ends("share"), (low[place], high[place]), strict=True)),
                "n": len(there),
            }
        )
    return pd.DataFrame(rows)


@torch.no_grad()
def token_divergences(target: Checkpoint, known: Known) -> list[Float[Tensor, " token"]]:
    """KL(target || base) at the tokens of each of the base's answers, in nats, float64; both models in memory."""
    texts, base = known.answers, known.base
    vocabulary = base.model.config.get_text_config().vocab_size
    lengths = [len(text.ids) for text in texts]
    apart = base.names.short_context
    batches = list(length_batches(lengths, max(1, LOGITS // vocabulary), max_batch=64, apart=apart))
    found: list[tuple[int, Tensor]] = []
    for order in processes.share(batches):
        some = [texts[i] for i in order]
        rows = [range(text.prompt_length - 1, len(text.ids) - 1) for text in some]
        logits = [logits_at(model, some, rows, base.padding_id) for model in (target, base)]
        values = torch.cat(list(_in_parts(*logits))).split([len(columns) for columns in rows])
        found += zip(order, values, strict=True)
    return [values for _, values in sorted(processes.gather(found), key=lambda pair: pair[0])]


def _in_parts(one: Tensor, other: Tensor) -> Iterator[Tensor]:
    at_a_time = max(1, _WIDE // one.shape[1])
    for p, q in zip(one.split(at_a_time), other.split(at_a_time), strict=True):
        yield kullback_leibler(p, q.to(p.device)).cpu()
