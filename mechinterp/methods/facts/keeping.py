"""Edits of facts, each for itself, kept in a folder as they come; those that are there are not made again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from mechinterp.data.storage.provenance import code_of, digest
from mechinterp.methods.facts.editing import Editor, edit_facts
from mechinterp.methods.facts.requests import BARE, FactToken, Request, placed
from mechinterp.models import processes
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import kept_labels
from mechinterp.models.passes.second_moments import SecondMoments
from mechinterp.models.passes.watching import Progress

EDITED_BY = "mechinterp.methods.facts.editing"
"""The code that edits."""


def keep_facts(
    folder: Path,
    checkpoint: Checkpoint,
    requests: Sequence[Request],
    method: Editor,
    *,
    settings: BaseModel,
    moments: SecondMoments | None = None,
    seed: int = 0,
    rank: int | None = None,
    progress: Progress | None = None,
) -> int:
    """Edit every fact on the unedited model, into `FOLDER/NUMBER/` each, written as they come.

    What is there counts if its weights, its text, settings, second moments, seed, code and rank are the same.

    Args:
        checkpoint, requests, method, settings, moments, seed: as `edit_facts` takes them.
        rank: keep changes as factors of this rank, see `WeightDelta.save`.
        progress: called with (facts done, facts that were left to do).

    Returns:
        How many were there already.

    Raises:
        InputError: as `edit_facts`; edits before the one that came to nothing are kept.
    """
    made_of: list[Any] = [method, settings.model_dump(mode="json"), seed, code_of(EDITED_BY)]
    made_of.append(None if moments is None else moments.digest)
    keys = {request.id: digest([*made_of, *_read(checkpoint, request, settings)]) for request in requests}
    missing = []
    for request in requests:
        wanted = {"key": keys[request.id], "fingerprint": checkpoint.fingerprint, "rank": rank}
        there = kept_labels(folder / str(request.id))
        if {name: there.get(name) for name in wanted} != wanted:
            missing.append(request)
    missing = processes.from_main(missing)
    given: dict[str, Any] = {"settings": settings, "moments": moments, "seed": seed, "progress": progress}
    for found in edit_facts(checkpoint, missing, method, **given) if missing else ():
        if processes.is_main():
            replace(found, key=keys[found.instance]).save(folder / str(found.instance), rank=rank)
    processes.wait()
    return len(requests) - len(missing)


def _read(checkpoint: Checkpoint, request: Request, settings: BaseModel) -> list[Any]:
    """What is asked for, and the tokens that are read in the bare context, in whatever chat format.

    Raises:
        InputError: for a text that does not fit, as the edit itself.
    """
    at: FactToken = getattr(settings, "fact_token", "last")
    (found,) = placed(checkpoint, request, (BARE,), at, target=request.target)
    return [asdict(request), list(found.text.ids), found.text.prompt_length, found.place]
