"""The instances of a run."""

from __future__ import annotations

from mechinterp.data.pair_files import read_pairs
from mechinterp.data.pairs import AnyPair
from mechinterp.runs.study.run import Run


def instances_of(run: Run, split: str) -> list[AnyPair]:
    """The instances of a split: `train`, `validation` or `test`."""
    return read_pairs(run.folder / "data" / f"{split}.json")
