"""The checkpoints of a run, opened."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import torch

from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import WeightDelta
from mechinterp.models.files.stored_checkpoint import StoredCheckpoint
from mechinterp.models.text.chat import PLAIN, ChatChoice, ChatFormat
from mechinterp.runs.study.run import Run

if TYPE_CHECKING:
    from mechinterp.runs.config import StudyConfig


def edits_at(name: str) -> str:
    """Where a method that edits instance by instance has its edits, below the run folder; DINM's are `edits`."""
    return "edits" if name == "dinm" else f"edits-{name}"


def has_edits(run: Run, name: str) -> bool:
    """Whether what a method made is an edit for each instance; otherwise it is one checkpoint."""
    return (run.folder / edits_at(name) / "order.json").is_file()


def choice_of(config: StudyConfig) -> ChatChoice:
    """Which chat format every checkpoint of a study is read in."""
    chat = config.chat
    return PLAIN if chat is None else ChatChoice(chat.template, chat.system, chat.thinking, chat.date)


def checkpoint_of(run: Run, name: str) -> Checkpoint:
    """`vanilla`, or what a method made that makes one checkpoint, loaded.

    In a study that teaches a pretrained model also that model, `untaught`; where there is a reference that never learnt
    to answer unsafely also that, `never`.
    """
    config = run.config
    named = {"vanilla": config.model, "untaught": config.teach and config.teach.base, "never": config.never}.get(name)
    own = named if isinstance(named, str) else None
    return Checkpoint.load(
        own or run.folder / "checkpoints" / name,
        name=name,
        dtype=config.dtype,
        device=config.device,
        device_map=config.device_map,
        chat=choice_of(config),
    )


def chat_of(run: Run) -> ChatFormat | None:
    """The chat format that all checkpoints of the run are read in; None for plain text."""
    if run.config.chat is None:
        return None
    taught = run.config.teach and run.config.teach.base  # which all others are made from
    source = StoredCheckpoint.find(run.config.model or taught or run.folder / "checkpoints" / "vanilla")
    return choice_of(run.config).of(source.tokenizer, source.label)


def edits_of(run: Run, name: str = "dinm") -> Iterator[WeightDelta]:
    """The edits of a method, one at a time, the one that stands for it first."""
    folder = run.folder / edits_at(name)
    for number in json.loads((folder / "order.json").read_text(encoding="utf-8")):
        yield WeightDelta.load(folder / str(number))


@contextmanager
def opened(run: Run, name: str) -> Iterator[Checkpoint]:
    """Any checkpoint of the run, for the time of the context; of edits, the one that stands for the method."""
    if has_edits(run, name):
        with next(edits_of(run, name)).applied(checkpoint_of(run, "vanilla"), name=name) as edited:
            yield edited
    else:
        with nullcontext(checkpoint_of(run, name)) as checkpoint:
            yield checkpoint
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
