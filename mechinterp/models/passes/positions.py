"""Where in its sequences an intervention acts: the same tokens in generation, in scoring and in recording.

    all          every token (and the padding, which no token sees)
    prompt       every token of the prompt
    content      in a chat format the text of the user's last message; else every token of the prompt
    prompt_last  the last token of the prompt: the first token of the response is decided there
    response     every token after the prompt, as an input: what is decided there is the token after it

One pass may read prompts with responses after them; where each prompt ends is known from the batch that `reading`
publishes around the call of the model. A pass whose cache is not empty continues sequences that are being generated:
all that it reads is response. A model called without either reads prompts only, ended by its attention mask; without
one no token counts as padding.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mechinterp.errors import InputError, near
from mechinterp.models.passes.sequences import OnDevices
from mechinterp.models.text.batches import Batch

Span = Literal["all", "prompt", "content", "prompt_last", "response"]
"""The tokens that an intervention acts on, see the module."""

SPANS: tuple[Span, ...] = get_args(Span)

_READ: ContextVar[Batch | None] = ContextVar("mechinterp_batch_read", default=None)


@contextmanager
def reading(batch: Batch) -> Iterator[None]:
    """Say what the model is called on, so that interventions know where each prompt of it ends."""
    token = _READ.set(batch)
    try:
        yield
    finally:
        _READ.reset(token)


def check_span(at: str) -> None:
    """Raise `InputError` if there is no such span."""
    if at not in SPANS:
        raise InputError(f"at must be one of {SPANS}, got {at!r}{near(at, SPANS)}")


@dataclass(frozen=True)
class Selected:
    """Some positions of a pass.

    Attributes:
        shape: of the pass: sequences and columns.
        flat: their indices into the flattened pass; None for every position.
    """

    shape: tuple[int, int]
    flat: OnDevices | None

    @property
    def empty(self) -> bool:
        """Whether there are none."""
        return self.flat is not None and len(self.flat.host) == 0

    def take(self, values: Tensor) -> Float[Tensor, "row d"]:
        """The values there; of every position a view, so it must not be written to.

        Args:
            values: [batch, pos, d], or with the two joined (OPT's MLPs see their tokens in one row).
        """
        joined = self._joined(values)
        return joined if self.flat is None else joined[self.flat.on(values.device)]

    def put(self, values: Tensor, rows: Float[Tensor, "row d"]) -> Tensor:
        """A copy of the values with these there, in their type and on their device."""
        rows = rows.to(values)
        if self.flat is None:
            return rows.reshape(values.shape)
        changed = self._joined(values).clone()
        changed[self.flat.on(values.device)] = rows
        return changed.reshape(values.shape)

    def _joined(self, values: Tensor) -> Float[Tensor, "token d"]:
        joined = values.reshape(-1, values.shape[-1])
        if len(joined) != self.shape[0] * self.shape[1]:
            raise InputError(
                f"an intervention met values of shape {tuple(values.shape)} in a pass of {self.shape[0]} sequences of "
                f"{self.shape[1]} tokens; choose a hook point that sees every token once"
            )
        return joined


@dataclass(frozen=True)
class Pass:
    """What one call of a model reads.

    Attributes:
        inputs: the arguments of the call by name.
        shape: sequences and columns.
        continues: whether it continues sequences begun in an earlier pass.
        batch: as published by `reading`, if it was.
    """

    inputs: Mapping[str, Any]
    shape: tuple[int, int]
    continues: bool
    batch: Batch | None

    @classmethod
    def of(cls, model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Pass:
        """The pass that a call with these arguments is.

        Raises:
            InputError: if something else is read than what was published, or nothing that is known.
        """
        names = inspect.signature(model.forward).parameters if args else ()
        inputs = {**dict(zip(names, args, strict=False)), **kwargs}
        tokens = inputs.get("input_ids")
        tokens = inputs.get("inputs_embeds") if tokens is None else tokens
        if tokens is None:
            raise InputError("interventions need a call with input_ids (or inputs_embeds), got neither")
        shape, cache, batch = (int(tokens.shape[0]), int(tokens.shape[1])), inputs.get("past_key_values"), _READ.get()
        continues = cache is not None and cache.get_seq_length() > 0
        if batch is not None and not continues and tuple(batch.input_ids.shape) != shape:
            raise InputError(
                f"the model reads {shape[0]} sequences of {shape[1]} tokens, but {tuple(batch.input_ids.shape)} was "
                "published by reading(): put it around that very call only"
            )
        return cls(inputs, shape, continues, batch)

    def selected(self, at: Span) -> Selected:
        """The positions of the pass that a span means."""
        if at == "all" or (self.continues and at == "response"):
            return Selected(self.shape, None)
        if self.continues:
            return Selected(self.shape, OnDevices(torch.empty(0, dtype=torch.long)))
        mask = self._mask(at)
        return Selected(self.shape, None if bool(mask.all()) else OnDevices(mask.flatten().nonzero().flatten()))

    def _mask(self, at: Span) -> Bool[Tensor, "batch pos"]:
        """Which positions those are, on the host."""
        places = torch.arange(self.shape[1])
        if self.batch is not None:
            first = torch.tensor(self.batch.starts)[:, None]
            after = first + torch.tensor(self.batch.prompt_lengths)[:, None]
            if at == "content":
                start = first + torch.tensor([content.start for content in self.batch.contents])[:, None]
                end = first + torch.tensor([content.stop for content in self.batch.contents])[:, None]
                return (places >= start) & (places < end)
            stop = first + torch.tensor(self.batch.lengths)[:, None]
        else:
            real = self._real()
            last = torch.where(real, places, -1).amax(1, keepdim=True)
            first, after, stop = torch.where(real, places, self.shape[1]).amin(1, keepdim=True), last + 1, last + 1
        if at == "response":
            return (places >= after) & (places < stop)
        return (places >= (after - 1 if at == "prompt_last" else first)) & (places < after)

    def _real(self) -> Bool[Tensor, "batch pos"]:
        """Which positions hold tokens, in a pass without a published batch."""
        mask = self.inputs.get("attention_mask")
        if mask is None:
            return torch.ones(self.shape, dtype=torch.bool)
        if not isinstance(mask, Tensor) or tuple(mask.shape) != self.shape:
            raise InputError(
                f"an attention mask of another shape than {self.shape} does not say where prompts end: put "
                "reading(batch) around the call"
            )
        return mask.bool().cpu()
