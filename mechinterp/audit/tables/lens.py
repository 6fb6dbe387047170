"""The logit lens of a checkpoint, as a table of the comparison."""

from __future__ import annotations

import pandas as pd

from mechinterp.audit.logit_lens import lens_table
from mechinterp.audit.tables.contrast import Contrast
from mechinterp.audit.tables.table import Table


def logit_lens(contrast: Contrast) -> pd.DataFrame | None:
    """The rows of one checkpoint, or of the base; none where the lens was not read."""
    lens, seed = contrast.evidence.lens, contrast.baseline.inputs.seed
    return None if lens is None else lens_table(contrast.method, lens, seed=seed)


LOGIT_LENS = Table(
    name="logit_lens",
    title="Logit lens of the first tokens of answers",
    row="a token, or all of a set, after a half block, in the base and in each tuned checkpoint",
    keys=("method", "position", "block"),
    columns={
        "point": "embed, mid (after the attention) or post (after the MLP)",
        "token, token_id": "the token; all: of the set together",
        "token_set": "unsafe or safe: what the token starts",
        "logit": "mean over inputs; of all: mean over the set",
        "probability": "mean over inputs; of all: summed over the set",
    },
    intervals=("logit", "probability"),
    optional=True,
    printed=False,
    stage="compare",
    make=logit_lens,
    of_base=True,
)
