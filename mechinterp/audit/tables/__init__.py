"""The comparison: the evidence of tuned checkpoints against that of their base, as tables.

Toxicity of the region against the shift of its activations (Fig 5), the erase-or-bypass decomposition, the check
whether each direction is in play, a verdict, and the middle stream (Fig 8); neuron by neuron, the top value vectors,
groups of neurons with their null, and the whole residual stream. No model is needed here.

What it does not establish: the decomposition attributes a change of a write to weights or inputs, along one direction;
it is no proof that restoring either would bring the behaviour back.
"""

from mechinterp.audit.tables.all_tables import OPTIONAL_TABLES, TABLES, MechanismComparison, compare
from mechinterp.audit.tables.decomposition import decompose_blocks

__all__ = ["OPTIONAL_TABLES", "TABLES", "MechanismComparison", "compare", "decompose_blocks"]
