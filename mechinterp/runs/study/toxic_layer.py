"""The toxic layer of a run, from its table `located`."""

from __future__ import annotations

from mechinterp.audit.toxic_layer import blocks_for, toxic_block
from mechinterp.runs.study.instances import instances_of
from mechinterp.runs.study.run import Run


def block_of(run: Run) -> int:
    """The toxic layer of most test instances, or of the first one where it is used for all."""
    located = run.table("located")
    first = int(located["instance"].iloc[0]) if run.config.reuse_first_layer else None
    return toxic_block(located, run.config.distance, first)


def blocks_of(run: Run) -> dict[int, int]:
    """The toxic layer of every test instance, by its id."""
    located, config = run.table("located"), run.config
    return blocks_for(located, instances_of(run, "test"), config.distance, reuse_first_layer=config.reuse_first_layer)
