"""All tables of a comparison, one tuned checkpoint after the other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mechinterp.audit.evidence import Baseline, Evidence
from mechinterp.audit.tables.decomposition import decomposition
from mechinterp.audit.tables.lens import logit_lens
from mechinterp.audit.tables.mechanism import mechanism, middle_shift
from mechinterp.audit.tables.neurons import neuron_tables
from mechinterp.audit.tables.stream import residual_shift, stream
from mechinterp.audit.tables.validity import check_directions, validity_table
from mechinterp.audit.tables.vectors import toxic_activations, value_vectors
from mechinterp.audit.top_vectors import subspace_table
from mechinterp.data.storage.tables import write_table
from mechinterp.errors import InputError

TABLES = (
    "mechanism",
    "decomposition",
    "verdict",
    "validity",
    "neuron_groups",
    "neuron_curve",
    "value_vectors",
    "toxic_subspace",
)
"""Tables that every comparison makes."""

OPTIONAL_TABLES = ("neurons", "middle_shift", "stream", "residual_shift", "toxic_activations", "logit_lens")
"""Tables made where there is something to fill them with: an architecture's hook points, tokens, neurons asked for."""


@dataclass(frozen=True)
class MechanismComparison:
    """Tidy tables by name: all of `TABLES`, and of `OPTIONAL_TABLES` those that there was something for."""

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
    """
    checks = check_directions(baseline)
    parts: dict[str, list[pd.DataFrame]] = {}
    for method, evidence in tuned:
        shape, base_shape = tuple(evidence.values.shape), tuple(baseline.evidence.values.shape)
        if shape != base_shape:
            raise InputError(f"{method} has value matrices of shape {shape}, the base of {base_shape}")
        tables = {
            "mechanism": mechanism(method, baseline, evidence),
            **decomposition(method, baseline, evidence, checks, top_neurons),
            **neuron_tables(method, baseline, evidence),
            "value_vectors": value_vectors(method, baseline, evidence),
            "toxic_activations": toxic_activations(method, baseline, evidence),
            "stream": stream(method, baseline, evidence),
            "residual_shift": residual_shift(method, baseline, evidence),
            "middle_shift": middle_shift(method, baseline, evidence),
            "logit_lens": logit_lens(method, baseline, evidence),
        }
        for name, table in tables.items():
            if table is not None:
                parts.setdefault(name, []).append(table)
    if not parts:
        raise InputError("there are no tuned checkpoints to compare with the base")
    joined = {name: pd.concat(tables, ignore_index=True) for name, tables in parts.items()}
    if (base_lens := logit_lens("base", baseline, baseline.evidence)) is not None and "logit_lens" in joined:
        joined["logit_lens"] = pd.concat([base_lens, joined["logit_lens"]], ignore_index=True)
    once = {"toxic_subspace": subspace_table(baseline.inputs.vectors), "validity": validity_table(baseline, checks)}
    return MechanismComparison({**joined, **once})
