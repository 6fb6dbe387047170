"""A circuit alone: the clean prompt, with every edge outside the circuit carrying what another run writes.

    input of reader v += sum over edges u -> v outside the circuit of (z_u(replacement) - z_u(this run))

so kept edges carry what their writer computes in this very run. A full circuit gives the model's logits on the clean
prompt, an empty one those of the replacement. Replacements: the corrupted prompt's writes, the mean over other prompts
(`means`), or zero (then a reader's floor is what no node writes: the biases of the attentions' output matrices).

Each query, key and value gets a stream of its own: its slice of the projection's output is computed anew from
norm(stream + correction). The model's own pass does the rest.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mechinterp.audit.circuits.batches import PairBatch
from mechinterp.audit.circuits.circuit import Circuit
from mechinterp.audit.circuits.graph import LETTERS
from mechinterp.audit.circuits.places import Places
from mechinterp.audit.circuits.projections import Projection, wide_type
from mechinterp.audit.circuits.writes import Ends, heads_written, last_logits, with_first, written
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.watching import evaluating

Replacement = Literal["corrupted", "mean", "zero"]
REPLACEMENTS: tuple[Replacement, ...] = ("corrupted", "mean", "zero")


@dataclass(frozen=True)
class Replaced:
    """What edges outside a circuit carry, for the pairs of a batch.

    Attributes:
        writes: of every writer, at `columns`.
        columns: those at which a run can differ from the clean one.
    """

    writes: Float[Tensor, "writer pair pos d_model"]
    columns: slice

    @classmethod
    def of(
        cls,
        places: Places,
        batch: PairBatch,
        ends: Ends,
        by: Replacement,
        means: Float[Tensor, "writer pos d_model"] | None = None,
    ) -> Replaced:
        """The replacement of a batch.

        Args:
            places, batch, ends: of the checkpoint on these pairs.
            by: what stands in for a writer.
            means: of `mean_writes`, where it is the mean.
        """
        if by == "corrupted":
            return cls(written(places, ends.corrupted, batch.differing), batch.differing)
        columns = slice(0, batch.shape[1])
        if by == "mean":
            assert means is not None
            return cls(means[:, None, columns].expand(-1, batch.shape[0], -1, -1), columns)
        return cls(torch.zeros_like(written(places, ends.clean, columns)), columns)


@torch.no_grad()
def run_circuit(
    checkpoint: Checkpoint,
    places: Places,
    batch: PairBatch,
    circuit: Circuit,
    replaced: Replaced,
    *,
    silenced: Collection[tuple[int, Tensor]] = (),
) -> Float[Tensor, "pair vocabulary"]:
    """The logits at the last token of the clean prompts when only a circuit is at work.

    Args:
        checkpoint, places: the model; left as it was.
        batch: of pairs.
        circuit: of the model's graph.
        replaced: what the other edges carry.
        silenced: queries, keys or values that are replaced outright: number of the reader, and [pair, pos, width].
    """
    with evaluating(places.model), _Run(places, batch, circuit, replaced, dict(silenced)).hooked():
        return last_logits(checkpoint, batch.clean)


class _Run:
    """One pass: what has been written so far, less its replacement, corrects what is read."""

    def __init__(
        self, places: Places, batch: PairBatch, circuit: Circuit, replaced: Replaced, silenced: dict[int, Tensor]
    ) -> None:
        self.places, self.graph, self.shape = places, places.graph, batch.shape
        self.replaced, self.columns, self.silenced = replaced, replaced.columns, silenced
        self.cut = self.graph.edges & ~circuit.edges
        writing = torch.cat([circuit.edges.any(1), torch.ones(1, dtype=torch.bool)])
        feeds_none = ~self.graph.entries[writing].any(0)  # what such a reader's node writes, no kept edge carries
        self.cut[:, feeds_none] = False
        self.missing = torch.zeros_like(replaced.writes)
        self.normed: dict[int, Tensor] = {}  # what the norm in front makes of each corrected stream of a block

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Hooks on the model for the time of the context."""
        places, graph = self.places, self.graph
        with ExitStack() as stack:

            def before(path: str, hook: Any) -> None:
                stack.callback(places.module(path).register_forward_pre_hook(hook, with_kwargs=True).remove)

            def after(path: str, hook: Any) -> None:
                stack.callback(places.module(path).register_forward_hook(hook).remove)

            before(places.first, self._begins)
            for number, block in enumerate(places.blocks):
                before(block.attention_norm, partial(self._streams, number))
                by_module: dict[str, list[tuple[str, Projection]]] = {}
                for letter in LETTERS:
                    projection = block.projections[letter]
                    by_module.setdefault(projection.path, []).append((letter, projection))
                for path, projections in by_module.items():
                    after(path, partial(self._projects, number, projections))
                before(block.out, partial(self._heads_write, number))
                before(block.mlp_norm, partial(self._corrects, graph.reader(number, "m")))
                after(block.mlp, partial(self._mlp_writes, number))
            before(places.final_norm, partial(self._corrects, len(graph.readers) - 1))
            yield

    def _part(self, value: Tensor) -> Float[Tensor, "pair pos d"]:
        """The columns that may differ, in float32 or better."""
        part = value.reshape(*self.shape, -1)[:, self.columns]
        return part.to(wide_type(part.dtype))

    def _correction(self, readers: Tensor) -> Float[Tensor, "reader pair pos d_model"]:
        """What is to be added to the streams of some readers of the same reach."""
        reach = int(self.graph.reach[readers[0]])
        mask = self.cut[:reach, readers].T.to(self.missing)
        return (mask @ self.missing[:reach].flatten(1)).unflatten(1, self.missing.shape[1:])

    # -- what is written ----------------------------------------------------------------------------------------

    def _misses(self, first: int, now: Float[Tensor, "writer pair pos d_model"]) -> None:
        kept = slice(first, first + len(now))
        self.missing[kept] = self.replaced.writes[kept] - now.to(self.missing)

    def _begins(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        self._misses(0, self._part(_first(args, kwargs))[None])

    def _heads_write(self, block: int, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        own = heads_written(self.places, block, self._part(_first(args, kwargs)))
        self._misses(self.graph.head(block), own)

    def _mlp_writes(self, block: int, module: nn.Module, args: Any, output: Any) -> None:
        own = output[0] if isinstance(output, tuple) else output
        self._misses(self.graph.head(block, self.graph.heads), self._part(own)[None])

    # -- what is read -------------------------------------------------------------------------------------------

    def _streams(self, block: int, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        """A stream for each query, key and value of a block that has one of its own, through the norm."""
        first = self.graph.reader(block)
        own = self.cut[:, first : first + self.graph.readers_of_attention].any(0).nonzero().flatten()
        self.normed = {}
        if len(own):
            stream = self._part(_first(args, kwargs))
            corrected = stream + self._correction(own + first).to(stream)
            normed = self.places.normed(self.places.blocks[block].attention_norm, corrected)
            self.normed = dict(zip((own + first).tolist(), normed, strict=True))

    def _corrects(self, reader: int, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        """The stream in front of a norm, corrected for its one reader."""
        if not bool(self.cut[:, reader].any()):
            return None
        stream = _first(args, kwargs)
        changed = stream.reshape(*self.shape, -1).clone()
        corrected = self._part(stream) + self._correction(torch.tensor([reader]))[0].to(changed.device)
        changed[:, self.columns] = corrected.to(changed)
        return with_first(args, kwargs, changed.reshape(stream.shape))

    def _projects(
        self, block: int, projections: list[tuple[str, Projection]], module: nn.Module, args: Any, output: Tensor
    ) -> Tensor | None:
        """A projection's output, with the slices of those heads anew whose stream is another."""
        changed: Tensor | None = None
        for letter, projection in projections:
            first = self.graph.reader(block, letter)
            heads = [head for head in range(projection.heads) if first + head in self.normed]
            silent = [head for head in range(projection.heads) if first + head in self.silenced]
            if not (heads or silent):
                continue
            if changed is None:
                changed = output.reshape(*self.shape, -1).clone()
            theirs = projection.of(changed)  # a view
            if heads:
                theirs[:, self.columns, heads] = self._anew(projection, first, heads).to(changed)
            for head in silent:
                theirs[:, :, head] = self.silenced[first + head].to(changed)
        return None if changed is None else changed.reshape(output.shape)

    def _anew(self, projection: Projection, first: int, heads: list[int]) -> Float[Tensor, "pair pos head width"]:
        """Queries, keys or values of some heads, from streams of their own."""
        normed = torch.stack([self.normed[first + head] for head in heads])
        rows, bias = projection.rows(normed.dtype), projection.bias(normed.dtype)
        found = torch.einsum("hbtd,hwd->bthw", normed, rows[heads])
        return found if bias is None else found + bias[heads]


def _first(args: Any, kwargs: dict[str, Any]) -> Tensor:
    found: Tensor = args[0] if args else kwargs["hidden_states"]
    return found
