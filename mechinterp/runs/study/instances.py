"""The instances of a run."""

from __future__ import annotations

from mechinterp.data.safeedit import SafeEditInstance, read_safeedit
from mechinterp.runs.study.run import Run


def instances_of(run: Run, split: str) -> list[SafeEditInstance]:
    """The instances of a split: `train`, `validation` or `test`."""
    return read_safeedit(run.folder / "data" / f"{split}.json")
