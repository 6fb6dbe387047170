"""The model as it is: asked the queries as they are, or with DINM's suffix S after each.

vanilla                nothing at all, the zero of every comparison
suffix, dinm_wo_tune   S alone; what is left of DINM without its edit (Wang et al. 2024, Table 2: wo/Tune)
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from mechinterp.errors import InputError
from mechinterp.methods.editing.settings import DinmSettings
from mechinterp.methods.method import Recipe
from mechinterp.methods.task import NoSettings, Task, Treatment
from mechinterp.models.checkpoints import Checkpoint


def vanilla(checkpoint: Checkpoint, task: Task) -> Iterator[Treatment]:
    """The checkpoint as it is, asked the queries as they are."""
    yield Treatment("vanilla", tuple(task.instances))


def suffix_only(checkpoint: Checkpoint, task: Task, *, method: str = "suffix") -> Iterator[Treatment]:
    """The checkpoint as it is, with the suffix of dinm's settings after every query."""
    settings = task.settings_of("dinm", DinmSettings)
    if not settings.suffix:
        raise InputError(f"{method}: dinm's settings have no suffix to ask with; give one or leave the method out")
    yield Treatment(method, tuple(task.instances), suffix=settings.suffix)


VANILLA = Recipe(vanilla, NoSettings)
SUFFIX_ONLY = Recipe(suffix_only, NoSettings, shares=("dinm",))
WITHOUT_TUNING = Recipe(partial(suffix_only, method="dinm_wo_tune"), NoSettings, shares=("dinm",))
