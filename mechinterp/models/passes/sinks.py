"""Where a model's sinks stand in texts: the positions at which a massive activation stands after any block.

Means and lengths of a residual stream that are taken over positions are nearly those of the sinks among them
(`measures.massive`). Left out are the same positions at every hook point and, where models are compared on the same
text, in all of them, so that what is taken over the others still adds up and is of the same tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mechinterp.errors import InputError
from mechinterp.measures import massive
from mechinterp.models import processes
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.names import resid_post
from mechinterp.models.passes.positions import reading
from mechinterp.models.passes.watching import evaluating, run_until_seen, watching
from mechinterp.models.text.batches import length_batches, pad, token_budget
from mechinterp.models.text.tokens import Encoded


@dataclass(frozen=True)
class Sinks:
    """The sinks of one model in some texts.

    Attributes:
        positions: by the ids of a text, those of its tokens that are sinks, from 0; empty where it has none.
    """

    positions: Mapping[tuple[int, ...], tuple[int, ...]] = field(default_factory=dict)

    @classmethod
    @torch.no_grad()
    def of(cls, checkpoint: Checkpoint, texts: Iterable[Encoded], *, max_tokens: int | None = None) -> Sinks:
        """Read texts to the last block, each once.

        Args:
            checkpoint: the model; left as it was.
            texts: as they are read.
            max_tokens: padded tokens per batch; 2,048 on a CPU and 8,192 elsewhere if not given.

        Raises:
            InputError: for an architecture without a stream after each block.
        """
        sites = [checkpoint.names.site(resid_post(block)) for block in range(checkpoint.n_blocks)]
        distinct = list({tuple(text.ids): text for text in texts}.values())
        if max_tokens is None:
            max_tokens = token_budget(checkpoint.device)
        lengths = [len(text.ids) for text in distinct]
        batches = processes.share(list(length_batches(lengths, max_tokens, apart=checkpoint.names.short_context)))
        found: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
        with evaluating(checkpoint.model):
            for order in batches:
                batch = pad([distinct[i] for i in order], pad_id=checkpoint.padding_id, device=checkpoint.device)
                tokens = batch.attention_mask.bool()
                seen = torch.zeros_like(tokens)

                def look(_: str, states: Tensor, tokens: Tensor = tokens, seen: Tensor = seen) -> None:
                    new = massive.sinks(states.reshape(*tokens.shape, -1), tokens.to(states.device))
                    seen |= new.to(seen.device)

                with watching(checkpoint.model, sites, look), reading(batch):
                    run_until_seen(checkpoint.model, **batch.inputs())
                for i, row in zip(order, seen.cpu(), strict=True):
                    found.append((tuple(distinct[i].ids), tuple(row.nonzero().flatten().tolist())))
        return cls(dict(processes.gather(found)))

    def at(self, ids: Sequence[int]) -> tuple[int, ...]:
        """The sinks of a text.

        Raises:
            InputError: for a text in which they were not looked for.
        """
        try:
            return self.positions[tuple(ids)]
        except KeyError:
            raise InputError(f"a text of {len(ids)} tokens was not read for sinks; read it with `Sinks.of`") from None

    def labels(self) -> list[Any]:
        """JSON-serialisable."""
        return [[list(ids), list(found)] for ids, found in self.positions.items()]

    @classmethod
    def from_labels(cls, labels: list[Any]) -> Sinks:
        """Of what `labels` gave."""
        return cls({tuple(ids): tuple(found) for ids, found in labels})
