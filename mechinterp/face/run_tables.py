"""Tables of a run that say in words what was found."""

from __future__ import annotations

from dataclasses import dataclass

from mechinterp.data.showing import one_line
from mechinterp.runs.folder import RunFolder


@dataclass(frozen=True, eq=False)
class RunTables:
    """A run, as what was asked of it; printed, a sentence for each finding.

    Attributes:
        run: the folder of it all.
    """

    run: RunFolder

    def __repr__(self) -> str:
        return one_line(self, f"in {self.run.path}", "print it to read what was found")
