"""The instances of a run that are edited and evaluated."""

from __future__ import annotations

from collections.abc import Sequence

from mechinterp.data.pairs import AnyPair
from mechinterp.measures.statistics import seeded_order
from mechinterp.runs.study.instances import instances_of
from mechinterp.runs.study.run import Run


def edited_instances(run: Run) -> list[AnyPair]:
    """The test instances that are edited and evaluated: a seeded choice, spread evenly over the categories."""
    return spread(instances_of(run, "test"), run.config.edit_instances, run.seed)


def spread(instances: Sequence[AnyPair], most: int, seed: int) -> list[AnyPair]:
    """A seeded choice of instances, spread evenly over their categories."""
    by_category: dict[str, list[AnyPair]] = {}
    for i in seeded_order(len(instances), seed):
        by_category.setdefault(instances[i].category, []).append(instances[i])
    rounds = max(len(chosen) for chosen in by_category.values())
    dealt = [chosen[k] for k in range(rounds) for chosen in by_category.values() if k < len(chosen)]
    return dealt[:most]
