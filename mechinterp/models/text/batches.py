"""Token sequences of similar length, padded into batches within a budget of tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mechinterp.errors import InputError
from mechinterp.models.text.tokens import Encoded


@dataclass(frozen=True)
class Batch:
    """Padded sequences.

    Attributes:
        starts: the column at which each sequence begins.
        lengths: of each sequence, in tokens.
        prompt_lengths: how many of them are its prompt.
        contents: which of those are the user's text, counted from its start.
        side: where the padding is.
    """

    input_ids: Int[Tensor, "batch pos"]
    attention_mask: Int[Tensor, "batch pos"]
    position_ids: Int[Tensor, "batch pos"]
    starts: tuple[int, ...]
    lengths: tuple[int, ...]
    prompt_lengths: tuple[int, ...]
    contents: tuple[range, ...]
    side: Literal["left", "right"]

    def inputs(self) -> dict[str, Tensor]:
        """What a causal model needs of it.

        Padding on the right needs no mask: no token sees what comes after it. Attention is faster without one.
        """
        if self.side == "right":
            return {"input_ids": self.input_ids}
        return {
            "input_ids": self.input_ids,
            "attention_mask": self.attention_mask,
            "position_ids": self.position_ids,
        }


def pad(
    sequences: Sequence[Encoded],
    *,
    pad_id: int,
    side: Literal["left", "right"] = "right",
    device: torch.device | str = "cpu",
) -> Batch:
    """Pad sequences into one batch, with position ids that ignore the padding."""
    if side not in ("left", "right"):
        raise InputError(f"side must be 'left' or 'right', got {side!r}")
    lengths = [len(sequence.ids) for sequence in sequences]
    width = max(lengths)
    starts = tuple(width - length if side == "left" else 0 for length in lengths)
    ids = np.full((len(sequences), width), pad_id, dtype=np.int64)
    for row, (sequence, start) in enumerate(zip(sequences, starts, strict=True)):
        ids[row, start : start + lengths[row]] = sequence.ids
    places = np.arange(width) - np.array(starts)[:, None]
    real = (places >= 0) & (places < np.array(lengths)[:, None])
    return Batch(
        input_ids=to_device(torch.from_numpy(ids), torch.device(device)),
        attention_mask=to_device(torch.from_numpy(real.astype(np.int64)), torch.device(device)),
        position_ids=to_device(torch.from_numpy(np.where(real, places, 0)), torch.device(device)),
        starts=starts,
        lengths=tuple(lengths),
        prompt_lengths=tuple(sequence.prompt_length for sequence in sequences),
        contents=tuple(sequence.positions("mean") for sequence in sequences),
        side=side,
    )


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy to the device; to CUDA through pinned memory, so that the copy does not wait for the pass before it."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def token_budget(device: torch.device) -> int:
    """Padded tokens of a batch where nobody says how many: 2,048 on a CPU, 8,192 elsewhere."""
    return 2048 if device.type == "cpu" else 8192


def length_batches(
    lengths: Sequence[int], max_tokens: int, max_batch: int = 256, *, apart: int | None = None
) -> Iterator[list[int]]:
    """Indices grouped so that similar lengths share a batch of at most `max_tokens` padded tokens.

    Longest first, so that a batch that does not fit in memory fails at once. Lengths up to `apart` and longer ones
    never share a batch, see `HookNames.short_context`.
    """
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        full = batch and (lengths[batch[0]] * (len(batch) + 1) > max_tokens or len(batch) == max_batch)
        if full or (batch and apart is not None and lengths[i] <= apart < lengths[batch[0]]):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def padding_id(tokenizer: PreTrainedTokenizerBase, rows: int) -> int:
    """Id used for padding; any that the model has a row for works, because padding is always masked.

    Args:
        rows: of the embeddings; a token that was added for padding may have none.
    """
    for candidate in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if candidate is not None and candidate < rows:
            return int(candidate)
    return 0
