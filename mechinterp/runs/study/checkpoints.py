"""The checkpoints of a run, opened."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch

from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import WeightDelta
from mechinterp.runs.study.run import Run


def checkpoint_of(run: Run, name: str) -> Checkpoint:
    """`vanilla`, `sft` or `dpo`, loaded."""
    own = run.config.model if name == "vanilla" else None
    return Checkpoint.load(
        own or run.folder / "checkpoints" / name,
        name=name,
        dtype=run.config.dtype,
        device=run.config.device,
        device_map=run.config.device_map,
    )


def edits_of(run: Run) -> Iterator[WeightDelta]:
    """The edits, one at a time, the one that stands for `dinm` first."""
    for number in json.loads((run.folder / "edits" / "order.json").read_text(encoding="utf-8")):
        yield WeightDelta.load(run.folder / "edits" / str(number))


@contextmanager
def opened(run: Run, name: str) -> Iterator[Checkpoint]:
    """Any checkpoint of the run, `dinm` included, for the time of the context."""
    if name == "dinm":
        with next(edits_of(run)).applied(checkpoint_of(run, "vanilla"), name="dinm") as edited:
            yield edited
    else:
        with nullcontext(checkpoint_of(run, name)) as checkpoint:
            yield checkpoint
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
