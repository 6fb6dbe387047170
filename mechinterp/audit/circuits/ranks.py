"""What streams and components say of the right token through the unembedding: its rank over depth, and node by node.

    rank 1: the token is the most probable of the vocabulary there

`target_ranks` reads the stream before block 0 and after every block; `component_lens` what single nodes write. Both go
through the model's own final norm and unembedding, at the last token of the clean prompts. A write alone is no stream:
its rank says which way it pushes, not what the model would say.

The norm divides every stream by its own length. With `final_scale` all of a prompt are divided by the last one's, as in
the published curves: ranks stay (but for LayerNorm's bias), probabilities of short, early streams become flatter.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.audit.circuits.batches import TokenPair, check_pairs, pair_batches
from mechinterp.audit.circuits.places import Places
from mechinterp.audit.circuits.writes import Ends, written
from mechinterp.errors import InputError, near
from mechinterp.models import processes
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.names import resid_post
from mechinterp.models.passes.lens import EMBEDDING, Unembed, streams_at, unembedding
from mechinterp.models.passes.watching import evaluating
from mechinterp.models.unembedding import top_tokens

_LOGITS = 2**24  # held at a time: 64 MB in float32
_MIDDLE = ("rank", "rank_first", "rank_third", "probability")


def target_ranks(checkpoint: Checkpoint, pairs: Sequence[TokenPair], *, final_scale: bool = False) -> pd.DataFrame:
    """How soon in depth the right and the wrong tokens come up, on the clean prompts.

    Args:
        checkpoint: the model; left as it was.
        pairs: whose clean prompts are read.
        final_scale: divide every stream by the length of the last one at its position.

    Returns:
        A row per position (last, and subject where pairs have one), point of the stream and set of tokens: position,
        block (none for the embedding), tokens (right or wrong), n, rank (median over pairs of the best rank of the set,
        of the subject's tokens the best), rank_first and rank_third quartile, probability (mean over pairs of the set's
        sum, of the subject's tokens the largest).
    """
    tables = []
    for position, table in ranks_of_pairs(checkpoint, pairs, final_scale=final_scale).groupby("position", sort=False):
        for tokens in ("right", "wrong"):
            own = table[table["tokens"] == tokens]
            if len(own):
                tables.append(middle_of_ranks(own).assign(position=position, tokens=tokens))
    found = pd.concat(tables, ignore_index=True)
    return found[["position", "block", "tokens", "n", *_MIDDLE]]


def middle_of_ranks(ranks: pd.DataFrame) -> pd.DataFrame:
    """The rows of `ranks_of_pairs` of one position and set of tokens, the pairs of each block together."""
    by_block = ranks.assign(block=ranks["block"].fillna(-1)).groupby("block")
    quartiles = {
        name: by_block["rank"].quantile(share) for name, share in zip(_MIDDLE, (0.5, 0.25, 0.75), strict=False)
    }
    found = pd.DataFrame({"n": by_block.size(), **quartiles, "probability": by_block["probability"].mean()})
    found = found.reset_index()
    return found.assign(block=found["block"].where(found["block"] >= 0).astype("Int64"))


@torch.no_grad()
def ranks_of_pairs(checkpoint: Checkpoint, pairs: Sequence[TokenPair], *, final_scale: bool = False) -> pd.DataFrame:
    """What `target_ranks` is of: a row per pair, position, block and set of tokens, with rank and probability."""
    check_pairs(pairs)
    graph, dtype = Places.of(checkpoint).graph, checkpoint.model.dtype
    points = [EMBEDDING, *(resid_post(block) for block in range(checkpoint.n_blocks))]
    sites = [checkpoint.names.site(point) for point in points]
    found: list[dict[str, Any]] = []
    for batch in pair_batches(checkpoint, graph, pairs):
        lasts = [(row, column, "last") for row, column in zip(*batch.lasts(batch.clean), strict=True)]
        inside = [(row, column, "subject") for row, pair in enumerate(batch.pairs) for column in pair.subject]
        rows, columns, at = zip(*lasts, *inside, strict=True)
        streams = streams_at(checkpoint, batch.clean, sites, torch.tensor(rows), torch.tensor(columns))
        asked, last = [batch.pairs[row] for row in rows], streams[points[-1]] if final_scale else None
        with evaluating(checkpoint.model), unembedding(checkpoint) as unembed:
            for number, point in enumerate(points):
                seen = _of_sets(unembed, dtype, streams.pop(point), asked, last)
                for row, position, sets in zip(rows, at, seen, strict=True):
                    own = {"pair": batch.numbers[row], "position": position, "block": number - 1 if number else None}
                    for tokens, (rank, probability) in zip(("right", "wrong"), sets, strict=True):
                        found.append({**own, "tokens": tokens, "rank": rank, "probability": probability})
    gathered: list[Any] = processes.gather(found)
    table = pd.DataFrame(gathered).dropna(subset=["rank"])
    table["block"] = table["block"].astype("Int64")
    keys = ["position", "tokens", "block", "pair"]
    best = table.groupby(keys, dropna=False, as_index=False).agg(
        rank=("rank", "min"), probability=("probability", "max")
    )
    return best.sort_values(["position", "tokens", "pair", "block"], na_position="first", ignore_index=True)


@torch.no_grad()
def component_lens(
    checkpoint: Checkpoint, pairs: Sequence[TokenPair], nodes: Sequence[str], *, tokens: int = 10
) -> pd.DataFrame:
    """What single nodes write at the last token, through the unembedding.

    Args:
        checkpoint: the model; left as it was.
        pairs: whose clean prompts are read.
        nodes: names of writers.
        tokens: that the mean write promotes most, so many are listed.

    Returns:
        A row per node: node, n, rank (median over pairs of the best rank of the right tokens), tokens (JSON list).

    Raises:
        InputError: for a name that is no writer's.
    """
    check_pairs(pairs)
    places, dtype = Places.of(checkpoint), checkpoint.model.dtype
    known = {name: number for number, name in enumerate(places.graph.writers)}
    for name in nodes:
        if name not in known:
            raise InputError(f"{checkpoint.source} has no node {name!r} that writes{near(name, known)}")
    if not nodes:
        raise InputError("there are no nodes to read; give at least one")
    numbers = [known[name] for name in nodes]
    ranks: list[tuple[int, list[float]]] = []
    mean = torch.zeros(len(nodes), checkpoint.names.d_model, dtype=torch.float64)
    for batch in pair_batches(checkpoint, places.graph, pairs):
        ends = Ends.of(checkpoint, places, batch)
        rows, columns = batch.lasts(batch.clean)
        last = {name: value[rows, columns][:, None] for name, value in ends.clean.items()}
        own = written(places, last, slice(0, 1))[numbers, :, 0]
        mean += own.double().sum(1).cpu()
        with evaluating(checkpoint.model), unembedding(checkpoint) as unembed:
            found = [[rank for (rank, _), _ in _of_sets(unembed, dtype, each, batch.pairs)] for each in own]
        ranks += zip(batch.numbers, map(list, zip(*found, strict=True)), strict=True)
    processes.add_up([mean])
    of_pairs = pd.DataFrame([values for _, values in sorted(processes.gather(ranks))], columns=list(nodes))
    tops = top_tokens(checkpoint, (mean / len(pairs)).float(), k=tokens, final_norm=True)
    return pd.DataFrame(
        {
            "node": nodes,
            "n": len(pairs),
            "rank": of_pairs.median().to_list(),
            "tokens": [json.dumps(list(top.tokens), ensure_ascii=False) for top in tops],
        }
    )


def _of_sets(
    unembed: Unembed,
    dtype: torch.dtype,
    stream: Float[Tensor, "pair d_model"],
    pairs: Sequence[TokenPair],
    scale_of: Float[Tensor, "pair d_model"] | None = None,
) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Best rank and summed probability of each pair's right, and wrong, tokens; NaN where there are none."""
    found: list[tuple[tuple[float, float], tuple[float, float]]] = []
    step = 16
    while len(found) < len(pairs):
        part = slice(len(found), len(found) + step)
        some = pairs[part]
        other = None if scale_of is None else scale_of[part].to(unembed.device, dtype)
        logits = unembed(stream[part].to(unembed.device, dtype), other).float()
        step = max(16, _LOGITS // logits.shape[1])
        logprobs = logits.log_softmax(-1)
        for row, pair in zip(logprobs, some, strict=True):
            right, wrong = (_rank_and_probability(row, ids) for ids in (pair.right, pair.wrong))
            found.append((right, wrong))
    return found


def _rank_and_probability(row: Float[Tensor, " vocabulary"], ids: Sequence[int]) -> tuple[float, float]:
    if not ids:
        return float("nan"), float("nan")
    own = row[list(ids)]
    return float((row > own.max()).sum() + 1), float(own.exp().sum())
