"""The tables of a run, and the comparison that makes most: the evidence of tuned checkpoints against their base.

Toxicity of the region against the shift of its activations (Fig 5), the erase-or-bypass decomposition, the check
whether each direction is in play, a verdict, and the middle stream (Fig 8); neuron by neuron, the top value vectors,
groups of neurons with their null, and the whole residual stream. No model is needed here. What each table is, column by
column, stands beside what makes it (`Table`); all are in `registry.TABLES`.

What it does not establish: the decomposition attributes a change of a write to weights or inputs, along one direction;
it is no proof that restoring either would bring the behaviour back.
"""

from mechinterp.audit.tables.all_tables import MechanismComparison, compare
from mechinterp.audit.tables.decomposition import decompose_blocks
from mechinterp.audit.tables.registry import COMPARED, TABLES
from mechinterp.audit.tables.table import Table

__all__ = ["COMPARED", "TABLES", "MechanismComparison", "Table", "compare", "decompose_blocks"]
