"""Whether a model has h_mid, the residual stream between attention and MLP; checked on its own forward pass."""

from __future__ import annotations

import torch
from torch import Tensor

from mechinterp.errors import InputError
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.watching import evaluating, run_until_seen, watching


def check_middle_stream(checkpoint: Checkpoint) -> None:
    """Check on the model's own forward pass that h_mid exists: input of `ln2` + MLP write == output of the block.

    Raises:
        InputError: where attention and MLP run in parallel, or the block normalises after adding; a number taken there
            would not be the residual stream between attention and MLP.
    """
    names = checkpoint.names
    sites = [names.site(f"blocks.0.{point}") for point in ("hook_resid_mid", "hook_mlp_out", "hook_resid_post")]
    seen: dict[str, Tensor] = {}
    token = torch.full((1, 2), checkpoint.padding_id, device=checkpoint.device)
    token[0, 1] = (token[0, 0] + 1) % len(checkpoint.tokenizer)
    with evaluating(checkpoint.model), watching(checkpoint.model, sites, seen.__setitem__):
        run_until_seen(checkpoint.model, input_ids=token)
    middle, write, after = (seen[site.name].reshape(-1) for site in sites)
    if not adds_up(middle, write, after):
        raise InputError(
            f"{names.source}: {type(checkpoint.model).__name__} has no residual stream between attention and MLP "
            "(parallel blocks, or a norm after the addition), so hook_resid_mid does not exist"
        )


def adds_up(middle: Tensor, write: Tensor, after: Tensor) -> bool:
    """Whether a block's output is the stream before its MLP + what the MLP writes.

    Added in the model's own type, so that the sum is the model's; in another graph it is off by the attention's write.
    """
    # not "<=": a NaN is no sign of another graph, and is reported as what it is where it is met
    return not bool((middle + write - after).float().norm() > 0.03 * write.float().norm())


def has_middle_stream(checkpoint: Checkpoint) -> bool:
    """Whether blocks have a residual stream between attention and MLP."""
    try:
        check_middle_stream(checkpoint)
    except InputError:
        return False
    return True
