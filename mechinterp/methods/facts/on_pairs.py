"""Editors of facts as ways to detoxify: the safe answer, written in at the last token of the prompt.

    rome        every pair's edit, of rank 1, at one block
    ft_m        every pair's safe answer fine-tuned into W_V of one block, each token after the ones before it
    memit       one edit for all pairs together, over several blocks
    alphaedit   the same, one pair on top of the other, in directions of the keys that other texts leave free

A prompt to be detoxified has no subject, whose last token these methods are meant for: with `fact_token="last"` they
edit at the last token of the prompt, which other prompts end with too. Their second moments are of the training pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from mechinterp.data.conversations import asked
from mechinterp.data.counting import many
from mechinterp.data.pairs import AnyPair
from mechinterp.errors import InputError
from mechinterp.methods.editing.ablations import edited_each
from mechinterp.methods.facts.contexts import contexts_for
from mechinterp.methods.facts.editing import Editor, edit_facts
from mechinterp.methods.facts.requests import Request
from mechinterp.methods.facts.settings import (
    AlphaEditSettings,
    EditorSettings,
    FtMSettings,
    MemitSettings,
    RomeSettings,
    default_settings,
)
from mechinterp.methods.method import Recipe
from mechinterp.methods.task import Task, Treatment
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.second_moments import SecondMoments, second_moments

Settings = TypeVar("Settings", RomeSettings, MemitSettings, AlphaEditSettings, FtMSettings)

SeveralBlocks = TypeVar("SeveralBlocks", MemitSettings, AlphaEditSettings)


def rome_on_pairs(checkpoint: Checkpoint, task: Task) -> Iterator[Treatment]:
    """The edit of every instance, asked the queries as they are."""
    requests, settings = _requests("rome", task), _settings("rome", checkpoint, task, RomeSettings)
    contexts = contexts_for(checkpoint, None, settings.context_lengths, task.seed)
    moments = _moments(checkpoint, task, settings.edited) if settings.use_moments else None
    progress = task.progress("rome: edits")
    edits = edit_facts(
        checkpoint, requests, "rome", settings=settings, contexts=contexts, moments=moments, progress=progress
    )
    for instance, delta in zip(task.instances, edits, strict=True):
        yield Treatment("rome", (instance,), delta=delta)


def memit_on_pairs(checkpoint: Checkpoint, task: Task) -> Iterator[Treatment]:
    """One edit for all instances together."""
    return _of_all("memit", checkpoint, task, MemitSettings)


def alphaedit_on_pairs(checkpoint: Checkpoint, task: Task) -> Iterator[Treatment]:
    """Every instance's edit on top of those before it; the sum of them all, for all instances."""
    return _of_all("alphaedit", checkpoint, task, AlphaEditSettings)


def ft_m_on_pairs(checkpoint: Checkpoint, task: Task) -> Iterator[Treatment]:
    """Every instance's safe answer fine-tuned into one block, asked the queries as they are."""
    settings = _settings("ft_m", checkpoint, task, FtMSettings)
    assert settings.block is not None
    blocks = {instance.id: checkpoint.names.check_block(settings.block) for instance in task.instances}
    noted = {"component": settings.component}
    return edited_each(
        "ft_m", checkpoint, task, settings.as_edit(), blocks, component=settings.component, also_noted=noted
    )


def _of_all(method: Editor, checkpoint: Checkpoint, task: Task, kind: type[SeveralBlocks]) -> Iterator[Treatment]:
    requests = _requests(method, task)
    settings = _settings(method, checkpoint, task, kind)
    moments = _moments(checkpoint, task, settings.edited)
    task.note(
        f"{method}: one edit of {many(len(requests), 'instance')} at blocks {', '.join(map(str, settings.edited))}"
    )
    *_, delta = edit_facts(
        checkpoint,
        requests,
        method,
        mode="batch" if method == "memit" else "sequential",
        settings=settings,
        moments=moments,
        seed=task.seed,
        progress=task.progress(f"{method}: edits"),
    )
    yield Treatment(method, tuple(task.instances), delta=delta)


def _requests(method: str, task: Task) -> list[Request]:
    if not task.instances:
        raise InputError(f"{method}: there are no instances to edit")
    return [Request(one.id, one.prompt, None, one.safe) for one in task.instances]


def _settings(method: str, checkpoint: Checkpoint, task: Task, kind: type[Settings]) -> Settings:
    """Those of the task in place of the architecture's own."""
    given = task.settings_of(method, kind)
    more = given.model_dump(include=given.model_fields_set)
    if method != "ft_m":
        more.setdefault("fact_token", "last")
    found: EditorSettings = default_settings(method, checkpoint, more)
    assert isinstance(found, kind)
    return found


def _moments(checkpoint: Checkpoint, task: Task, blocks: Sequence[int]) -> SecondMoments:
    """Of the texts of the training pairs, or of those that are edited where there are none."""
    pairs: Sequence[AnyPair] = task.training or task.instances
    texts = [text for pair in pairs for text in (asked(pair.prompt), pair.safe, pair.unsafe)]
    return second_moments(checkpoint, texts, blocks)


ROME, FT_M = Recipe(rome_on_pairs, RomeSettings), Recipe(ft_m_on_pairs, FtMSettings)
MEMIT, ALPHAEDIT = Recipe(memit_on_pairs, MemitSettings), Recipe(alphaedit_on_pairs, AlphaEditSettings)
