"""Evidence: what is recorded of the base and of every tuned checkpoint, before anything is compared.

`prepare_baseline` asks the base for its answers, finds the directions and the value vectors closest to them, records it
and tries steering; `gather_evidence` records one tuned checkpoint. Both results are small, can save and load
themselves, and hold all that `comparison` needs, so that models need not be in memory together and nothing is recorded
twice.

The text is fixed: every checkpoint reads the same tokens, so that a difference is the model's. Only where it is asked
for, each reads its own greedy tokens (`on_policy`) as well; that is another place with a name of its own, because
there the text differs too and a change has no one cause.
"""

from mechinterp.audit.evidence.inputs import Inputs
from mechinterp.audit.evidence.of_base import Baseline, Steering
from mechinterp.audit.evidence.of_checkpoint import Evidence, Stream
from mechinterp.audit.evidence.preparing import Note, prepare_baseline
from mechinterp.audit.evidence.recording import gather_evidence
from mechinterp.audit.evidence.settings import PLACES, ComparisonSettings, Place, Text

__all__ = [
    "PLACES",
    "Baseline",
    "ComparisonSettings",
    "Evidence",
    "Inputs",
    "Note",
    "Place",
    "Steering",
    "Stream",
    "Text",
    "gather_evidence",
    "prepare_baseline",
]
