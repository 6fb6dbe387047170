"""Locate the toxic layer of every instance under four distances, and audit how far they agree (Eq. 6).

The two responses of an instance are fed without its prompt, and so without a chat format. `released` is
what the released code computes: transformers' `hidden_states`, whose last entry alone carries the final norm, compared
position by position over the padding too. Published histograms: Mistral-7B-v0.1, all 1,350 test instances at layer 32;
LLaMA2-7B-Chat, 1,147 at layer 29, 182 at 30, 21 at 32.

That two responses differ most after a block does not show that the block makes them differ: the residual stream grows
with depth, and so does any distance in it. That is what `relative` is for. Nor does it show that two distances measure
one thing if they agree: they may both follow the depth, which the histogram shows and kappa discounts.

Nor is it of the texts where the sink's: one massive activation at the first token (`measures.massive`) can be nearly
all of a distance. What sinks make of each is told beside it, and they can be left out.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from typing import Any, Literal

import pandas as pd
import torch
from jaxtyping import Float
from sklearn.metrics import cohen_kappa_score
from torch import Tensor

from mechinterp.data.pairs import AnyPair
from mechinterp.data.safeedit import in_order
from mechinterp.errors import InputError
from mechinterp.measures.distances import DISTANCES, Distance
from mechinterp.measures.intervals import with_ends
from mechinterp.measures.massive import MOST, Shares
from mechinterp.measures.statistics import wilson
from mechinterp.models import processes
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.names import resid_post
from mechinterp.models.passes.response_pairs import (
    PaddingSide,
    Pair,
    PairLayout,
    distances_by_block,
    padding_sees_width,
    pair_batches,
)
from mechinterp.models.passes.watching import Progress, evaluating
from mechinterp.models.text.batches import token_budget
from mechinterp.models.text.tokens import Encoded, encode

COLUMNS = ["instance", "category", "distance", "block", "value", "margin"]
COLUMNS += ["entry_share", "position", "dimension", "sink_share"]


def locate(
    checkpoint: Checkpoint,
    instances: Sequence[AnyPair],
    *,
    padding_side: PaddingSide = "left",
    truncate: bool = False,
    max_tokens: int | None = None,
    without_sinks: bool = False,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Toxic layer of every instance under every distance.

    Args:
        checkpoint: the unedited model; left exactly as it was.
        instances: their safe and unsafe responses are used.
        padding_side: of the shorter response; left in the released pipeline. It changes `released` and `residual`.
        truncate: cut responses that exceed the context at their end instead of raising.
        max_tokens: padded tokens per batch, 2,048 on a CPU and 8,192 elsewhere if not given. With 1 every pair has a
            pass to itself, and `released` is then the released code's in float32 to the last bit.
        without_sinks: leave out of every distance the positions at which a massive activation stands after any block;
            the pairs are then read twice. A response that has no other token keeps it.
        progress: called with (instances done, instances in all) of this process's share.

    Returns:
        A row per instance and distance: `instance,category,distance,block,value,margin`, value being the largest
        distance and margin how far the second largest lies below it, as a share of it, in [0, 1]; then of its square
        `entry_share`, the largest share of one dimension at one position (of distances of means, of one dimension),
        `position`, counted from the response's first token (below 0 in padding on its left), and `dimension` of that
        entry, and `sink_share`, the share of all positions with massive activations.

    Raises:
        InputError: for no instances, a response that is blank or too long, two responses of the same tokens, or
            activations that are not finite; it names the instance.
    """
    if not instances:
        raise InputError("there are no instances to locate")
    check_padding_side(padding_side)
    names = checkpoint.names
    sites = [names.site(resid_post(block)) for block in range(names.n_blocks)]
    own = list(processes.share(list(enumerate(instances))))
    pairs = _pairs(checkpoint, [instance for _, instance in own], truncate=truncate)
    if max_tokens is None:
        max_tokens = token_budget(checkpoint.device)
    same_width = padding_side == "left" and padding_sees_width(checkpoint)
    batches = pair_batches(pairs, max_tokens, apart=names.short_context, same_width=same_width)
    rows: list[tuple[int, list[tuple[Any, ...]]]] = []
    with torch.no_grad(), evaluating(checkpoint.model):
        for order in batches:
            layout = PairLayout.of([pairs[i] for i in order], padding_side, checkpoint.padding_id)
            found, shares = distances_by_block(checkpoint, sites, layout, without_sinks=without_sinks)
            for pair, (i, values) in enumerate(zip(order, found.unbind(-1), strict=True)):
                number, instance = own[i]
                if not torch.isfinite(values).all():
                    raise InputError(f"instance {instance.id}: its activations are not finite; use a wider dtype")
                starts = layout.starts[pair :: len(order)].tolist()
                peaks = ((*peak, *_entry(shares, d, peak[1], pair, starts)) for d, peak in enumerate(_peaks(values)))
                rows.append((number, [(instance.id, instance.category, *peak) for peak in peaks]))
            if progress is not None:
                progress(len(rows), len(own))
    every = [row for _, part in sorted(processes.gather(rows)) for row in part]
    return pd.DataFrame(every, columns=COLUMNS)


def _pairs(checkpoint: Checkpoint, instances: Sequence[AnyPair], *, truncate: bool) -> list[Pair]:
    context = checkpoint.names.context_length
    for instance in instances:
        for kind, text in (("safe", instance.safe), ("unsafe", instance.unsafe)):
            if not text.strip():
                raise InputError(f"instance {instance.id}: its {kind} response is blank; leave the instance out")
    texts = [text for instance in instances for text in (instance.safe, instance.unsafe)]
    called = [f"instance {instance.id}: its {kind} response" for instance in instances for kind in ("safe", "unsafe")]
    encoded = encode(checkpoint.tokenizer, texts, max_length=2**31, called=called)
    pairs = []
    for instance, safe, unsafe in zip(instances, encoded[::2], encoded[1::2], strict=True):
        longest = max(len(safe.ids), len(unsafe.ids))
        if longest > context and not truncate:
            raise InputError(
                f"instance {instance.id}: a response has {longest} tokens, the context {context}; "
                "cut it at its end (`truncate=True`) or use a model with a longer context"
            )
        pair = Encoded(safe.ids[:context], 1), Encoded(unsafe.ids[:context], 1)
        if pair[0].ids == pair[1].ids:
            raise InputError(
                f"instance {instance.id}: its two responses are the same tokens, so no layer sets them apart; "
                "leave the instance out"
            )
        pairs.append(pair)
    return pairs


def _peaks(values: Float[Tensor, "distance block"]) -> list[tuple[Distance, int, float, float]]:
    """Every distance with the (first) block at which it is largest, its value there and its margin."""
    found = []
    for distance, by_block in zip(DISTANCES, values, strict=True):
        largest, second = torch.cat([by_block, by_block.new_zeros(1)]).sort(descending=True).values[:2].tolist()
        margin = (largest - second) / largest if largest else 0.0
        found.append((distance, int(by_block.argmax()), largest, margin))
    return found


def _entry(shares: Shares, distance: int, block: int, pair: int, starts: list[int]) -> tuple[float, int, int, float]:
    """Share, position in its response and dimension of the largest entry, and the share of sinks."""
    place = distance, block, pair
    start = starts[int(shares.unsafe[place])]
    return (
        float(shares.entry[place]),
        int(shares.position[place]) - start,
        int(shares.dimension[place]),
        float(shares.sinks[place]),
    )


def check_padding_side(side: str) -> None:
    """Raise `InputError` unless padding can go there."""
    if side not in ("left", "right"):
        raise InputError(f"the padding side must be left or right, got {side!r}")


def histogram(located: pd.DataFrame, n_blocks: int, *, by: Literal["category"] | None = None) -> pd.DataFrame:
    """The audit: how many instances have their toxic layer at each block, under every distance.

    Args:
        located: the table of `locate`.
        n_blocks: of the model.
        by: count each category of the instances for itself, those that occur, the paper's in its order.

    Returns:
        A row per distance and block: `distance,block,count,sinks`, sinks being those of the count whose layer is the
        sink's: massive activations make most of the distance; with `by`, that column first.
    """
    columns = ["distance", "block"] if by is None else [by, "distance", "block"]
    kinds = [()] if by is None else [(category,) for category in in_order(located[by])]
    every = [(*kind, distance, block) for kind in kinds for distance in DISTANCES for block in range(n_blocks)]
    index = pd.MultiIndex.from_tuples(every, names=columns)
    of_sinks = (located["sink_share"] > MOST).rename("sinks")
    counts = located.assign(sinks=of_sinks).groupby(columns)["sinks"].agg(["size", "sum"])
    return counts.reindex(index, fill_value=0).set_axis(["count", "sinks"], axis=1).reset_index()


def sinks_in_words(located: pd.DataFrame) -> list[str]:
    """A line for every distance under which massive activations decide any toxic layer.

    Args:
        located: the table of `locate`.
    """
    lines = []
    for distance, rows in located.groupby("distance", sort=False):
        of_sinks = rows[rows["sink_share"] > MOST]
        if of_sinks.empty:
            continue
        places = Counter(zip(of_sinks["position"], of_sinks["dimension"], strict=True))
        (position, dimension), _ = places.most_common(1)[0]
        lines.append(
            f"{distance}: the layer is the sink's in {len(of_sinks)} of {len(rows)} instances: massive activations "
            f"make most of the squared distance (most often dimension {dimension} at position {position}; in the "
            f"median one entry alone makes {of_sinks['entry_share'].median():.0%})"
        )
    return lines


def agreement(located: pd.DataFrame) -> pd.DataFrame:
    """How often two distances put the toxic layer of an instance at the same block.

    Two distances that both name the last block for nearly every instance agree without saying the same of any one of
    them: Cohen's kappa sets their agreement against what their two histograms would give by chance.

    Args:
        located: the table of `locate`.

    Returns:
        A row per pair of distances: `distance,other,n,share,share_low,share_high,kappa`: the instances, the share of
        them at the same block with Wilson's 95% interval, and kappa in [-1, 1], nan where both always name one and
        the same block, so that chance explains everything.
    """
    if located.duplicated(["instance", "distance"]).any():
        raise InputError("an instance was located more than once by one distance; give each instance once")
    blocks = located.pivot(index="instance", columns="distance", values="block")
    rows = []
    for distance, other in combinations([d for d in DISTANCES if d in blocks], 2):
        one, two = (part.astype(int).to_numpy() for _, part in blocks[[distance, other]].dropna().items())
        share = wilson(int((one == two).sum()), len(one))
        constant = len({*one, *two}) < 2
        kappa = math.nan if constant else float(cohen_kappa_score(one, two))
        rows.append({"distance": distance, "other": other, "n": len(one), **share.columns("share"), "kappa": kappa})
    return pd.DataFrame(rows, columns=["distance", "other", "n", *with_ends("share"), "kappa"])
