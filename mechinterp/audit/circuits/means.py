"""What every writer writes on the average prompt: what edges outside a circuit carry under mean replacement.

    mean_u[t] = mean of z_u at position t, over both prompts of pairs that are not themselves measured

By position from the first token, so that a sink stays where it is; padding does not count. Clean and corrupted prompts
are in it alike: it tells neither behaviour from the other, where the corrupted prompt's writes call for the other one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.audit.circuits.batches import TokenPair, check_pairs, pair_batches
from mechinterp.audit.circuits.places import Places
from mechinterp.audit.circuits.writes import Ends, written
from mechinterp.errors import InputError
from mechinterp.models import processes
from mechinterp.models.checkpoints import Checkpoint


@torch.no_grad()
def mean_writes(
    checkpoint: Checkpoint,
    held_out: Sequence[TokenPair],
    pairs: Sequence[TokenPair],
    *,
    max_tokens: int | None = None,
) -> Float[Tensor, "writer pos d_model"]:
    """The mean write of every writer at every position.

    Args:
        checkpoint: the model; left exactly as it was.
        held_out: the pairs that it is the mean of.
        pairs: those that are to be measured, none longer than the longest of these.
        max_tokens: padded tokens of a batch, see `pair_batches`.

    Returns:
        In float32 or better, on the device of the first block.

    Raises:
        InputError: without pairs that are held out, or for a longer one to be measured.
    """
    if not held_out:
        raise InputError("the mean is of other pairs than are measured; give some as `held_out`")
    check_pairs(held_out)
    longest = max(len(pair.clean) for pair in held_out)
    for number, pair in enumerate(pairs):
        if len(pair.clean) > longest:
            raise InputError(
                f"pair {number} has {len(pair.clean)} tokens, those of which the mean is taken have at most {longest}; "
                "give longer ones as `held_out`"
            )
    places = Places.of(checkpoint)
    total: Tensor | None = None
    prompts = torch.zeros(longest, dtype=torch.float64)
    for batch in pair_batches(checkpoint, places.graph, held_out, max_tokens):
        ends, width = Ends.of(checkpoint, places, batch), batch.shape[1]
        there = torch.arange(width) < torch.tensor([len(pair.clean) for pair in batch.pairs])[:, None]
        prompts[:width] += 2 * there.sum(0)
        for values in (ends.clean, ends.corrupted):
            own = written(places, values, slice(0, width))
            if total is None:
                total = own.new_zeros(len(own), longest, own.shape[-1])
            total[:, :width] += torch.einsum("wbtd,bt->wtd", own, there.to(own))
    if total is None:  # of a process without a batch
        total = torch.zeros(len(places.graph.writers), longest, checkpoint.names.d_model, device=checkpoint.device)
    processes.add_up([total, prompts])
    return total / prompts.to(total)[:, None]


def held_apart(pairs: Sequence[TokenPair]) -> list[bool]:
    """Which of some pairs the mean is taken of, half of them: of each two that follow in length the longer one.

    Raises:
        InputError: for fewer than two.
    """
    if len(pairs) < 2:
        raise InputError(
            f"of {len(pairs)} pair of prompts none can be held out for the mean; give two or more, or replace otherwise"
        )
    order = sorted(range(len(pairs)), key=lambda number: -len(pairs[number].clean))
    chosen = set(order[::2])
    return [number in chosen for number in range(len(pairs))]
