"""How soon a token would be said: its rank in the logit lens, prompt by prompt, at what half blocks write and leave.

    rank 1: the token is the most probable of the vocabulary there

at the write of a block's attention, the stream between attention and MLP, the write of the MLP and the block's output,
at the last token of the prompt. Each goes through the model's own final norm and unembedding (`passes.lens`); a write
alone is no stream, and its rank says which way it pushes, not what the model would say.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechinterp.data.conversations import Prompt
from mechinterp.models import processes
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.names import attn_out, h_mid, mlp_out, resid_post
from mechinterp.models.passes.lens import Unembed, streams_at, unembedding
from mechinterp.models.passes.middle_stream import has_middle_stream
from mechinterp.models.passes.sequences import readings
from mechinterp.models.passes.watching import evaluating
from mechinterp.models.text.batches import length_batches, pad

_TOKENS = 2048  # of a batch
_LOGITS = 2**24  # logits held at a time: 64 MB in float32

POINTS = {"attention": attn_out, "middle": h_mid, "mlp": mlp_out, "block": resid_post}
"""Where ranks are taken, in the order of the pass."""


@torch.no_grad()
def token_ranks(
    checkpoint: Checkpoint, prompts: Sequence[Prompt], tokens: Sequence[int], *, truncate: bool = False
) -> dict[str, Int[Tensor, "prompt block"]]:
    """The rank of a token of each prompt, at every point of every block.

    Args:
        checkpoint: the model; left as it was.
        prompts: texts, or conversations in a chat format.
        tokens: one of each prompt.
        truncate: cut prompts that exceed the context from the left instead of raising.

    Returns:
        By point; without `middle` for blocks that have no stream between attention and MLP.
    """
    middle = has_middle_stream(checkpoint)
    points = {name: of for name, of in POINTS.items() if middle or name != "middle"}
    hooks = [of(block) for block in range(checkpoint.n_blocks) for of in points.values()]
    sites = [checkpoint.names.site(hook) for hook in hooks]
    read = readings(checkpoint, prompts, ["last"], truncate=truncate)
    lengths = [len(one.encoded.ids) for one in read]
    batches = processes.share(list(length_batches(lengths, _TOKENS, apart=checkpoint.names.short_context)))
    wanted = torch.tensor(tokens)
    found: list[tuple[int, list[list[int]]]] = []
    for order in batches:
        texts = [read[i].encoded for i in order]
        batch = pad(texts, pad_id=checkpoint.padding_id, device=checkpoint.device)
        rows, columns = torch.arange(len(order)), torch.tensor([len(text.ids) - 1 for text in texts])
        streams = streams_at(checkpoint, batch, sites, rows, columns)
        with evaluating(checkpoint.model), unembedding(checkpoint) as unembed:
            ranks = torch.stack([_ranks(unembed, streams.pop(hook), wanted[order]) for hook in hooks], dim=1)
        found += zip(order, ranks.unflatten(1, (checkpoint.n_blocks, len(points))).tolist(), strict=True)
    of_all = torch.tensor([ranks for _, ranks in sorted(processes.gather(found))])
    return {name: of_all[:, :, i] for i, name in enumerate(points)}


def _ranks(
    unembed: Unembed, stream: Float[Tensor, "prompt d_model"], tokens: Int[Tensor, " prompt"]
) -> Int[Tensor, " prompt"]:
    """Of each row: how many tokens of the vocabulary have a larger logit, and 1; a part of the rows at a time."""
    parts, step = [], 16
    while len(tokens):
        (some, stream), (own, tokens) = ((each[:step], each[step:]) for each in (stream, tokens))
        logits = unembed(some.to(unembed.device))
        step = max(16, _LOGITS // logits.shape[1])
        chosen = logits.gather(1, own.to(logits.device)[:, None])
        parts.append((logits > chosen).sum(1).cpu() + 1)
    return torch.cat(parts)
