"""Activations at one token of each text: keys and values of an edit, streamed through the model's own forward pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.watching import evaluating, run_until_seen, watching
from mechinterp.models.text.batches import length_batches, pad, token_budget
from mechinterp.models.text.tokens import Encoded


def at_places(
    checkpoint: Checkpoint, texts: Sequence[Encoded], places: Sequence[int], hooks: Sequence[str]
) -> dict[str, Float[Tensor, "text d"]]:
    """What stands at hook points at one token of each text.

    Args:
        checkpoint: the model; left as it was.
        texts: at least one; only what comes up to the place of each is read.
        places: index of the token in each.
        hooks: TransformerLens names, see `HookNames.site`.

    Returns:
        By hook point, in the order of the texts, in float32 or wider, on the device where it was made.
    """
    read = [Encoded.of(text.ids[: place + 1], place + 1) for text, place in zip(texts, places, strict=True)]
    sites = [checkpoint.names.site(hook) for hook in hooks]
    rows: dict[str, list[Tensor]] = {hook: [] for hook in hooks}
    order: list[int] = []
    budget, apart = token_budget(checkpoint.device), checkpoint.names.short_context
    with evaluating(checkpoint.model):
        for chosen in length_batches([len(text.ids) for text in read], budget, apart=apart):
            batch = pad([read[i] for i in chosen], pad_id=checkpoint.padding_id, device=checkpoint.device)
            last = torch.tensor([length - 1 for length in batch.lengths])
            shape = batch.input_ids.shape

            def see(hook: str, values: Tensor, last: Tensor = last, shape: torch.Size = shape) -> None:
                # OPT flattens the positions of a batch in its MLP
                there = values.detach().reshape(*shape, -1)[torch.arange(shape[0]), last]
                rows[hook].append(there.to(torch.promote_types(there.dtype, torch.float32)))

            with watching(checkpoint.model, sites, see):
                run_until_seen(checkpoint.model, **batch.inputs())
            order += chosen
    back = torch.tensor(order).argsort()
    return {hook: torch.cat(found)[back] for hook, found in rows.items()}
