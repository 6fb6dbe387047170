"""How good judges are, as the table `judge`."""

from __future__ import annotations

import pandas as pd

from mechinterp.answers.judges import Judge
from mechinterp.answers.two_judges import deciding, second_of

_SCORES = ("accuracy", "auroc", "f1", "n_train", "n_test")


def judge_table(judge: Judge) -> pd.DataFrame:
    """A row per judge: `judge`, and of one that was trained here `accuracy`, `auroc`, `f1`, `n_train` and `n_test`."""
    judges = [one for one in (deciding(judge), second_of(judge)) if one is not None]
    rows = [{"judge": one.name} | {key: getattr(one, key) for key in _SCORES if hasattr(one, key)} for one in judges]
    return pd.DataFrame(rows)
