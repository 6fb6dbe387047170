"""Locate the toxic layer of every instance under four distances, and audit how far they agree (Eq. 6).

Each pair of responses is fed without its prompt. `released` is
what the released code computes: transformers' `hidden_states`, whose last entry alone carries the final norm, compared
position by position over the padding too. Published histograms: Mistral-7B-v0.1, all 1,350 test instances at layer 32;
LLaMA2-7B-Chat, 1,147 at layer 29, 182 at 30, 21 at 32.

That two responses differ most after a block does not show that the block makes them differ: the residual stream grows
with depth, and so does any distance in it. That is what `relative` is for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp import processes
from mechinterp.data.safeedit import SafeEditInstance
from mechinterp.errors import InputError
from mechinterp.measures.region import DISTANCES, Distance, pair_distances
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.names import resid_post
from mechinterp.models.tokens import Batch, Encoded, encode, pad, padding_id
from mechinterp.models.watching import Progress, evaluating, watching


def locate(
    checkpoint: Checkpoint,
    instances: Sequence[SafeEditInstance],
    *,
    padding_side: Literal["left", "right"] = "left",
    truncate: bool = False,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Toxic layer of every instance under every distance.

    Args:
        checkpoint: the unedited model.
        instances: their safe and unsafe responses are used.
        padding_side: of the shorter response; left in the released pipeline. It changes `released` and `residual`.
        truncate: cut responses that exceed the context at their end instead of raising.

    Returns:
        A row per instance and distance: `instance,category,distance,block,value`, value being the largest distance.
    """
    if not instances:
        raise InputError("there are no instances to locate")
    names = checkpoint.names
    last = names.n_blocks - 1
    site = names.site(resid_post(last))
    rows: list[tuple[int, list[tuple[int, str, str, int, float]]]] = []
    seen: dict[str, Tensor] = {}
    pad_id = padding_id(checkpoint.tokenizer)
    with (
        torch.no_grad(),
        evaluating(checkpoint.model),
        watching(checkpoint.model, [site], seen.__setitem__, stop=False),
    ):
        own = processes.share(list(enumerate(instances)))
        for done, (order, instance) in enumerate(own, 1):
            rows.append((order, []))
            # One pair a pass: in a larger batch rounding would depend on the neighbours, and padding on their length.
            pair = encode(
                checkpoint.tokenizer, [instance.safe_generation, instance.unsafe_generation], max_length=2**31
            )
            if not truncate and (longest := max(len(text.ids) for text in pair)) > names.context_length:
                raise InputError(
                    f"instance {instance.id}: a response has {longest} tokens, the context {names.context_length}; "
                    "cut it at its end (--truncate) or use a model with a longer context"
                )
            pair = [Encoded(text.ids[: names.context_length], 1) for text in pair]
            batch = pad(pair, pad_id=pad_id, side=padding_side, device=checkpoint.device)
            # The released code gives no position ids, so that padding on the left shifts learned positions.
            normed, plain = _states(checkpoint, site.name, seen, batch, position_ids=None)
            if not bool(batch.attention_mask.all()):
                _, plain = _states(checkpoint, site.name, seen, batch, position_ids=batch.position_ids)
            masks = batch.attention_mask.bool()
            for distance in DISTANCES:
                states = normed if distance == "released" else plain
                values = pair_distances(states[:, 0], states[:, 1], masks[0], masks[1], distance)
                if not torch.isfinite(values).all():
                    raise InputError(f"instance {instance.id}: its activations are not finite; use a wider dtype")
                block = int(values.argmax())
                rows[-1][1].append((instance.id, instance.category, distance, block, float(values[block])))
            if progress is not None:
                progress(done, len(own))
    every = [row for _, part in sorted(processes.gather(rows)) for row in part]
    return pd.DataFrame(every, columns=["instance", "category", "distance", "block", "value"])


def _states(
    checkpoint: Checkpoint, last: str, seen: dict[str, Tensor], batch: Batch, *, position_ids: Tensor | None
) -> tuple[Float[Tensor, "layer pair pos d_model"], Float[Tensor, "layer pair pos d_model"]]:
    """Residual stream after every block, in float32: with the final norm on the last entry, and without."""
    output = checkpoint.model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        output_hidden_states=True,
        use_cache=False,
        **({} if position_ids is None else {"position_ids": position_ids}),
    )
    normed = torch.stack([state.to(checkpoint.device).float() for state in output.hidden_states[1:]])
    plain = normed.clone()
    plain[-1] = seen[last]
    return normed, plain


def histogram(located: pd.DataFrame, n_blocks: int) -> pd.DataFrame:
    """The audit: how many instances have their toxic layer at each block, under every distance.

    Returns:
        A row per distance and block: `distance,block,count`.
    """
    every = pd.MultiIndex.from_product([DISTANCES, range(n_blocks)], names=["distance", "block"])
    counts = located.groupby(["distance", "block"]).size().reindex(every, fill_value=0)
    return counts.rename("count").reset_index()


def toxic_block(located: pd.DataFrame, distance: Distance = "released", instance: int | None = None) -> int:
    """The toxic layer of one instance, or the most frequent one (the earliest of equals)."""
    chosen = located[located["distance"] == distance]
    if instance is not None:
        chosen = chosen[chosen["instance"] == instance]
    if chosen.empty:
        raise InputError(f"nothing was located by {distance!r} for instance {instance}")
    return int(chosen["block"].mode().min())
