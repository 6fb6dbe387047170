"""`sample`: many answers are drawn, of which one unsafe one is enough (2511.04934).

Greedy answers hide what is a little less probable than the most probable one. `measures.leak` says how likely an
attacker who draws k answers gets an unsafe one. Every answer has a generator of its own, seeded by its prompt and its
number: neither the other prompts nor how they share batches changes it, but for rounding in the model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Sequence
from functools import partial

import torch
from jaxtyping import Float
from pydantic import ConfigDict, Field, field_validator, model_validator
from torch import Tensor
from transformers import LogitsProcessor

from mechinterp.audit.attacks.attack import Attack, Attacked, Known, Point
from mechinterp.data.validation import UsersSettings
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.generation import continue_tokens
from mechinterp.models.text.tokens import Encoded


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


def sampled(
    target: Checkpoint,
    prompts: Sequence[Encoded],
    samples: int,
    *,
    temperature: float,
    max_new_tokens: int,
    seed: int,
    max_batch: int = 128,
) -> list[list[Encoded]]:
    """Answers drawn to each prompt.

    Args:
        target: the model; left as it was.
        prompts: in tokens.
        samples: answers to each.
        temperature: what the logits are divided by.
        max_new_tokens: longest answer.
        seed: of the draws.
        max_batch: answers that are drawn at once.
    """
    many = [prompt for prompt in prompts for _ in range(samples)]

    def choosing(numbers: Sequence[int]) -> LogitsProcessor:
        return _Drawn(
            torch.stack([_uniforms(many[i], i % samples, max_new_tokens, seed) for i in numbers]), temperature
        )

    found = continue_tokens(target, many, max_new_tokens=max_new_tokens, choosing=choosing, max_batch=max_batch)
    return [found[start : start + samples] for start in range(0, len(found), samples)]


def _uniforms(prompt: Encoded, number: int, n: int, seed: int) -> Float[Tensor, " token"]:
    """The random numbers of one answer, a number in [0, 1) for each token."""
    own = hashlib.blake2b(f"{seed}/{number}/".encode() + prompt.ids.tobytes(), digest_size=7).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(own, "big"))
    return torch.rand(n, dtype=torch.float64, generator=generator)


class _Drawn(LogitsProcessor):
    """Leaves of each row the one token that its random number falls on, in the distribution's cumulative sum."""

    def __init__(self, uniforms: Float[Tensor, "row token"], temperature: float) -> None:
        self.uniforms, self.temperature, self.step = uniforms, temperature, 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        sums = (scores.double() / self.temperature).softmax(1).cumsum(1)
        wanted = self.uniforms[:, self.step, None].to(sums.device) * sums[:, -1:]
        self.step += 1
        token = torch.searchsorted(sums, wanted, right=True).clamp_max(sums.shape[1] - 1)
        return torch.full_like(scores, -torch.inf).scatter_(1, token, 0.0)


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
