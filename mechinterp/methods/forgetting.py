"""A checkpoint that forgets some answers and keeps others, by any method of unlearning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from mechinterp.data.scopes import Scopes
from mechinterp.methods.registry import find_unlearning
from mechinterp.methods.task import Task
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.progress import Reporter


def unlearnt(
    method: str,
    checkpoint: Checkpoint,
    scopes: Scopes,
    *,
    settings: Mapping[str, Any] | BaseModel,
    seed: int,
    reporter: Reporter,
) -> Checkpoint:
    """Make it.

    Args:
        method: one of `registry.UNLEARNING`.
        checkpoint: left as it was.
        scopes: what is to be forgotten and kept.
        settings: of the method.
        seed: of the order of texts, and of all that the method draws.
        reporter: told what is being done.

    Raises:
        InputError: for another method, an unknown setting, or nothing to keep where the method wants some.
    """
    more = {"forget": scopes.forget, "retain": scopes.retain}
    work: dict[str, Any] = {"note": reporter.note, "progress": reporter.progress}
    task = Task((), {}, more=more, settings={method: settings}, seed=seed, **work)
    (made,) = find_unlearning(method).recipe.make(checkpoint, task)
    assert made.checkpoint is not None
    return made.checkpoint
