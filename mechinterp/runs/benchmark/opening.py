"""Open what a way to detoxify made, one checkpoint at a time beside the base."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import WeightDelta
from mechinterp.models.equality import equal_weights, notes_of_equal
from mechinterp.runs.benchmark.made import Made
from mechinterp.runs.benchmark.materials import Materials
from mechinterp.runs.study.checkpoints import choice_of


@contextmanager
def opened(materials: Materials, part: Made) -> Iterator[Checkpoint]:
    """A treated checkpoint (see `Made.parts`), for the time of the context; the base comes back as it was."""
    if part.edit is not None:
        with WeightDelta.load(part.edit).applied(materials.base, name=part.label) as edited:
            yield edited
    elif part.checkpoint is not None:
        config = materials.study.config
        trained = Checkpoint.load(
            part.checkpoint,
            name=part.label,
            dtype=config.dtype,
            device=config.device,
            device_map=config.device_map,
            chat=choice_of(config),
        )
        for note in notes_of_equal("base", [part.label], lambda *_: equal_weights(materials.base, trained)):
            materials.reporter.note(note)
        yield trained
    else:
        yield replace(materials.base, name=part.label)
