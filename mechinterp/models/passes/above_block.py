"""The model above one block, as a function of a vector that is added to what it writes at one token of each text.

Below that token nothing changes, so the texts pass the blocks up to this one once, and each call runs only what is
above, through the model's own forward pass (as `upper_blocks` does for weights), with a gradient of the vector alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mechinterp.errors import InputError
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.names import resid_post
from mechinterp.models.passes.middle_stream import adds_up
from mechinterp.models.passes.upper_blocks import Scored, forward_replaced, pass_through
from mechinterp.models.passes.watching import run_until_seen, watching
from mechinterp.models.text.batches import pad
from mechinterp.models.text.tokens import Encoded
from mechinterp.models.unembedding import unembedded_at

Where = Literal["mlp", "block"]
"""What the vector is added to: the MLP's own output, before a norm that may follow it, or the block's."""


class AboveBlock:
    """Logits at the scored positions of some texts, as a function of what is added at one token of each.

    Args:
        checkpoint: the model; left as it was.
        block: from 0.
        texts: what is read; padded on the right.
        places: index of the token in each.
        where: what the vector is added to.

    Attributes:
        written: what stands at the places before anything is added, [text, d_model], float32 or wider.
        lengths: scored positions of each text.

    Raises:
        InputError: if the architecture has no single value matrix there, or puts a norm between the sum of the block
            and what comes after.
    """

    written: Float[Tensor, "text d_model"]

    def __init__(
        self, checkpoint: Checkpoint, block: int, texts: Sequence[Scored], places: Sequence[int], where: Where
    ) -> None:
        names = checkpoint.names
        names.check_block(block)
        self.checkpoint, self.lengths = checkpoint, [len(text.positions) for text in texts]
        self._blocks = [checkpoint.module(f"blocks.{b}") for b in range(block + 1)]
        post = f"blocks.{block}.ln2_post"
        self._norm = checkpoint.module(post) if where == "mlp" and names.has(post) else None
        batch = pad([Encoded.of(text.ids, 1) for text in texts], pad_id=checkpoint.padding_id, device=checkpoint.device)
        inner = f"blocks.{block}.mlp.out.hook_out" if where == "mlp" else resid_post(block)
        sites = [names.site(hook) for hook in dict.fromkeys((inner, resid_post(block)))]
        seen: dict[str, Tensor] = {}
        with watching(checkpoint.model, sites, seen.__setitem__):
            run_until_seen(checkpoint.model, **batch.inputs())
        self._ids = batch.input_ids
        shape = self._ids.shape
        self._rows, self._places = torch.arange(len(texts)), torch.tensor(places)
        # OPT flattens the positions of a batch in its MLP
        self._inner = seen[inner].reshape(*shape, -1)[self._rows, self._places]
        self._after = seen[resid_post(block)].reshape(*shape, -1)
        self.written = self._inner.to(torch.promote_types(self._inner.dtype, torch.float32))
        counts = torch.tensor(self.lengths)
        rows = torch.repeat_interleave(torch.arange(len(texts)), counts).tolist()
        columns = [position for text in texts for position in text.positions]
        self._scored = (rows, columns)
        if where == "mlp":
            self._check(texts[0], places[0], block)

    def __call__(self, added: Float[Tensor, " d_model"]) -> Float[Tensor, "scored vocabulary"]:
        """Logits at the scored positions, those of the first text first."""
        after = self._stream(added)
        model = self.checkpoint.model
        with ExitStack() as stack:
            for module in self._blocks[:-1]:
                stack.enter_context(forward_replaced(module, pass_through))
            stack.enter_context(forward_replaced(self._blocks[-1], lambda *args, **kwargs: after))
            stack.enter_context(unembedded_at(self.checkpoint, *self._scored, self._ids.shape[1]))
            return model(input_ids=self._ids, use_cache=False).logits[0]

    def _stream(self, added: Float[Tensor, " d_model"]) -> Float[Tensor, "text pos d_model"]:
        """What leaves the block."""
        before, moved = self._inner, added.expand(len(self._rows), -1)
        if self._norm is not None:
            moved = self._norm((before + moved.to(before.device)).to(before.dtype)) - self._norm(before)
        rows, places = self._rows.to(self._after.device), self._places.to(self._after.device)
        return self._after.index_put((rows, places), moved.to(self._after), accumulate=True)

    @torch.no_grad()
    def _check(self, text: Scored, place: int, block: int) -> None:
        """Run the first text once with something added to the MLP's output: is what leaves the block as reckoned?"""
        checkpoint = self.checkpoint
        ids = torch.tensor([list(text.ids[: place + 1])], device=checkpoint.device)
        added = self._inner[0].roll(1)  # of its size, and no multiple of it, to which a norm would be blind
        seen: dict[str, Tensor] = {}

        def add(_: nn.Module, args: Any, output: Tensor) -> Tensor:
            there = output.reshape(*ids.shape, -1).clone()
            there[0, place] += added.to(there)
            return there.reshape(output.shape)

        handle = checkpoint.module(f"blocks.{block}.mlp.out").register_forward_hook(add)
        try:
            with watching(checkpoint.model, [checkpoint.names.site(resid_post(block))], seen.__setitem__):
                run_until_seen(checkpoint.model, input_ids=ids)
        finally:
            handle.remove()
        (found,) = seen.values()
        found = found.reshape(-1, found.shape[-1])[place]
        before = self._after[0, place]
        if not adds_up(before, self._stream(added)[0, place] - before, found):
            raise InputError(
                f"{checkpoint.names.source}: what the MLP of block {block} of {type(checkpoint.model).__name__} writes "
                "is not added to the stream (a norm after the addition), which editing relies on"
            )
