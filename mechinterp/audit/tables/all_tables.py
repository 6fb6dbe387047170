"""All tables of a comparison, one tuned checkpoint after the other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mechinterp.audit.evidence import Baseline, Evidence
from mechinterp.audit.tables.contrast import Contrast
from mechinterp.audit.tables.registry import COMPARED
from mechinterp.audit.tables.table import Table
from mechinterp.audit.tables.validity import check_directions
from mechinterp.data.storage.tables import write_table
from mechinterp.errors import InputError


@dataclass(frozen=True)
class MechanismComparison:
    """Tidy tables by name: of `COMPARED` all that are not optional, and the others that there was something for."""

    tables: Mapping[str, pd.DataFrame]

    def save(self, folder: Path) -> None:
        """Write every table as CSV."""
        for name, table in self.tables.items():
            write_table(folder / f"{name}.csv", table)


def compare(baseline: Baseline, tuned: Iterable[tuple[str, Evidence]], *, top_neurons: int = 10) -> MechanismComparison:
    """Compare checkpoints with their base.

    Args:
        baseline: see `audit.evidence.prepare_baseline`.
        tuned: (label, evidence) pairs, may be a generator that records one checkpoint after the other.
        top_neurons: neurons listed per method, direction and position.

    Raises:
        InputError: if there is nothing to compare, or a checkpoint's value matrices are of another shape.
    """
    checks = check_directions(baseline)
    parts: dict[str, list[pd.DataFrame]] = {}
    for method, evidence in tuned:
        shape, base_shape = tuple(evidence.values.shape), tuple(baseline.evidence.values.shape)
        if shape != base_shape:
            raise InputError(f"{method} has value matrices of shape {shape}, the base of {base_shape}")
        contrast = Contrast(method, baseline, evidence, checks, top_neurons)
        for table in COMPARED.values():
            if not (table.once and table.name in parts) and (made := _made(table, contrast)) is not None:
                parts.setdefault(table.name, []).append(made)
    if not parts:
        raise InputError("there are no tuned checkpoints to compare with the base")
    of_base = Contrast("base", baseline, baseline.evidence, checks, top_neurons)
    for table in COMPARED.values():
        if table.of_base and table.name in parts and (made := _made(table, of_base)) is not None:
            parts[table.name].insert(0, made)
    return MechanismComparison({name: pd.concat(tables, ignore_index=True) for name, tables in parts.items()})


def _made(table: Table, contrast: Contrast) -> pd.DataFrame | None:
    return None if table.make is None else table.make(contrast)
