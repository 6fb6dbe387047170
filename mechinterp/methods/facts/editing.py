"""Facts into a model by any of the editors: each for itself, one on top of the other, or all at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, Literal, get_args

import torch
from pydantic import BaseModel

from mechinterp.data.facts.fact import Fact
from mechinterp.errors import InputError, near
from mechinterp.methods.facts.alphaedit import alphaedit
from mechinterp.methods.facts.contexts import contexts_for
from mechinterp.methods.facts.fine_tuning import ft_m
from mechinterp.methods.facts.memit import memit
from mechinterp.methods.facts.requests import Request
from mechinterp.methods.facts.rome import rome
from mechinterp.methods.facts.settings import (
    AlphaEditSettings,
    FtMSettings,
    MemitSettings,
    RomeSettings,
    ValueSettings,
    default_settings,
)
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import WeightDelta
from mechinterp.models.passes.second_moments import SecondMoments, second_moments
from mechinterp.models.passes.watching import Progress

Editor = Literal["rome", "memit", "alphaedit", "ft_m"]
Mode = Literal["each", "sequential", "batch"]


def needs_moments(settings: BaseModel) -> bool:
    """Whether an editor with these settings is nothing without second moments."""
    return isinstance(settings, MemitSettings | AlphaEditSettings) or getattr(settings, "use_moments", False)


def moments_for(
    checkpoint: Checkpoint, texts: Sequence[str] | None, settings: BaseModel, *, progress: Progress | None = None
) -> SecondMoments | None:
    """Second moments of texts at the blocks that an editor with these settings edits.

    Returns:
        None where it needs none, and where there are no texts, which the editor refuses.
    """
    if texts is None or not needs_moments(settings):
        return None
    return second_moments(checkpoint, texts, getattr(settings, "edited", ()), progress=progress)


def edit_facts(
    checkpoint: Checkpoint,
    facts: Sequence[Fact | Request],
    method: Editor,
    *,
    mode: Mode = "each",
    settings: BaseModel | None = None,
    contexts: Sequence[str] | None = None,
    moments: SecondMoments | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Iterator[WeightDelta]:
    """Edit facts; the model is left as it was.

    Args:
        checkpoint: the model to edit.
        facts: what is to be changed; numbered from 1, or as requests with numbers of their own.
        method: the editor.
        mode: an edit for each fact on the unedited model; one on top of the other; or one of all, which ROME cannot.
        settings: of the editor; by default those of the architecture's family.
        contexts, seed: see `rome`.
        moments: second moments of the edited blocks, see `second_moments`.
        progress: called with (facts done, facts in all).

    Yields:
        Of `each` an edit for every fact; of `sequential`, after every fact, the sum of the changes so far; of `batch`
        the one edit.

    Raises:
        InputError: for an unknown method or mode, missing moments, no facts, and as the editors.
    """
    _check(method, mode)
    requests = [one if isinstance(one, Request) else Request.of(i, one) for i, one in enumerate(facts, 1)]
    if not requests:
        raise InputError("there are no facts to edit")
    settings = settings or default_settings(method, checkpoint)
    if moments is not None:
        moments.check(checkpoint, ())
    elif needs_moments(settings):
        raise InputError(f"{method} needs second moments of other texts: give `texts` to make them of, or `moments`")
    if isinstance(settings, ValueSettings):
        contexts = contexts_for(checkpoint, contexts, settings.context_lengths, seed)  # once, of the unedited model
    if method == "alphaedit":
        assert isinstance(settings, AlphaEditSettings)
        assert moments is not None
        groups = [requests] if mode == "batch" else [[request] for request in requests]
        together = [[group] for group in groups] if mode == "each" else [groups]  # each of which starts anew
        given: dict[str, Any] = {"moments": moments, "settings": settings, "contexts": contexts}
        edits = chain.from_iterable(alphaedit(checkpoint, some, **given) for some in together)
        yield from _counted(edits, len(requests), mode, progress)
        return

    def edit(current: Checkpoint, asked: Sequence[Request]) -> WeightDelta:
        if isinstance(settings, RomeSettings):
            own = moments if moments is None else replace(moments, fingerprint=current.fingerprint)
            return rome(current, asked[0], settings=settings, contexts=contexts, moments=own)
        if isinstance(settings, MemitSettings):
            assert moments is not None
            own = replace(moments, fingerprint=current.fingerprint)
            return memit(current, asked, settings=settings, contexts=contexts, moments=own)
        assert isinstance(settings, FtMSettings)
        return ft_m(current, asked, settings=settings)

    def edits_of() -> Iterator[WeightDelta]:
        if mode == "batch":
            yield edit(checkpoint, requests)
            return
        so_far: WeightDelta | None = None
        for request in requests:
            if so_far is None or mode == "each":
                so_far = edit(checkpoint, [request])
            else:
                with so_far.applied(checkpoint) as current:
                    found = edit(current, [request])
                so_far = added_up(so_far, found)
            yield so_far

    yield from _counted(edits_of(), len(requests), mode, progress)


def _check(method: str, mode: str) -> None:
    """Refuse an unknown method or mode, and a method that has not that mode."""
    for given, known, what in ((method, Editor, "method"), (mode, Mode, "mode")):
        if given not in get_args(known):
            raise InputError(
                f"unknown {what} {given!r}; known are {', '.join(get_args(known))}{near(given, get_args(known))}"
            )
    if method == "rome" and mode == "batch":
        raise InputError(
            "rome edits one fact at a time: choose the `mode` each or sequential, or memit for many at once"
        )


def added_up(before: WeightDelta, after: WeightDelta) -> WeightDelta:
    """An edit, and one that was made on the model with it, as one edit of the model without both.

    Factors stand side by side where both are known by them; log and settings are those of the later one.
    """
    tensors, factors = {**before.tensors}, {**before.factors}
    for name, change in after.tensors.items():
        old, new = factors.pop(name, None), after.factors.get(name)
        if name not in tensors:
            tensors[name] = change
            if new is not None:
                factors[name] = new
            continue
        tensors[name] = tensors[name] + change
        if old is not None and new is not None:
            factors[name] = torch.cat([old[0], new[0]], 1), torch.cat([old[1], new[1]], 0)
            tensors[name] = factors[name][0] @ factors[name][1]
    blocks = sorted({before.block, *before.also, after.block, *after.also})
    numbers = [*(before.instances or (before.instance,)), *(after.instances or (after.instance,))]
    return replace(
        after,
        tensors=tensors,
        factors=factors,
        block=blocks[0],
        also=tuple(blocks[1:]),
        instance=before.instance,
        instances=tuple(numbers),
        fingerprint=before.fingerprint,
        tokenizer=before.tokenizer,
    )


def _counted(edits: Iterator[WeightDelta], total: int, mode: Mode, progress: Progress | None) -> Iterator[WeightDelta]:
    for done, delta in enumerate(edits, 1):
        yield replace(delta, mode=mode)
        if progress is not None:
            progress(total if mode == "batch" else done, total)
