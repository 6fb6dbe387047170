"""Editors by name: each makes one change of a model as it stands, of one fact or pair or of several together.

Pairs are edited towards their safe answer, whatever that is. A fact is edited at its subject; a pair has none, so that
ROME, MEMIT and AlphaEdit edit it at the last token of its prompt (`fact_token`). AlphaEdit's later edits leave in place
what its earlier ones made of the same model, as far as one and the same editor made them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from pydantic import BaseModel

from mechinterp.data.facts.fact import Fact
from mechinterp.data.facts.queries import Change
from mechinterp.errors import InputError, near
from mechinterp.methods.editing.dinm import DinmSettings, edit, edit_batch
from mechinterp.methods.facts.alphaedit import alphaedit_in_turn
from mechinterp.methods.facts.contexts import contexts_for
from mechinterp.methods.facts.editing import edit_facts
from mechinterp.methods.facts.requests import Request
from mechinterp.methods.facts.settings import AlphaEditSettings, ValueSettings, default_settings
from mechinterp.methods.task import checked_settings
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import WeightDelta
from mechinterp.models.passes.second_moments import SecondMoments

EditorName = Literal["rome", "memit", "alphaedit", "ft_m", "dinm"]

MakeEdit = Callable[[Checkpoint, Sequence[Change]], WeightDelta]
"""One change of a model as it stands, that brings about what is asked; the model is left as it was."""


@dataclass(frozen=True)
class Editor:
    """How a model is edited.

    Attributes:
        name: in tables.
        make: makes an edit.
        suffix: text behind every prompt with which an edited model is asked, too; None for none.
    """

    name: str
    make: MakeEdit
    suffix: str | None = None


def editor_of(
    name: str | MakeEdit,
    base: Checkpoint,
    *,
    settings: BaseModel | Mapping[str, Any] | None = None,
    moments: SecondMoments | None = None,
    blocks: Mapping[int, int] | int | None = None,
    seed: int = 0,
) -> Editor:
    """The editor of a name, or one that is a function of its own.

    Args:
        name: one of `EditorName`, or what makes an edit.
        base: the unedited model: it writes the contexts of ROME, MEMIT and AlphaEdit, once for all edits.
        settings: of the method; by default those of the architecture's family, or of DINM as published.
        moments: second moments of the base, where the method needs them.
        blocks: of DINM: of each pair by its id, or one for all.
        seed: of the contexts.

    Raises:
        InputError: for an unknown name, settings that do not fit, DINM without a block, or AlphaEdit without moments.
    """
    if callable(name):
        return Editor(getattr(name, "__name__", "own"), name)
    if name not in get_args(EditorName):
        known = get_args(EditorName)
        raise InputError(f"unknown editor {name!r:.40}; known are {', '.join(known)}{near(name, known)}")
    if name == "dinm":
        return _dinm(checked_settings("dinm", DinmSettings, settings or {}), blocks)
    given = settings if isinstance(settings, BaseModel) else default_settings(name, base, settings)
    contexts = None
    if isinstance(given, ValueSettings):
        contexts = contexts_for(base, None, given.context_lengths, seed)
    if isinstance(given, AlphaEditSettings):
        return _alphaedit(base, given, contexts, moments)

    def make(current: Checkpoint, changes: Sequence[Change]) -> WeightDelta:
        own = None if moments is None else replace(moments, fingerprint=current.fingerprint)
        (found,) = edit_facts(
            current,
            [_request(number, change) for number, change in enumerate(changes)],
            name,  # type: ignore[arg-type] # checked above
            mode="batch" if len(changes) > 1 else "each",
            settings=given,
            contexts=contexts,
            moments=own,
        )
        return found

    return Editor(name, make)


def _alphaedit(
    base: Checkpoint, settings: AlphaEditSettings, contexts: Sequence[str] | None, moments: SecondMoments | None
) -> Editor:
    if moments is None:
        raise InputError("alphaedit needs second moments of other texts; give `moments`")
    edit_in_turn = alphaedit_in_turn(base, moments=moments, settings=settings, contexts=contexts)

    def make(current: Checkpoint, changes: Sequence[Change]) -> WeightDelta:
        return edit_in_turn(current, [_request(number, change) for number, change in enumerate(changes)])

    return Editor("alphaedit", make)


def _dinm(settings: DinmSettings, blocks: Mapping[int, int] | int | None) -> Editor:
    if blocks is None:
        raise InputError("dinm needs the block that it edits; give its number")

    def make(current: Checkpoint, changes: Sequence[Change]) -> WeightDelta:
        pairs = [change for change in changes if not isinstance(change, Fact)]
        if len(pairs) < len(changes):
            raise InputError("dinm edits pairs, not facts; choose rome, memit or ft_m")
        block = blocks if isinstance(blocks, int) else blocks[pairs[0].id]
        if len(pairs) == 1:
            return edit(current, pairs[0], block=block, settings=settings)
        return edit_batch(current, pairs, block=block, settings=settings)

    return Editor("dinm", make, settings.suffix)


def _request(number: int, change: Change) -> Request:
    if isinstance(change, Fact):
        return Request.of(number, change)
    return Request(change.id, change.prompt, None, change.safe)
