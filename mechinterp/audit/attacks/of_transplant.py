"""`transplant`: groups of the base's weights put into the tuned model, and of the tuned model's into the base.

    put back   T with the base's group: R says whether that alone suffices to bring the behaviour back
    alone      B with T's group: 1 - R says how much of the behaviour that alone takes away, whether B's is needed
    permuted   T with B - T of the group added in a random order of its rows: as large a change of the same rows
    greedy     T with ever more groups of the base: at each step the one that brings most back of the log-odds on
               prompts of the attacker's, until 90% of them is back; reported on the others

Groups are those of `audit.origins.groups`: the kinds of weights, each a setting (`put back mlp.out`), and the blocks,
whose number is the dose (`put back by block`). A group that tuning left alone is left out. Of the greedy sets the dose
is the number of groups. Hybrids are made by `origins.change`; no weight of either model is written to.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

import pandas as pd
import torch
from pydantic import ConfigDict, Field, field_validator

from mechinterp.audit.attacks.attack import Attack, Attacked, Further, Known, Point
from mechinterp.audit.origins.change import Change
from mechinterp.audit.readouts import ReadoutTexts, read
from mechinterp.data.validation import UsersSettings
from mechinterp.measures.statistics import seeded_order
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.interventions.replacing import replaced

_logger = logging.getLogger(__name__)

By = Literal["kinds", "blocks"]
Way = Literal["put back", "alone", "permuted"]

WAYS: tuple[Way, ...] = get_args(Way)

_KINDS = ("embed", "attention", "mlp.in", "mlp.out", "norm")

_GREEDY = {"kinds": "greedy by kind", "blocks": "greedy by block"}

ENOUGH = 0.9
"""Share of the log-odds at which the greedy set is whole."""


class TransplantOptions(UsersSettings):
    """Which groups are transplanted, and how."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    by: tuple[By, ...] = Field(get_args(By), min_length=1, description="groups: kinds of weights, blocks")
    ways: tuple[Way, ...] = Field(WAYS, description="of single groups: put back, alone, permuted")
    greedy: bool = Field(True, description="also the set of groups, one more at a time, that brings 90% back")
    validation: int = Field(16, ge=1, description="attacker's prompts on which that set is chosen, at most")

    @field_validator("by", "ways")
    @classmethod
    def _each_once(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(given))


def _single(by: By, way: Way, n_blocks: int) -> dict[str, Point]:
    """The points of a way by their groups; those outside the blocks are among the kinds."""
    if by == "kinds":
        return {kind: Point(f"{way} {kind}", 1.0) for kind in _KINDS}
    return {f"block {block}": Point(f"{way} by block", float(block)) for block in range(n_blocks)}


def _points(options: TransplantOptions, n_blocks: int) -> list[Point]:
    single = [point for by in options.by for way in options.ways for point in _single(by, way, n_blocks).values()]
    if not options.greedy:
        return single
    sets = [Point(_GREEDY[by], float(n)) for by in options.by for n in range(1, _most(by, n_blocks) + 1)]
    return [*single, *sets]


def _most(by: By, n_blocks: int) -> int:
    return len(_KINDS) if by == "kinds" else n_blocks + 2  # embed and norm outside the blocks


def _run(
    target: Checkpoint, known: Known, options: TransplantOptions, points: Sequence[Point]
) -> Generator[Attacked, None, None]:
    for by in options.by:
        change = Change.of(known.base, target, by)
        for way in options.ways:
            for group, point in _single(by, way, target.n_blocks).items():
                if group in change.changed and point in points:
                    with _transplanted(change, group, way, known.seed) as hybrid:
                        yield Attacked(point, hybrid)
        wanted = [point for point in points if point.setting == _GREEDY[by]]
        if not wanted:
            continue
        steps = greedy(change, known, options)
        for point in wanted:
            if point.dose <= len(steps):
                back = {step.group for step in steps[: int(point.dose)]}
                with change.hybrid(set(change.changed) - back) as hybrid:
                    yield Attacked(point, hybrid)


@contextmanager
def _transplanted(change: Change, group: str, way: Way, seed: int) -> Iterator[Checkpoint]:
    """The model in which one group is another's."""
    if way == "alone":
        with change.hybrid({group}) as hybrid:
            yield hybrid
    elif way == "put back":
        with change.hybrid(set(change.changed) - {group}) as hybrid:
            yield hybrid
    else:
        own = {name: change.base.parameter(name).detach() for name, _ in _of(change, group)}
        with change.hybrid(change.changed) as tuned:
            put = {
                name: _permuted(own[name], after, seed).to(change.mixed or own[name].dtype)
                for name, after in _of(change, group)
            }
            with replaced(tuned.model, put):
                yield tuned


def _of(change: Change, group: str) -> list[tuple[str, torch.Tensor]]:
    return [(name, after) for name, after in change.tensors.items() if change.places[name].group == group]


def _permuted(before: torch.Tensor, after: torch.Tensor, seed: int) -> torch.Tensor:
    """T + B - T with the rows of the difference in a random order, in float32 or better."""
    kind = torch.promote_types(torch.promote_types(before.dtype, after.dtype), torch.float32)
    tuned = after.to(before.device, kind)
    order = torch.tensor(seeded_order(len(tuned), seed), device=before.device)
    return tuned + (before.to(kind) - tuned)[order]


@dataclass(frozen=True)
class Step:
    """A group that the greedy set takes up.

    Attributes:
        group: which.
        recovery: R of the mean log-odds on the validation prompts with it and all before it.
    """

    group: str
    recovery: float


def greedy(change: Change, known: Known, options: TransplantOptions) -> list[Step]:
    """The groups of the base that bring most back one after another; none where there is nothing to bring back."""
    pairs = [known.attacker[i] for i in seeded_order(len(known.attacker), known.seed)[: options.validation]]
    if not pairs:
        _logger.warning("transplant: the attacker has no pairs to choose groups on; no greedy set")
        return []
    texts = ReadoutTexts.of(known.base, pairs, truncate=known.truncate)

    def value(tuned: set[str]) -> float:
        with change.hybrid(tuned) as hybrid:
            return float(read(hybrid, texts).mean())

    start, end = value(set(change.changed)), value(set())
    if not end > start:
        _logger.warning("transplant: on the attacker's prompts nothing is there to come back; no greedy set")
        return []
    left, steps = set(change.changed), list[Step]()
    while left and (not steps or steps[-1].recovery < ENOUGH):
        found = {group: value(left - {group}) for group in change.changed if group in left}
        best = max(found, key=lambda group: found[group])
        left.remove(best)
        steps.append(Step(best, (found[best] - start) / (end - start)))
    return steps


def _steps_table(target: Checkpoint, known: Known, options: TransplantOptions) -> pd.DataFrame:
    rows = [
        {"groups": by, "step": number, "group": step.group, "recovery_on_validation": step.recovery}
        for by in (options.by if options.greedy else ())
        for number, step in enumerate(greedy(Change.of(known.base, target, by), known, options), 1)
    ]
    return pd.DataFrame(rows, columns=["groups", "step", "group", "recovery_on_validation"])


TRANSPLANT = Attack(
    name="transplant",
    label="weights transplanted",
    unit="groups, or number of the block",
    options=TransplantOptions,
    points=_points,
    run=_run,
    line="groups of the base's weights put into the tuned model, and of the tuned model's into the base",
    cost="dear",
    aside=tuple(f"{way} {what}" for way in WAYS[1:] for what in (*_KINDS, "by block")),
    curve=tuple(_GREEDY.values()),
    on_base=False,
    further=(Further("attack_transplant", _steps_table),),
)
