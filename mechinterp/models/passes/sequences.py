"""Which sequences are read, and which values of a forward pass a position means in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechinterp.data.conversations import Prompt
from mechinterp.data.counting import many
from mechinterp.errors import InputError
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.feeding import as_fed
from mechinterp.models.text.batches import Batch, to_device
from mechinterp.models.text.tokens import Encoded, Position, generated_tokens, of_prompt


@dataclass(frozen=True)
class Reading:
    """A sequence to read: of which input, and for which positions."""

    input: int
    encoded: Encoded
    positions: tuple[Position, ...]


def readings(
    checkpoint: Checkpoint,
    prompts: Sequence[Prompt],
    positions: Sequence[Position],
    *,
    responses: Sequence[str] | None = None,
    continuations: Sequence[Encoded] | None = None,
    truncate: bool = False,
    called: Sequence[str] | None = None,
) -> list[Reading]:
    """The sequences to read, each input once where all positions can be had from one.

    The model is causal: what comes after a prompt does not reach its positions, so that one reading serves both. It
    does not where more of the prompt had to be cut once a response follows, or the continuations are of other tokens.

    Raises:
        InputError: for unknown positions, positions without their text, empty or too long texts.
    """
    if responses is not None and continuations is not None:
        raise InputError("give responses or continuations, not both")
    for position in positions:
        if generated_tokens(position) is not None and continuations is None:
            raise InputError(f"position {position!r} needs continuations, see generation.continue_greedily")
        if position == "response" and responses is None:
            raise InputError("position 'response' needs responses")
    in_prompt = tuple(position for position in positions if of_prompt(position))
    of_whole = tuple(position for position in positions if not of_prompt(position))
    tokens = partial(as_fed, checkpoint, truncate=truncate, called=called)
    followed = responses is not None or continuations is not None
    alone = tokens(prompts) if in_prompt or not followed else None
    if not (of_whole and followed):
        assert alone is not None
        return [Reading(i, text, tuple(positions)) for i, text in enumerate(alone)]
    wholes = continuations or tokens(prompts, responses)
    if len(wholes) != len(prompts):
        raise InputError(f"{many(len(prompts), 'prompt')} but {many(len(wholes), 'continuation')}")
    if alone is None:
        return [Reading(i, text, of_whole) for i, text in enumerate(wholes)]
    found = []
    for i, (prompt, whole) in enumerate(zip(alone, wholes, strict=True)):
        if whole.ids[: whole.prompt_length] == prompt.ids:
            found.append(Reading(i, whole, tuple(positions)))
        else:
            found += [Reading(i, prompt, in_prompt), Reading(i, whole, of_whole)]
    return found


class OnDevices:
    """A small tensor of the host, copied to each device once and without waiting for it."""

    def __init__(self, host: Tensor) -> None:
        self.host, self._copies = host, {}

    _copies: dict[torch.device, Tensor]

    def on(self, device: torch.device) -> Tensor:
        """The tensor there."""
        if device not in self._copies:
            self._copies[device] = to_device(self.host, device)
        return self._copies[device]


@dataclass(frozen=True)
class Window:
    """The values of a batch that a position means.

    Attributes:
        shape: of the batch: sequences and columns.
        rows: the sequences that have the position.
        first, stop: the columns of each, half open, [row].
        inputs: which input each row is, [row].
        left_out: the columns between those ends that count for nothing, [row, pos]; None for none.
    """

    shape: tuple[int, int]
    rows: Int[Tensor, " row"]
    first: Int[Tensor, " row"]
    stop: Int[Tensor, " row"]
    inputs: Int[Tensor, " row"]
    left_out: Bool[Tensor, "row pos"] | None = None

    @classmethod
    def of(
        cls,
        read: Sequence[Reading],
        position: Position,
        batch: Batch,
        leave_out: Callable[[Sequence[int]], Sequence[int]] | None = None,
    ) -> Window | None:
        """The window of a position in a batch, None where no sequence of it has the position.

        Args:
            read: the sequences of the batch.
            position: what is measured.
            batch: as it is fed.
            leave_out: gives for the ids of a sequence the tokens that do not count, unless no other is measured.
        """
        rows = [row for row, reading in enumerate(read) if position in reading.positions]
        if not rows:
            return None
        spans = [read[row].encoded.positions(position) for row in rows]
        for row, span in zip(rows, spans, strict=True):
            if not span:
                behind = ": nothing stands there behind the user's text" if position.startswith("post:") else ""
                raise InputError(f"prompt {read[row].input} has no tokens at position {position!r}{behind}")
        starts = torch.tensor([batch.starts[row] for row in rows])
        left_out = torch.zeros(len(rows), batch.input_ids.shape[1], dtype=torch.bool)
        for i, (row, span) in enumerate(zip(rows, spans, strict=True)):
            found = [place for place in leave_out(read[row].encoded.ids) if place in span] if leave_out else []
            if found and len(found) < len(span):
                left_out[i, [batch.starts[row] + place for place in found]] = True
        return cls(
            shape=(len(read), batch.input_ids.shape[1]),
            rows=torch.tensor(rows),
            first=starts + torch.tensor([span.start for span in spans]),
            stop=starts + torch.tensor([span.stop for span in spans]),
            inputs=torch.tensor([read[row].input for row in rows]),
            left_out=left_out if bool(left_out.any()) else None,
        )

    def mean(self, values: Tensor) -> Float[Tensor, "row d"]:
        """Mean over the window of each sequence, accumulated in float32 or better.

        One token is gathered, without arithmetic: its value is the model's own, bit for bit.

        Args:
            values: [batch, pos, d], or with the two joined (OPT's MLPs see their tokens in one row).
        """
        taken = self._taken(values)
        wide = torch.promote_types(values.dtype, torch.float32)
        if taken.shape[1] == 1:
            return taken[:, 0].to(wide)
        summed = taken.sum(1, dtype=wide)
        return summed / self._lengths.on(values.device).to(summed)[:, None]

    def mean_length(self, values: Tensor) -> Float[Tensor, " row"]:
        """Mean over the window of each sequence of the lengths of the values there; `values` as in `mean`."""
        wide = values.dtype if values.dtype == torch.float64 else torch.float32
        return self.mean(torch.linalg.vector_norm(values, dim=-1, keepdim=True, dtype=wide))[:, 0]

    def entry_share(self, values: Tensor) -> Float[Tensor, " row"]:
        """Largest share of one dimension at one position in the squared lengths of a window; `values` as in `mean`."""
        squares = self._taken(values).to(torch.promote_types(values.dtype, torch.float32)).square().flatten(1)
        return squares.amax(1) / squares.sum(1).clamp_min(torch.finfo(squares.dtype).tiny)

    def _taken(self, values: Tensor) -> Float[Tensor, "row pos d"]:
        """What is measured of each sequence: the one token, or the columns in which anything is, 0 for the others."""
        values = values.reshape(*self.shape, values.shape[-1])
        if self._mask is None:
            return values[self._rows.on(values.device), self._first.on(values.device)][:, None]
        part = values[:, self._span]
        if len(self.rows) < len(part):
            part = part[self._rows.on(values.device)]
        # where, not a product: a NaN in the padding must not reach the mean
        return torch.where(self._mask.on(values.device)[..., None], part, 0)

    @cached_property
    def _rows(self) -> OnDevices:
        return OnDevices(self.rows)

    @cached_property
    def _first(self) -> OnDevices:
        return OnDevices(self.first)

    @cached_property
    def _lengths(self) -> OnDevices:
        return OnDevices(self.stop - self.first - (0 if self.left_out is None else self.left_out.sum(1)))

    @cached_property
    def _span(self) -> slice:
        """The columns in which anything is measured."""
        return slice(int(self.first.min()), int(self.stop.max()))

    @cached_property
    def _mask(self) -> OnDevices | None:
        """Which of those are measured in each row, [row, pos]; None where it is one in each."""
        if bool((self.stop - self.first == 1).all()):
            return None
        places = torch.arange(self._span.start, self._span.stop)
        measured = (places >= self.first[:, None]) & (places < self.stop[:, None])
        return OnDevices(measured if self.left_out is None else measured & ~self.left_out[:, self._span])
