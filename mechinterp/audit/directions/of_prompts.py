"""A direction of each prompt's own: what decides between starting its answer and starting another one.

    w_x = gain o (u(first token of the answer to x) - mean of u(first token of k alternatives))

u is a row of the unembedding and the gain the final norm's, both of the base. One direction for all prompts says which
kind of answer is begun; where every prompt has an answer of its own, as facts have, there is no such one direction. The
alternatives of a prompt are the first token of its own safe answer, and those of the other prompts of its category, in
their order: of a fact the answers of other facts of its relation.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.audit.directions.standard import first_tokens
from mechinterp.data.pairs import AnyPair
from mechinterp.errors import InputError
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.unembedding import back_through_final_norm, unembedding


@dataclass(frozen=True)
class PromptDirections:
    """A direction for each of some prompts.

    Attributes:
        rows: numbers of the prompts that have one, in their order: whose answer starts otherwise than an alternative.
        vectors: unit directions, float32, [row, d_model].
    """

    rows: tuple[int, ...]
    vectors: Float[Tensor, "row d_model"]

    @classmethod
    @torch.no_grad()
    def of(cls, base: Checkpoint, pairs: Sequence[AnyPair], alternatives: int) -> PromptDirections:
        """Of the prompts of pairs; nothing is run.

        Args:
            base: its unembedding and final norm are used.
            pairs: prompts with the answer (`unsafe`), and another one (`safe`).
            alternatives: at most so many, at least 1.

        Raises:
            InputError: if no answer starts otherwise than the alternatives.
        """
        own, others = (first_tokens(base, pairs, [getattr(p, kind) for p in pairs]) for kind in ("unsafe", "safe"))
        of_category: dict[str, list[int]] = defaultdict(list)
        for number, pair in enumerate(pairs):
            of_category[pair.category].append(number)
        unembedded, rows, vectors = unembedding(base), list[int](), list[Tensor]()
        for members in of_category.values():
            for place, number in enumerate(members):
                turn = [others[other] for other in (*members[place:], *members[:place])]
                chosen = [token for token in dict.fromkeys(turn) if token != own[number]][:alternatives]
                if chosen:
                    read = unembedded[torch.tensor([own[number], *chosen], device=unembedded.device)].float()
                    rows.append(number)
                    vectors.append((read[0] - read[1:].mean(0)).cpu())
        if not rows:
            raise InputError(
                "no prompt has a direction of its own: every answer starts as all its alternatives do; give answers "
                "that start otherwise, or leave `per_prompt` out"
            )
        pulled = back_through_final_norm(base, torch.stack(vectors))
        order = sorted(range(len(rows)), key=rows.__getitem__)
        units = pulled / pulled.norm(dim=1, keepdim=True)
        return cls(tuple(rows[i] for i in order), units[order].contiguous())

    def alike(self, rows: Sequence[int]) -> list[tuple[Float[Tensor, " d_model"], list[int]]]:
        """Each distinct direction of some of the prompts, with the numbers of those that have it."""
        vectors = dict(zip(self.rows, self.vectors, strict=True))
        found: dict[tuple[float, ...], list[int]] = defaultdict(list)
        for row in rows:
            found[tuple(vectors[row].tolist())].append(row)
        return [(vectors[some[0]], some) for some in found.values()]
