"""Every table of a run, in the order of the page: the one place that a new one is named in.

A table (what it is, column by column, and for one of a comparison what makes it) is a file of `audit.tables`; to add
one, write that file and name it in `TABLES`. Comparison, study, page and `analyses/table.py` take it from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

from mechinterp.audit.tables.answers import DEFENSE, FLAGS, GENERAL, JUDGE, ORGANISM, TAUGHT
from mechinterp.audit.tables.attacks import ATTACK_PREFILL, ATTACK_QUANTISE, ATTACKS, WORST
from mechinterp.audit.tables.attacks_further import ATTACK_ABLATE_DIFFERENCE, ATTACK_RELEARN, ATTACK_TRANSPLANT
from mechinterp.audit.tables.circuits import (
    CIRCUIT_EDGES,
    CIRCUIT_FAITHFULNESS,
    CIRCUIT_NODES,
    CIRCUIT_OVERLAP,
    CIRCUIT_PAIRS,
    CIRCUIT_RANKS,
    CIRCUITS,
)
from mechinterp.audit.tables.conflicts import CONFLICTS, EDITS_IN_TURN, EDITS_SUMMARY, ROUND_TRIP, ROUND_TRIP_BLOCKS
from mechinterp.audit.tables.decodability import DECODABILITY
from mechinterp.audit.tables.decomposition import DECOMPOSITION, LOCAL_VERDICT, NEURONS
from mechinterp.audit.tables.depth import DEPTH, DEPTH_BLOCKS
from mechinterp.audit.tables.edited_facts import EDITED_FACTS, EDITED_FACTS_EACH, EDITED_RANKS, EDITED_SETTINGS
from mechinterp.audit.tables.facts import FACTS, FACTS_SUMMARY
from mechinterp.audit.tables.lens import LOGIT_LENS
from mechinterp.audit.tables.located import LOCATED, TOXIC_LAYER
from mechinterp.audit.tables.mechanism import MECHANISM, MECHANISM_NEVER, MIDDLE_SHIFT
from mechinterp.audit.tables.methods import DINM_RATES, EDITS, EDITS_OF_ANOTHER, TRAINING
from mechinterp.audit.tables.neurons import NEURON_CURVE, NEURON_GROUPS
from mechinterp.audit.tables.origins import ORIGINS, ORIGINS_BLOCKS, ORIGINS_CONTROLS, ORIGINS_NEURONS
from mechinterp.audit.tables.over_runs import ALL_METHODS, CERTIFICATE, TRAJECTORY
from mechinterp.audit.tables.probes import PROBE, PROBE_ROC, PROBES
from mechinterp.audit.tables.relapses import RELAPSE, RELAPSE_VERDICT
from mechinterp.audit.tables.stream import RESIDUAL_SHIFT, STREAM
from mechinterp.audit.tables.table import Table
from mechinterp.audit.tables.traits import TRAITS, TRAITS_TOPICS
from mechinterp.audit.tables.unlearning import GRADIENT_REGION, UNLEARNING, UNLEARNING_ANSWERS
from mechinterp.audit.tables.validity import VALIDITY
from mechinterp.audit.tables.vectors import TOXIC_ACTIVATIONS, TOXIC_SUBSPACE, VALUE_VECTORS
from mechinterp.audit.tables.verdicts import VERDICT
from mechinterp.audit.tables.weights import DIFF, DIFF_BLOCKS, ERASURE, REGION, REGION_VECTORS

TABLES: Mapping[str, Table] = {
    table.name: table
    for table in (
        VERDICT,
        LOCAL_VERDICT,
        ORIGINS,
        RELAPSE_VERDICT,
        ATTACKS,
        WORST,
        DEPTH,
        VALIDITY,
        MECHANISM,
        MECHANISM_NEVER,
        DEFENSE,
        FLAGS,
        ORGANISM,
        TAUGHT,
        GENERAL,
        EDITS,
        EDITS_OF_ANOTHER,
        DINM_RATES,
        TOXIC_LAYER,
        PROBE,
        PROBES,
        JUDGE,
        TRAJECTORY,
        ORIGINS_BLOCKS,
        ORIGINS_NEURONS,
        ORIGINS_CONTROLS,
        DECOMPOSITION,
        RELAPSE,
        ATTACK_QUANTISE,
        ATTACK_PREFILL,
        ATTACK_RELEARN,
        ATTACK_ABLATE_DIFFERENCE,
        ATTACK_TRANSPLANT,
        DEPTH_BLOCKS,
        DECODABILITY,
        FACTS_SUMMARY,
        FACTS,
        EDITED_FACTS,
        EDITED_FACTS_EACH,
        EDITED_RANKS,
        EDITED_SETTINGS,
        EDITS_SUMMARY,
        CONFLICTS,
        EDITS_IN_TURN,
        ROUND_TRIP,
        ROUND_TRIP_BLOCKS,
        CIRCUITS,
        CIRCUIT_FAITHFULNESS,
        CIRCUIT_OVERLAP,
        CIRCUIT_EDGES,
        CIRCUIT_NODES,
        CIRCUIT_RANKS,
        CIRCUIT_PAIRS,
        TRAITS,
        TRAITS_TOPICS,
        NEURON_GROUPS,
        STREAM,
        VALUE_VECTORS,
        TOXIC_SUBSPACE,
        TOXIC_ACTIVATIONS,
        RESIDUAL_SHIFT,
        NEURONS,
        NEURON_CURVE,
        LOGIT_LENS,
        MIDDLE_SHIFT,
        PROBE_ROC,
        LOCATED,
        TRAINING,
        CERTIFICATE,
        ALL_METHODS,
        DIFF_BLOCKS,
        DIFF,
        REGION,
        REGION_VECTORS,
        ERASURE,
        UNLEARNING,
        UNLEARNING_ANSWERS,
        GRADIENT_REGION,
    )
}

COMPARED: Mapping[str, Table] = {name: table for name, table in TABLES.items() if table.make is not None}
"""Those that a comparison makes of the evidence; the optional ones where there is something to fill them with."""


def find_table(name: str) -> Table | None:
    """The table of a name, also of one that a pattern names (`training_*`); None for what a run does not write."""
    return TABLES.get(name) or next((table for table in TABLES.values() if fnmatchcase(name, table.name)), None)


def tables_of(stage: str, *, optional: bool = False) -> list[str]:
    """The names of the tables that a stage of a study writes: those of every run, or the optional ones."""
    return [table.name for table in TABLES.values() if table.stage == stage and table.optional == optional]
