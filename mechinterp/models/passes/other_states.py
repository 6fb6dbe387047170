"""A model that goes on from another's states: how probable an answer is once a block has given other values.

The states of the other model, after every block, come from one pass over the same tokens. They are put into the place
of the model's own at the positions that predict the answer's tokens: the last of the prompt, and the answer but its
last. Everything before them stays the model's own, and only the blocks above run again; the stream that enters them was
kept from the pass of the model as it is. The states after the last block are those before the final norm.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.names import HookSite, resid_post
from mechinterp.models.passes.positions import reading
from mechinterp.models.passes.scoring import token_logprobs
from mechinterp.models.passes.upper_blocks import forward_replaced, pass_through
from mechinterp.models.passes.watching import run_until_seen, watching
from mechinterp.models.text.batches import pad, to_device
from mechinterp.models.text.tokens import Encoded

States = list[Float[Tensor, "position d_model"]]
"""After every block, at the positions of all texts that predict the answers' tokens, those of the first text first."""


@torch.no_grad()
def answer_states(checkpoint: Checkpoint, texts: Sequence[Encoded]) -> States:
    """A model's states in the texts of one batch, from one pass.

    Args:
        checkpoint: in evaluation mode (`evaluating`).
        texts: prompts with the beginnings of answers.
    """
    rows, columns = _places(texts)
    batch = pad(texts, pad_id=checkpoint.padding_id, device=checkpoint.device)
    found: States = []

    def see(_: str, stream: Tensor) -> None:
        found.append(_at(stream, rows, columns))

    with watching(checkpoint.model, _sites(checkpoint), see), reading(batch):
        run_until_seen(checkpoint.model, **batch.inputs())
    return found


class OtherStates:
    """A model on the texts of one batch, whose stream after every block is kept while they are read.

    Args:
        checkpoint: in evaluation mode (`evaluating`); left as it was.
        texts: prompts with the beginnings of answers.

    Attributes:
        own: mean log-probability of each answer's tokens as the model is, in nats.
    """

    own: Float[Tensor, " text"]

    def __init__(self, checkpoint: Checkpoint, texts: Sequence[Encoded]) -> None:
        self._checkpoint, self._texts = checkpoint, texts
        self._rows, self._columns = _places(texts)
        self._streams: list[Tensor] = []
        names, model = checkpoint.names, checkpoint.model
        self._blocks = [model.get_submodule(names.module(f"blocks.{block}")) for block in range(names.n_blocks)]
        with watching(model, _sites(checkpoint), lambda _, stream: self._streams.append(stream), stop=False):
            self.own = self._means()

    def after(self, block: int, states: Float[Tensor, "position d_model"]) -> Float[Tensor, " text"]:
        """Mean log-probability of each answer's tokens with other states after a block; the blocks above run.

        Args:
            block: from 0.
            states: in any type, on any device.
        """
        stream = self._streams[block].clone()
        rows, columns = (to_device(places, stream.device) for places in (self._rows, self._columns))
        stream[rows, columns] = states.to(stream)
        with ExitStack() as stack:
            for below in self._blocks[:block]:
                stack.enter_context(forward_replaced(below, pass_through))
            stack.enter_context(forward_replaced(self._blocks[block], lambda *args, **kwargs: stream))
            return self._means()

    @torch.no_grad()
    def _means(self) -> Float[Tensor, " text"]:
        return torch.stack([each.mean() for each in token_logprobs(self._checkpoint, self._texts)])


def _sites(checkpoint: Checkpoint) -> list[HookSite]:
    return [checkpoint.names.site(resid_post(block)) for block in range(checkpoint.n_blocks)]


def _places(texts: Sequence[Encoded]) -> tuple[Int[Tensor, " position"], Int[Tensor, " position"]]:
    """Row and column, padding being on the right, of every position that predicts a token of an answer."""
    spans = [range(text.prompt_length - 1, len(text.ids) - 1) for text in texts]
    rows = torch.arange(len(texts)).repeat_interleave(torch.tensor([len(span) for span in spans]))
    return rows, torch.tensor([column for span in spans for column in span])


def _at(stream: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return stream[to_device(rows, stream.device), to_device(columns, stream.device)]
