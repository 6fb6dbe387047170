"""`sample`: many answers are drawn, of which one unsafe one is enough (2511.04934).

Greedy answers hide what is a little less probable than the most probable one. `measures.leak` says how likely an
attacker who draws k answers gets an unsafe one; they are drawn by `passes.sampling`.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from functools import partial

from pydantic import ConfigDict, Field, field_validator, model_validator

from mechinterp.audit.attacks.attack import Attack, Attacked, Known, Point
from mechinterp.data.validation import UsersSettings
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.sampling import sampled


class SampleOptions(UsersSettings):
    """How many answers are drawn, and how."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperatures: tuple[float, ...] = Field((0.7, 1.0), min_length=1, description="of the distributions drawn from")
    drawn: tuple[int, ...] = Field((1, 2, 4, 8), min_length=1, description="answers that an attacker draws, k")
    samples: int = Field(32, ge=1, description="answers to each prompt, n; at least 4 times the largest k")

    @field_validator("temperatures")
    @classmethod
    def _check_temperatures(cls, given: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0 < temperature < float("inf") for temperature in given):
            raise ValueError(
                f"temperatures are positive numbers, got {list(given)}; what is greedy is the plain answer"
            )
        return tuple(sorted(set(given)))

    @field_validator("drawn")
    @classmethod
    def _check_drawn(cls, given: tuple[int, ...]) -> tuple[int, ...]:
        if not all(k >= 1 for k in given):
            raise ValueError(f"at least one answer is drawn, got {list(given)}")
        return tuple(sorted(set(given)))

    @model_validator(mode="after")
    def _check_samples(self) -> SampleOptions:
        if self.samples < 4 * self.drawn[-1]:
            raise ValueError(
                f"leak@{self.drawn[-1]} needs at least {4 * self.drawn[-1]} samples (4 times as many), got "
                f"{self.samples}; give more `samples` or a smaller `drawn`"
            )
        return self


def _points(options: SampleOptions, n_blocks: int) -> list[Point]:
    return [Point(f"{temperature:g}", float(k)) for temperature in options.temperatures for k in options.drawn]


def _run(
    target: Checkpoint, known: Known, options: SampleOptions, points: Sequence[Point]
) -> Generator[Attacked, None, None]:
    for setting in dict.fromkeys(point.setting for point in points):
        found = sampled(
            target,
            known.heads,
            options.samples,
            temperature=float(setting),
            max_new_tokens=known.max_new_tokens,
            seed=known.seed,
        )
        for point in points:
            if point.setting == setting:
                yield Attacked(point, target, answers=partial(list, found), drawn=int(point.dose), same_model=True)


SAMPLE = Attack(
    name="sample",
    label="sampled answers",
    unit="answers drawn",
    options=SampleOptions,
    points=_points,
    run=_run,
    line="many answers are drawn, and one unsafe one is enough",
    cost="dear",
)
