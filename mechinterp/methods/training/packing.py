"""Documents packed whole into rows of tokens, each seeing only itself and starting at position 0."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

IGNORED = -100
"""Label of a token that has no loss."""


def packed_batches(
    documents: Sequence[list[int]], *, length: int, batch_size: int, pad: int, generator: torch.Generator
) -> Iterator[tuple[Int[Tensor, "batch pos"], Int[Tensor, "batch pos"], Int[Tensor, "batch pos"]]]:
    """Yield token ids, positions and labels for ever, packing the documents in a new order in every epoch.

    Args:
        documents: ids, of at most `length` each.
        length: tokens of a row.
        batch_size: rows of a batch.
        pad: id of what fills a row up.
        generator: of the order.

    Raises:
        ValueError: if a document does not fit into a row.
    """
    rows: list[list[list[int]]] = []
    while True:
        order = torch.randperm(len(documents), generator=generator).tolist()
        rows += _packed([documents[index] for index in order], length)
        while len(rows) >= batch_size:
            yield _as_tensors(rows[:batch_size], length, pad=pad)
            rows = rows[batch_size:]


def _packed(documents: Sequence[list[int]], length: int) -> list[list[list[int]]]:
    """Put each document into the first row of at most `length` tokens that has room for it (first fit)."""
    shortest = min(len(document) for document in documents)
    longest = max(len(document) for document in documents)
    if longest > length:
        raise ValueError(f"a document has {longest} tokens, more than sequence_length={length}; raise sequence_length")
    rows: list[list[list[int]]] = []
    open_rows: dict[int, int] = {}  # row -> tokens it has room for
    for document in documents:
        row = next((row for row, room in open_rows.items() if len(document) <= room), len(rows))
        if row == len(rows):
            rows.append([])
            open_rows[row] = length
        rows[row].append(document)
        open_rows[row] -= len(document)
        if open_rows[row] < shortest:
            del open_rows[row]
    return rows


def _as_tensors(
    rows: Sequence[Sequence[list[int]]], length: int, *, pad: int
) -> tuple[Int[Tensor, "batch pos"], Int[Tensor, "batch pos"], Int[Tensor, "batch pos"]]:
    ids = torch.full((len(rows), length), pad)
    positions = torch.zeros((len(rows), length), dtype=torch.long)
    labels = torch.full((len(rows), length), IGNORED)
    for row, documents in enumerate(rows):
        start = 0
        for document in documents:
            end = start + len(document)
            ids[row, start:end] = torch.tensor(document)
            positions[row, start:end] = torch.arange(len(document))
            # The first token of a document is preceded by another document's last: there is nothing to predict it from.
            labels[row, start + 1 : end] = ids[row, start + 1 : end]
            start = end
    return ids, positions, labels
