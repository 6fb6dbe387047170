"""`restore`: the relapse test's treatments at all blocks: the base's MLP activations, its value matrices, or both.

What the relapse test says of them block by block, with random controls and a verdict: `audit.relapse`.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

from pydantic import ConfigDict, Field, field_validator

from mechinterp.audit.attacks.attack import Attack, Attacked, Known, Point
from mechinterp.audit.relapse.registry import TREATMENTS
from mechinterp.audit.relapse.treatment import patched_tokens
from mechinterp.data.validation import UsersSettings
from mechinterp.errors import near
from mechinterp.models.checkpoints import Checkpoint

PARTS = ("activations", "values", "both")


class RestoreOptions(UsersSettings):
    """What is put back."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    parts: tuple[str, ...] = Field(PARTS, min_length=1, description="treatments of the relapse test, at all blocks")

    @field_validator("parts")
    @classmethod
    def _check_parts(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [name for name in given if name not in PARTS]:
            raise ValueError(f"unknown part {unknown[0]!r}; known are {', '.join(PARTS)}{near(unknown[0], PARTS)}")
        return tuple(dict.fromkeys(given))


def _points(options: RestoreOptions, n_blocks: int) -> list[Point]:
    return [Point(part, float(n_blocks)) for part in options.parts]


def _run(
    target: Checkpoint, known: Known, options: RestoreOptions, points: Sequence[Point]
) -> Generator[Attacked, None, None]:
    everywhere = dict.fromkeys(range(target.n_blocks))
    for point in points:
        with TREATMENTS[point.setting].apply(target, known.base, everywhere, point.dose):
            yield Attacked(point, target, max_tokens=patched_tokens(known.base))


RESTORE = Attack(
    name="restore",
    label="base's MLPs put back",
    unit="blocks",
    options=RestoreOptions,
    points=_points,
    run=_run,
    line="the base's MLP activations, value matrices, or both, put back in every block",
    on_base=False,
)
