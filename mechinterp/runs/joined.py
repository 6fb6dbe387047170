"""One verdict from several runs of the same checkpoints: where the change sits, how deep it is, what attacks bring."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd

from mechinterp.audit.tables.verdicts import SOURCES, VERDICT, verdict_table
from mechinterp.errors import InputError
from mechinterp.runs.folder import RunFolder

_READ = (*SOURCES, "origins_blocks")


def joined_verdict(runs: Sequence[RunFolder], depths: Iterable[pd.DataFrame] = ()) -> pd.DataFrame:
    """The table `verdict` of all that some runs found; each has one of its own, by what it looked at.

    Args:
        runs: of one base, with the same names for its checkpoints.
        depths: further tables `depth`.

    Raises:
        InputError: for runs of different behaviours, and where nothing judges.
    """
    if len({run.wording for run in runs}) > 1:
        names = " and ".join(sorted({run.wording.name for run in runs}))
        raise InputError(f"these runs are of different behaviours, {names}; give those of one")
    tables: dict[str, list[pd.DataFrame]] = {"depth": list(depths)}
    for run in runs:
        for name in (name for name in _READ if name in run.tables):
            tables.setdefault(name, []).append(run.table(name))
    joined = {name: pd.concat(own, ignore_index=True) for name, own in tables.items() if own}
    if not joined:
        raise InputError("nothing here says where a change sits or whether it is gone; give origins, depth or attacks")
    made = verdict_table(joined, *(run.wording for run in runs[:1]))
    return made[VERDICT.reading_order(made.columns)]
