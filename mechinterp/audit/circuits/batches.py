"""Pairs of prompts as a model reads them: clean and corrupted side by side, with what is asked at their last token.

    metric(pair) = mean logit of the right tokens - mean logit of the wrong ones     (without wrong ones: of the right)

at the last prompt token. Both prompts of a pair have the same number of tokens, so that every position of one has its
counterpart in the other. What stands before the first token that differs is the same in both, and nothing there needs
to be held.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.audit.circuits.graph import Graph
from mechinterp.errors import InputError
from mechinterp.models import processes
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.text.batches import Batch, length_batches, pad
from mechinterp.models.text.tokens import Encoded

_BYTES, _BYTES_ON_GPU = 2**28, 2**31


@dataclass(frozen=True)
class TokenPair:
    """Two prompts of the same number of tokens, and the tokens that tell them apart.

    Attributes:
        clean: the prompt that shows the behaviour.
        corrupted: one that does not.
        right: tokens that the clean prompt calls for.
        wrong: those that the corrupted one calls for; may be empty.
        subject: positions of what the clean prompt is about; empty where that is not known.
    """

    clean: tuple[int, ...]
    corrupted: tuple[int, ...]
    right: tuple[int, ...]
    wrong: tuple[int, ...] = ()
    subject: tuple[int, ...] = ()

    @property
    def first_difference(self) -> int:
        """The first position at which they differ; the last one where none does."""
        places = (i for i, (a, b) in enumerate(zip(self.clean, self.corrupted, strict=True)) if a != b)
        return next(places, len(self.clean) - 1)

    @property
    def differences(self) -> int:
        """At how many positions they differ."""
        return sum(a != b for a, b in zip(self.clean, self.corrupted, strict=True))


def check_pairs(pairs: Sequence[TokenPair]) -> None:
    """Refuse what no circuit can be found on.

    Raises:
        InputError: for no pairs, prompts without tokens or of different lengths, or no token to read.
    """
    if not pairs:
        raise InputError("there are no pairs of prompts; give at least one")
    for number, pair in enumerate(pairs):
        if len(pair.clean) != len(pair.corrupted):
            raise InputError(
                f"pair {number}: the clean prompt has {len(pair.clean)} tokens and the corrupted one "
                f"{len(pair.corrupted)}; a circuit needs two of the same number: change one of them"
            )
        if not pair.clean:
            raise InputError(f"pair {number}: its prompts have no tokens")
        if not pair.right:
            raise InputError(f"pair {number}: there is no right token to read; give at least one")


@dataclass(frozen=True)
class PairBatch:
    """Some pairs of a batch, padded on the right.

    Attributes:
        numbers: of the pairs, among all.
        pairs: themselves.
        clean, corrupted: as they are fed.
        both: the clean prompts, then the corrupted ones.
    """

    numbers: tuple[int, ...]
    pairs: tuple[TokenPair, ...]
    clean: Batch
    corrupted: Batch
    both: Batch

    @classmethod
    def of(cls, checkpoint: Checkpoint, pairs: Sequence[TokenPair], numbers: Sequence[int]) -> PairBatch:
        """Some of the pairs, for a checkpoint."""
        some = [pairs[number] for number in numbers]
        ids = [[pair.clean for pair in some], [pair.corrupted for pair in some]]

        def batch(texts: Sequence[tuple[int, ...]]) -> Batch:
            encoded = [Encoded.of(text, len(text)) for text in texts]
            return pad(encoded, pad_id=checkpoint.padding_id, device=checkpoint.device)

        return cls(tuple(numbers), tuple(some), batch(ids[0]), batch(ids[1]), batch([*ids[0], *ids[1]]))

    @property
    def shape(self) -> tuple[int, int]:
        """Pairs and columns."""
        return len(self.pairs), int(self.clean.input_ids.shape[1])

    @cached_property
    def differing(self) -> slice:
        """The columns from the first in which a pair differs."""
        return slice(min(pair.first_difference for pair in self.pairs), self.shape[1])

    def lasts(self, batch: Batch) -> tuple[list[int], list[int]]:
        """Row and column of the last token of every prompt of a batch."""
        return list(range(len(batch.lengths))), [length - 1 for length in batch.lengths]

    def metric(self, logits: Float[Tensor, "pair vocabulary"]) -> Float[Tensor, " pair"]:
        """The metric of every pair from the logits at its last token, float32 or better."""
        found = []
        for row, pair in zip(logits, self.pairs, strict=True):
            wide = row.to(torch.promote_types(row.dtype, torch.float32))
            value = wide[list(pair.right)].mean()
            found.append(value - wide[list(pair.wrong)].mean() if pair.wrong else value)
        return torch.stack(found)


def room(device: torch.device) -> int:
    """Bytes that a batch may take of what writers write, or of what readers' gradients are."""
    return _BYTES if device.type == "cpu" else _BYTES_ON_GPU


def pair_batches(
    checkpoint: Checkpoint, graph: Graph, pairs: Sequence[TokenPair], max_tokens: int | None = None
) -> Iterator[PairBatch]:
    """This process's share of the pairs in batches: as many as leave room for what all writers write.

    Args:
        checkpoint: that reads them.
        graph: of its nodes.
        pairs: checked here.
        max_tokens: padded tokens of a batch, of one of the two prompts; by default 256 MB of writes on a CPU and 2 GB
            elsewhere.

    Raises:
        InputError: as `check_pairs`, or for prompts that exceed the context.
    """
    check_pairs(pairs)
    context = checkpoint.names.context_length
    for number, pair in enumerate(pairs):
        if len(pair.clean) > context:
            raise InputError(
                f"pair {number} has {len(pair.clean)} tokens, {checkpoint.source} reads at most {context}; shorten it"
            )
    if max_tokens is None:
        max_tokens = max(1, room(checkpoint.device) // (4 * len(graph.writers) * checkpoint.names.d_model))
    lengths = [len(pair.clean) for pair in pairs]
    batches = list(length_batches(lengths, max_tokens, apart=checkpoint.names.short_context))
    for numbers in processes.share(batches):
        yield PairBatch.of(checkpoint, pairs, numbers)
