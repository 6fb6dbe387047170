"""Texts as tokens: what is fed, which positions count, and how sequences are padded into batches.

A response is joined to its prompt by one space. Sequences longer than the context are an error unless truncation is
asked for, which then removes tokens on the left of the prompt: the harmful question stands at its right.
"""

from __future__ import annotations

import json
import logging
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mechinterp.errors import InputError
from mechinterp.provenance import digest

Position = str
"""`last`, `mean`, `response`, `all` or `generated:N`, see `Encoded.positions`."""

logger = logging.getLogger(__name__)

_CHUNK = 512  # texts tokenised at a time

POSITIONS = ("last", "mean", "response", "all", "generated:N")


def generated_tokens(position: Position) -> int | None:
    """The N of `generated:N`, None for every other position.

    Raises:
        InputError: if there is no such position.
    """
    kind, separator, number = position.partition(":")
    if kind == "generated" and number.isdecimal() and int(number) > 0:
        return int(number)
    if separator or position not in POSITIONS:
        raise InputError(f"position must be one of {POSITIONS}, with N at least 1, got {position!r}")
    return None


@dataclass(frozen=True)
class Encoded:
    """One sequence of token ids, of which the first `prompt_length` are the prompt; four bytes a token."""

    ids: array[int]
    prompt_length: int

    @classmethod
    def of(cls, ids: Sequence[int], prompt_length: int) -> Encoded:
        """From any sequence of ids."""
        return cls(array("i", ids), prompt_length)

    def positions(self, position: Position) -> range:
        """The token indices that a position means.

        `last`: the last prompt token; `mean`: all prompt tokens; `response`: the tokens after the prompt;
        `generated:N`: at most N of them; `all`: all.
        """
        if (wanted := generated_tokens(position)) is not None:
            return range(self.prompt_length, min(self.prompt_length + wanted, len(self.ids)))
        if position == "last":
            return range(self.prompt_length - 1, self.prompt_length)
        if position == "mean":
            return range(self.prompt_length)
        if position == "response":
            return range(self.prompt_length, len(self.ids))
        return range(len(self.ids))


@dataclass(frozen=True)
class Batch:
    """Padded sequences.

    Attributes:
        starts: the column at which each sequence begins.
        lengths: of each sequence, in tokens.
        prompt_lengths: how many of them are its prompt.
        side: where the padding is.
    """

    input_ids: Int[Tensor, "batch pos"]
    attention_mask: Int[Tensor, "batch pos"]
    position_ids: Int[Tensor, "batch pos"]
    starts: tuple[int, ...]
    lengths: tuple[int, ...]
    prompt_lengths: tuple[int, ...]
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


def encode(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    responses: Sequence[str] | None = None,
    *,
    max_length: int,
    truncate: bool = False,
    reserve: int = 0,
    prefix: str | None = None,
    suffix: str | None = None,
    called: Sequence[str] | None = None,
) -> list[Encoded]:
    """Tokenise prompts, or prompts with the responses teacher-forced after them.

    Args:
        prompts: texts; special tokens are added as the tokenizer does (a BOS where it has one).
        responses: one per prompt, joined by one space.
        max_length: context length in tokens.
        truncate: cut long prompts from the left instead of raising.
        reserve: tokens to leave free at the end, for generation.
        prefix: text before every prompt, see `wrapped`; like the suffix it is never cut, and counts as prompt.
        suffix: text after every prompt.
        called: what each prompt is called in errors; by default "prompt" and its number.

    Raises:
        InputError: for an empty prompt or response, or one that is too long and `truncate` is off, or whose prefix and
            suffix leave no room for it; it names the row.
    """
    if not prompts:
        return []
    if responses is not None and len(responses) != len(prompts):
        raise InputError(f"{len(prompts)} prompts but {len(responses)} responses")
    encoded, cut = [], 0
    for start in range(0, len(prompts), _CHUNK):  # a tokenizer's own output is many times larger than the ids
        rows = slice(start, start + _CHUNK)
        texts = [wrapped(prompt, prefix, suffix) for prompt in prompts[rows]]
        heads, tails = _tokenise(tokenizer, texts, None if responses is None else responses[rows])
        for row, (head, tail) in enumerate(zip(heads, tails, strict=True), start):
            name = f"prompt {row}" if called is None else called[row]
            if not prompts[row].strip():
                raise InputError(f"{name} is empty")
            if responses is not None and not responses[row].strip():
                raise InputError(f"response {row} is empty")
            room = max_length - reserve - len(tail)
            if len(head) > room:
                left, right = _ends(tokenizer, head, prompts[row], prefix, suffix)
                if not truncate or room <= left + right:
                    around = f" (prefix and suffix take {left + right})" if prefix or suffix else ""
                    raise InputError(
                        f"{name} has {len(head)} tokens, {max(room, 0)} fit into the context of {max_length}"
                        f"{around}; truncate from the left (--truncate) or use a model with a longer context"
                    )
                head = [*head[:left], *keep_right(head[left:], room - left, tokenizer.bos_token_id)]
                cut += 1
            encoded.append(Encoded.of([*head, *tail], len(head)))
    if cut:
        logger.warning(
            "%d of %d prompts were cut on the left to fit into the context of %d tokens", cut, len(prompts), max_length
        )
    return encoded


def wrapped(prompt: str, prefix: str | None = None, suffix: str | None = None) -> str:
    """A query: the prompt between prefix and suffix, each joined to it by one space."""
    return " ".join(part for part in (prefix, prompt, suffix) if part)


def _ends(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], prompt: str, prefix: str | None, suffix: str | None
) -> tuple[int, int]:
    """How many tokens of a query are its prefix, and how many its suffix; a BOS counts with what it stands before."""
    left = right = 0
    if prefix:
        left = _common(tokenizer(f"{prefix} ", verbose=False)["input_ids"], ids)
    elif suffix:
        left = int(ids[0] == tokenizer.bos_token_id)
    if suffix:
        right = len(ids) - _common(tokenizer(wrapped(prompt, prefix), verbose=False)["input_ids"], ids)
    return left, right


def _tokenise(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], responses: Sequence[str] | None
) -> tuple[list[list[int]], list[list[int]]]:
    """Ids of the prompts, and of what comes after them.

    Tokenised together, as the model would meet it: a SentencePiece tokenizer puts a blank of its own before a text that
    stands alone. The response begins where the whole departs from the prompt.
    """
    # verbose=False: the tokenizer's own length warning; the caller raises instead
    heads = tokenizer(list(prompts), verbose=False)["input_ids"]
    if responses is None:
        return heads, [[] for _ in heads]
    texts = [f"{prompt} {response}" for prompt, response in zip(prompts, responses, strict=True)]
    wholes = tokenizer(texts, verbose=False)["input_ids"]
    lengths = [_common(head, whole) for head, whole in zip(heads, wholes, strict=True)]
    return (
        [whole[:length] for whole, length in zip(wholes, lengths, strict=True)],
        [whole[length:] for whole, length in zip(wholes, lengths, strict=True)],
    )


def keep_right(ids: Sequence[int], length: int, bos: int | None) -> list[int]:
    """The last `length` tokens, of which the first is the BOS if the text had one."""
    if len(ids) <= length:
        return list(ids)
    special = 1 if ids[0] == bos and length > 1 else 0
    return [*ids[:special], *ids[len(ids) - length + special :]]


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the common beginning."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


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
        side=side,
    )


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy to the device; to CUDA through pinned memory, so that the copy does not wait for the pass before it."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


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


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash of what a tokenizer makes of texts: equal for tokenizers that encode alike."""
    if tokenizer.is_fast:
        described = json.loads(tokenizer.backend_tokenizer.to_str())
        described = {key: part for key, part in described.items() if key not in ("padding", "truncation")}  # of a call
    else:
        described = {"class": type(tokenizer).__name__, "vocabulary": tokenizer.get_vocab()}
    return digest([described, {name: str(token) for name, token in tokenizer.special_tokens_map.items()}])


def padding_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Id used for padding; any id works because padding is always masked."""
    for candidate in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0):
        if candidate is not None:
            return int(candidate)
    return 0
