"""A tuned checkpoint against its base: what every table of a comparison is made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mechinterp.audit.evidence import Baseline, Evidence
from mechinterp.audit.tables.reading import Tables
from mechinterp.measures.local_verdict import Validity


@dataclass(frozen=True)
class Contrast:
    """The evidence of one checkpoint beside that of its base.

    Attributes:
        method: label of the checkpoint.
        baseline: of the base.
        evidence: of the checkpoint.
        checks: (direction, position) -> whether the direction is in play there.
        top_neurons: neurons to list for each direction and position.
    """

    method: str
    baseline: Baseline
    evidence: Evidence
    checks: Mapping[tuple[str, str], Validity]
    top_neurons: int = 10
    _made: dict[Any, Tables] = field(default_factory=dict, repr=False, compare=False)

    def shared(self, make: Callable[[Contrast], Tables]) -> Tables:
        """Tables that are made together, once for all that are among them."""
        if make not in self._made:
            self._made[make] = make(self)
        return self._made[make]
