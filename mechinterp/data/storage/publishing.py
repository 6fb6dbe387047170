"""Results of several files that belong together: made beside their places, and moved there when all of them are whole.

So that new tables never lie beside an old report: the old report goes first, the new one comes last, and a process that
is killed in the middle of moving has left a folder from which `settle` moves the rest. Of the files that an earlier
call wrote, those that are not written again are removed; by the list in the folder (`ledger`), and as long as they are
as they were written.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mechinterp.data.storage import ledger, leftovers
from mechinterp.data.storage.files import clear, put, remove
from mechinterp.data.storage.full_disk import naming
from mechinterp.data.storage.places import check_free

REPORT = "report.html"


@contextmanager
def publishing(folder: Path, of: str) -> Iterator[Path]:
    """Give a temporary folder; at the end what is in it takes its place in `folder`, all of it or nothing.

    Args:
        folder: of the results; held by the caller (`stages.locked`).
        of: names the set of results: earlier ones of the set make way.

    Raises:
        InputError: if they cannot be written, or a name is taken by what this tool did not write.
    """
    staging = leftovers.unfinished(folder / of)
    try:
        with naming(folder):
            staging.mkdir(parents=True)
            yield staging
            names = sorted(ledger.files_below(staging))
            check_free(*(folder / name for name in names))
            ledger.enter_all(staging, names, of=of)  # what is to be moved: a kill leaves only a part of it here
            ledger.enter_all(folder, names, of=of, at=staging)
            ready = staging.rename(leftovers.unfinished(folder / of, "ready"))
        settle(leftovers.Leftover(ready, folder / of, "ready"))
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def settle(left: leftovers.Leftover) -> None:
    """Move results that are ready to their places; again from where a killed process stopped."""
    folder, of = left.place.parent, left.place.name
    new = ledger.names_of(left.path, of)  # none where a process was killed after all of them had been moved
    order = sorted(new, key=lambda name: name == REPORT)
    gone = [name for name in ledger.names_of(folder, of) if new and name not in new]
    for name in (*([REPORT] if (left.path / REPORT).exists() else []), *gone):
        remove(folder / name)
    for name in order:
        if os.path.lexists(left.path / name):
            put(left.path / name, folder / name)
    shutil.rmtree(left.path, ignore_errors=True)


def recover(folder: Path) -> None:
    """Clear away what dead processes left unfinished in a folder and below; restore or finish what they were moving."""
    for left in leftovers.left_below(folder):
        if left.kind == "ready":
            settle(left)
        else:
            clear(left)
