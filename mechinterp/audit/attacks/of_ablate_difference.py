"""`ablate_difference`: the direction in which tuning shifts the stream on unsafe prompts, taken out of the tuned model.

    one block    h - (h . u) u of the stream after one block, u = delta_l / |delta_l| (`shifts`)
    all blocks   the same of everything that embeddings, attentions and MLPs write; this can be done to weights as well,
                 with the same outputs (`methods.constructed.silenced`)

The block whose delta is taken is chosen on prompts of the attacker's that no direction was made from: the one without
which the log-odds of the unsafe answer are highest. Controls: `swapped N`, a direction of the same make with T and B
swapped at random for each prompt, at the same block; `refusal of the base`, which needs no tuned model, at a block of
its own. A model that never learnt, attacked likewise, loses its own difference N - B. Where the target is the base
there is no difference, and nothing of it is taken out.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Float
from pydantic import ConfigDict, Field
from torch import Tensor

from mechinterp.audit.attacks.attack import Attack, Attacked, Further, Known, Point
from mechinterp.audit.attacks.shifts import Shifts
from mechinterp.audit.readouts import ReadoutTexts, read
from mechinterp.data.pairs import AnyPair
from mechinterp.data.validation import UsersSettings
from mechinterp.measures.statistics import seeded_order
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.interventions.contexts import project_out, silence

_logger = logging.getLogger(__name__)

DIFFERENCE, REFUSAL = "difference", "refusal of the base"

_MOST_DRAWS = 99


class AblateDifferenceOptions(UsersSettings):
    """From how much directions are made, and how many random ones stand beside them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompts: int = Field(128, ge=1, description="prompts of either kind that directions are made from, at most")
    validation: int = Field(16, ge=1, description="attacker's prompts on which the block is chosen, at most")
    draws: int = Field(20, ge=0, le=_MOST_DRAWS, description="directions with the two models swapped at random")


@dataclass(frozen=True)
class Directions:
    """What may be taken out of a target, and where.

    Attributes:
        shifts: what the target's tuning does to the stream.
        vectors: name -> a direction for every block.
        scores: name -> mean log-odds of the unsafe answer on the validation prompts without the direction of each
            block, in the stream after it and in all that is written; NaN where nothing is shifted.
    """

    shifts: Shifts
    vectors: Mapping[str, Float[Tensor, "block d_model"]]
    scores: Mapping[str, Float[Tensor, "block place"]]

    @classmethod
    def of(cls, target: Checkpoint, known: Known, options: AblateDifferenceOptions) -> Directions:
        """Read both models, and try every block on the validation prompts."""
        made_from, validation = _parted(known.attacker, options, known.seed)
        harmless = [one.prompt for one in known.benign][: options.prompts]
        unsafe = [pair.prompt for pair in made_from]
        shifts = Shifts.of(known.base, target, unsafe, harmless, truncate=known.truncate)
        vectors = {DIFFERENCE: shifts.difference, REFUSAL: shifts.refusal}
        vectors = {name: rows for name, rows in vectors.items() if bool((rows.norm(dim=1) > 0).any())}
        texts = ReadoutTexts.of(known.base, validation, truncate=known.truncate)
        scores = {name: _tried(target, rows, texts) for name, rows in vectors.items()}
        return cls(shifts, vectors, scores)

    def block(self, name: str, place: int) -> int | None:
        """The block whose direction is taken out at a place (0: the stream after it, 1: all that is written)."""
        found = self.scores[name][:, place]
        return None if bool(found.isnan().all()) else int(found.nan_to_num(-math.inf).argmax())

    def table(self, options: AblateDifferenceOptions, seed: int) -> pd.DataFrame:
        """A row per direction and block: how long it is, beside what swapping makes, and what taking it out does."""
        swapped = [self.shifts.swapped(seed + draw).norm(dim=1) for draw in range(1, options.draws + 1)]
        rows = []
        for name, vectors in self.vectors.items():
            chosen = [self.block(name, place) for place in (0, 1)]
            for block, vector in enumerate(vectors):
                rows.append(
                    {
                        "direction": name,
                        "block": block,
                        "length": float(vector.norm()),
                        "swapped_length": float(torch.stack(swapped)[:, block].mean()) if swapped else math.nan,
                        "cosine_to_refusal": float(torch.cosine_similarity(vector, self.shifts.refusal[block], dim=0)),
                        "log_odds_one_block": float(self.scores[name][block, 0]),
                        "log_odds_all": float(self.scores[name][block, 1]),
                        "chosen_one_block": block == chosen[0],
                        "chosen_all": block == chosen[1],
                    }
                )
        return pd.DataFrame(rows)


def _parted(
    pairs: Sequence[AnyPair], options: AblateDifferenceOptions, seed: int
) -> tuple[list[AnyPair], list[AnyPair]]:
    """Pairs that directions are made from, and others on which the block is chosen: at most half of them."""
    if len(pairs) < 2:
        return list(pairs), list(pairs)
    order = [pairs[i] for i in seeded_order(len(pairs), seed)]
    n = min(options.validation, len(order) // 2)
    return order[n : n + options.prompts], order[:n]


def _tried(
    target: Checkpoint, rows: Float[Tensor, "block d_model"], texts: ReadoutTexts
) -> Float[Tensor, "block place"]:
    scores = torch.full((len(rows), 2), math.nan, dtype=torch.float64)
    for block, row in enumerate(rows):
        for place in (0, 1) if row.norm() > 0 else ():  # below the lowest changed block nothing is shifted
            with _taken_out(target, row, block, place):
                scores[block, place] = read(target, texts).mean()
    return scores


def _taken_out(
    target: Checkpoint, row: Float[Tensor, " d_model"], block: int, place: int
) -> AbstractContextManager[None]:
    return silence(target, row) if place else project_out(target, row, blocks=[block])


def _swapped(draws: int) -> tuple[str, ...]:
    """What the random directions are called."""
    return tuple(f"swapped {draw:02d}" for draw in range(1, draws + 1))


def _points(options: AblateDifferenceOptions, n_blocks: int) -> list[Point]:
    settings = [DIFFERENCE, REFUSAL, *_swapped(options.draws)]
    return [Point(setting, float(dose)) for setting in settings for dose in sorted({1, n_blocks})]


def _run(
    target: Checkpoint, known: Known, options: AblateDifferenceOptions, points: Sequence[Point]
) -> Generator[Attacked, None, None]:
    found = Directions.of(target, known, options)
    for point in points:
        place = int(point.dose > 1)
        name = point.setting if point.setting == REFUSAL else DIFFERENCE
        block = found.block(name, place) if name in found.vectors else None
        if block is None:
            continue
        rows = found.vectors[name]
        if point.setting.startswith("swapped"):
            rows = found.shifts.swapped(known.seed + int(point.setting.split()[1]))
        if rows[block].norm() > 0:
            with _taken_out(target, rows[block], block, place):
                yield Attacked(point, target)


ABLATE_DIFFERENCE = Attack(
    name="ablate_difference",
    label="difference taken out",
    unit="blocks",
    options=AblateDifferenceOptions,
    points=_points,
    run=_run,
    line="the direction in which tuning shifts the stream on unsafe prompts, taken out of it",
    cost="dear",
    needs=("attacker", "benign"),
    aside=_swapped(_MOST_DRAWS),
    controls=_swapped(_MOST_DRAWS),
    further=(
        Further(
            "attack_ablate_difference",
            lambda target, known, options: Directions.of(target, known, options).table(options, known.seed),
        ),
    ),
)
