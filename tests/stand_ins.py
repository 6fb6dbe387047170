"""Figures as the tests make them: never rendered, and drawn once for each kind of tables; test_plotting renders all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

import pandas as pd
from matplotlib.figure import Figure

from mechinterp.answers.wording import UNSAFELY, Wording
from mechinterp.report import plates

drawn = plates.draw_figures
"""The figures themselves."""


def _kind(table: pd.DataFrame) -> tuple[object, ...]:
    """Columns, which of them are empty, and how much there is to tell apart; numbers and names may be others."""
    told = tuple(table[name].nunique() for name in ("method", "direction", "position") if name in table)
    return tuple(table.columns), tuple(table.isna().all()), told, table.empty


def drawn_once(tables: Mapping[str, pd.DataFrame], wording: Wording = UNSAFELY) -> Iterator[tuple[str, Figure]]:
    """Every figure of the tables; an empty one where such tables have been drawn before, in any process of the tests.

    What has been drawn is noted by empty files in the folder that conftest names.
    """
    for name, plate in list(plates.PLATES.items()):
        kinds = [_kind(tables[each]) for each in (*plate.tables, "trajectory") if each in tables]
        note = Path(os.environ["DRAWN"]) / hashlib.sha256(repr((name, kinds, wording)).encode()).hexdigest()
        found: list[tuple[str, Figure]] = [(name, Figure())]
        if not note.exists():
            with patch.dict(plates.PLATES, {name: plate}, clear=True):
                found = list(drawn(tables, wording))
            if found:
                note.touch()
        yield from found


@contextmanager
def stand_ins() -> Iterator[None]:
    """What is drawn of a run, and the bytes that are written for it, are stand-ins."""
    with ExitStack() as stack:
        for module in ("mechinterp.report.plates", "mechinterp.report.page"):
            stack.enter_context(patch(f"{module}.figure_bytes", lambda figure, kind="png": kind.encode()))
            stack.enter_context(patch(f"{module}.draw_figures", drawn_once))
        yield
