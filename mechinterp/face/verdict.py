"""One verdict from several looks at the same checkpoints: origins, depth, attacks, comparisons."""

from __future__ import annotations

import pandas as pd

from mechinterp.errors import InputError
from mechinterp.face.depth import Depths
from mechinterp.face.run_tables import RunTables
from mechinterp.runs.folder import RunFolder
from mechinterp.runs.joined import joined_verdict


def verdict(*found: RunFolder | RunTables | Depths) -> pd.DataFrame:
    """Where each change sits, and whether the behaviour is gone, from all that was found of the same checkpoints.

    Each run has a verdict of its own, by what it looked at; this one is by all of them.

    Args:
        found: what `mi.origins`, `mi.depth`, `mi.attack`, `mi.compare` and `mi.open_run` give, of one base and with the
            same names for its checkpoints.

    Returns:
        The table `verdict`, a row for each checkpoint; its `sentence` says both halves.

    Raises:
        InputError: for what judges nothing, or runs of different behaviours.

    Example:
        >>> mi.verdict(mi.open_run("runs/origins"), mi.open_run("runs/attacks"))["sentence"]
    """
    runs = [one.run if isinstance(one, RunTables) else one for one in found]
    for one in runs:
        if not isinstance(one, RunFolder | Depths):
            raise InputError(f"a verdict is made of runs and depths, not of a {type(one).__name__}")
    return joined_verdict(
        [one for one in runs if isinstance(one, RunFolder)], [one.scores for one in runs if isinstance(one, Depths)]
    )
