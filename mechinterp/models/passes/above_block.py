"""The model above one block, as a function of a vector that is added to what it writes at one token of each text.

Below that block, and before that token, nothing changes: the texts pass the model once, and each call runs only the
tokens from this one on, through the blocks above, which see what came before in the model's own cache. A gradient is
that of the vector alone.
"""

from __future__ import annotations

import copy
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
from mechinterp.models.unembedding import unembedded_at

Where = Literal["mlp", "block"]
"""What the vector is added to: the MLP's own output, before a norm that may follow it, or the block's."""


class AboveBlock:
    """Logits at the scored positions of some texts, as a function of what is added at one token of each.

    Args:
        checkpoint: the model; left as it was.
        block: from 0.
        texts: what is read; none of their scored positions is before the place.
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
        self._read(texts, places)
        inner = f"blocks.{block}.mlp.out.hook_out" if where == "mlp" else resid_post(block)
        sites = [names.site(hook) for hook in dict.fromkeys((inner, resid_post(block)))]
        seen: dict[str, Tensor] = {}
        with watching(checkpoint.model, sites, seen.__setitem__):
            run_until_seen(checkpoint.model, **self._inputs())
        # OPT flattens the positions of a batch in its MLP
        shape = self._ids.shape
        self._inner, self._after = seen[inner].reshape(*shape, -1)[:, 0], seen[resid_post(block)].reshape(*shape, -1)
        self.written = self._inner.to(torch.promote_types(self._inner.dtype, torch.float32))
        if where == "mlp":
            self._check(texts[0], places[0], block)

    def __call__(self, added: Float[Tensor, " d_model"]) -> Float[Tensor, "scored vocabulary"]:
        """Logits at the scored positions, those of the first text first."""
        after = self._stream(added)
        with ExitStack() as stack:
            for module in self._blocks[:-1]:
                stack.enter_context(forward_replaced(module, pass_through))
            stack.enter_context(forward_replaced(self._blocks[-1], lambda *args, **kwargs: after))
            stack.enter_context(unembedded_at(self.checkpoint, *self._scored, self._ids.shape[1]))
            inputs = self._inputs()
            return self.checkpoint.model(**inputs, use_cache="past_key_values" in inputs).logits[0]

    @torch.no_grad()
    def _read(self, texts: Sequence[Scored], places: Sequence[int]) -> None:
        """Line the texts up so that their places share a column, and run what comes before it, once."""
        checkpoint, first = self.checkpoint, max(places)
        rest = max(len(text.ids) - place for text, place in zip(texts, places, strict=True))
        ids = torch.full((len(texts), first + rest), checkpoint.padding_id)
        mask = torch.zeros_like(ids)
        for row, (text, place) in enumerate(zip(texts, places, strict=True)):
            own = slice(first - place, first - place + len(text.ids))
            ids[row, own], mask[row, own] = torch.tensor(list(text.ids)), 1
        positions = (mask.cumsum(1) - 1).clamp_min(0)
        ids, mask, positions = (part.to(checkpoint.device) for part in (ids, mask, positions))
        self._ids, self._mask, self._positions = ids[:, first:], mask, positions[:, first:]
        rows = [row for row, text in enumerate(texts) for _ in text.positions]
        columns = [at - place for text, place in zip(texts, places, strict=True) for at in text.positions]
        self._scored = (rows, columns)
        self._past: Any = None
        if first:
            before = {"input_ids": ids[:, :first], "attention_mask": mask[:, :first]}
            model, width = checkpoint.model, first
            with unembedded_at(checkpoint, [0], [0], width):  # no logits are wanted
                self._past = model(**before, position_ids=positions[:, :first], use_cache=True).past_key_values

    def _inputs(self) -> dict[str, Any]:
        """What the model is given from the places on; with a cache of its own, which a pass makes longer."""
        inputs = {"input_ids": self._ids, "attention_mask": self._mask, "position_ids": self._positions}
        if self._past is None:
            return inputs
        past = copy.copy(self._past)
        past.layers = [copy.copy(layer) for layer in self._past.layers]
        return {**inputs, "past_key_values": past}

    def _stream(self, added: Float[Tensor, " d_model"]) -> Float[Tensor, "text pos d_model"]:
        """What leaves the block."""
        before, moved = self._inner, added.expand(len(self._inner), -1)
        if self._norm is not None:
            moved = self._norm((before + moved.to(before.device)).to(before.dtype)) - self._norm(before)
        first = self._after[:, :1] + moved.to(self._after)[:, None]
        return torch.cat([first, self._after[:, 1:]], 1)

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
        found, before = found.reshape(-1, found.shape[-1])[place], self._after[0, 0]
        if not adds_up(before, self._stream(added)[0, 0] - before, found):
            raise InputError(
                f"{checkpoint.names.source}: what the MLP of block {block} of {type(checkpoint.model).__name__} writes "
                "is not added to the stream (a norm after the addition), which editing relies on"
            )
