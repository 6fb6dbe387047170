"""The logit lens of a checkpoint, as a table of the comparison."""

from __future__ import annotations

import pandas as pd

from mechinterp.audit.evidence import Baseline, Evidence
from mechinterp.audit.logit_lens import lens_table


def logit_lens(method: str, baseline: Baseline, evidence: Evidence) -> pd.DataFrame | None:
    """The rows of one checkpoint, or of the base; none where the lens was not read."""
    return None if evidence.lens is None else lens_table(method, evidence.lens, seed=baseline.inputs.seed)
