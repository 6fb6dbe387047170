"""What every checkpoint of a comparison is recorded on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from jaxtyping import Float
from torch import Tensor

from mechinterp.audit.directions.of_prompts import PromptDirections
from mechinterp.audit.evidence.settings import PLACES, Place
from mechinterp.audit.top_vectors import TopVectors
from mechinterp.data.counting import many
from mechinterp.data.showing import one_line
from mechinterp.data.storage.provenance import digest
from mechinterp.models.passes.lens import LensToken
from mechinterp.models.passes.sinks import Sinks
from mechinterp.models.text.tokens import Encoded

FOLLOWED = 20
"""Top value vectors whose activations are followed over the first tokens (Lee et al. 2024)."""


@dataclass(frozen=True)
class Inputs:
    """What every checkpoint is recorded on.

    Attributes:
        prompts: adversarial prompts.
        responses: the unsafe response to each, teacher-forced after it at position `response`.
        block: the toxic layer, from 0.
        directions: name -> direction, [d_model].
        middle: indices of the inputs whose middle stream is kept.
        seed: of every random choice.
        vectors: the base's value vectors closest to each direction.
        null_directions: random unit directions with the covariance of the base's value vectors at the toxic layer, the
            same for every checkpoint.
        places: where writes are measured.
        continuations: the prompts with the base's own greedy tokens, where anything is measured there.
        first_tokens: greedy tokens over which the activations of top value vectors are followed; 0 for none.
        lens_tokens: whose logits the logit lens follows over depth; empty for no lens.
        truncate: whether prompts that exceed the context are cut from the left, or an error.
        sinks: of the base in these texts, which every mean and length leaves out; None to leave out none.
        per_prompt: a direction of each prompt's own; None where none are measured along.
    """

    prompts: tuple[str, ...]
    responses: tuple[str, ...]
    block: int
    directions: Mapping[str, Float[Tensor, " d_model"]]
    middle: tuple[int, ...]
    seed: int
    vectors: TopVectors
    null_directions: Float[Tensor, "draw d_model"]
    places: tuple[Place, ...] = PLACES
    continuations: tuple[Encoded, ...] = ()
    first_tokens: int = 0
    lens_tokens: tuple[LensToken, ...] = ()
    truncate: bool = False
    sinks: Sinks | None = None
    per_prompt: PromptDirections | None = None

    def __repr__(self) -> str:
        return one_line(
            self,
            many(len(self.prompts), "prompt"),
            f"block {self.block}",
            f"directions {' '.join(self.directions)}",
        )

    @property
    def followed(self) -> tuple[tuple[int, int], ...]:
        """(block, neuron) of the top value vectors that are followed over the first tokens, the most toxic first."""
        return self.vectors.top("probe", FOLLOWED) if self.first_tokens else ()

    def labels(self) -> dict[str, Any]:
        """All but tensors, JSON-serialisable."""
        own = {part.name: getattr(self, part.name) for part in fields(self)}
        del own["vectors"], own["null_directions"], own["per_prompt"]
        return {
            **own,
            "directions": list(self.directions),  # their order
            "places": [vars(place) for place in self.places],
            "lens_tokens": [vars(token) for token in self.lens_tokens],
            "continuations": [[list(text.ids), text.prompt_length] for text in self.continuations],
            "sinks": self.sinks and self.sinks.labels(),
        }

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all that decides what is recorded of a checkpoint."""
        directions = [direction.tolist() for direction in self.directions.values()]
        # all random directions are draws from one matrix: the first tells it apart, their number the rest
        null = [len(self.null_directions), self.null_directions[:1].tolist()]
        own = [] if (each := self.per_prompt) is None else [each.rows, each.vectors.tolist()]
        return digest([self.labels(), directions, null, self.vectors.places, *own])
