"""A checkpoint to be compared: on disk or in memory, looked up once, and opened when its turn comes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from mechinterp.audit.trajectory import Step
from mechinterp.data.storage.hashing import settled, state_of
from mechinterp.errors import InputError
from mechinterp.models.bases import split_base, stands_below
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import WeightDelta
from mechinterp.models.files.loading import check_adapter
from mechinterp.models.files.stored_checkpoint import StoredCheckpoint
from mechinterp.models.sources import Source
from mechinterp.models.text.chat import PLAIN, ChatFormat


@dataclass(frozen=True, eq=False)
class Candidate:
    """A checkpoint that is opened when its turn comes; see `Candidate.of`.

    Attributes:
        name: in tables.
        origin: where it lies on disk, or the checkpoint in memory.
        change: an edit or adapter that is put on a copy of the origin; None where it is the origin itself.
        options: dtype, device, device_map: how what lies on disk is loaded.
        chat: the format that it is read in, see `one_format`; None for plain text.
        step: its place in a training run, if it is one of a trajectory.
    """

    name: str
    origin: StoredCheckpoint | Checkpoint
    change: Source | WeightDelta | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    step: Step | None = None
    chat: ChatFormat | None = None

    @classmethod
    def of(
        cls,
        what: Checkpoint | WeightDelta | str | Path,
        *,
        name: str | None = None,
        base: Candidate | None = None,
        step: Step | None = None,
        dtype: str = "auto",
        device: str = "auto",
        device_map: str | None = None,
        trust_remote_code: bool = False,
    ) -> Candidate:
        """Look a checkpoint up; nothing of its weights is read.

        Args:
            what: a checkpoint or an edit in memory, a folder or file of any kind that `Checkpoint.load` opens, a hub
                id, or `ADAPTER@MODEL`.
            name: in tables; by default its own.
            base: what it is compared with. An edit, a file of weights and an adapter that names no other model stand
                on it, see `bases.stands_on`; None for the base itself.
            step: its place in a training run.
            dtype, device, device_map, trust_remote_code: as `Checkpoint.load` takes them, for what lies on disk.

        Raises:
            InputError: if there is no such checkpoint, or nothing that it could stand on.
        """
        options = {"dtype": dtype, "device": device, "device_map": device_map}
        if isinstance(what, Checkpoint):
            return cls(name or what.name, what, step=step)
        if isinstance(what, WeightDelta):
            if base is None:
                raise InputError("an edit is no base; give the model that it changes")
            return cls(name or f"edit{what.instance}", base.origin, what, base.options, step)
        path, own = split_base(str(what))
        source, trust = Source.find(path), trust_remote_code
        below: Source | str | None = own
        if own is None and base is not None:
            if isinstance(base.origin, Checkpoint) and stands_on_memory(source, base.origin):
                return cls(name or source.name, base.origin, source, options, step)
            below = stands_below(source, base.source)
            if below == base.source:
                below = _stored_base(source, base)
        under: Source | StoredCheckpoint | None = source.base(below)
        like = base.origin if base is not None and isinstance(base.origin, StoredCheckpoint) else None
        if like is not None and under is like.source:
            under = like  # with all that has been read of it
        return cls(name or source.name, StoredCheckpoint(source, under, trust, like), None, options, step)

    @property
    def source(self) -> str:
        """What it was looked up as."""
        if isinstance(self.change, Source):
            return self.change.given
        return self.origin.source.given if isinstance(self.origin, StoredCheckpoint) else self.origin.source

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Its tokenizer; an edit or adapter put on a checkpoint in memory is read with that one's."""
        return self.origin.tokenizer

    def reading(self, chat: ChatFormat | None) -> Candidate:
        """It, with texts fed in a format."""
        return self if chat == self.chat and isinstance(self.origin, StoredCheckpoint) else replace(self, chat=chat)

    def open(self) -> Checkpoint:
        """Load it; a checkpoint in memory is given as it is, under its name here."""
        if isinstance(self.origin, StoredCheckpoint):
            opened = Checkpoint.load(self.origin, name=self.name, chat=self.chat or PLAIN, **self.options)
        else:
            own = self.origin if self.change is None else self.origin.copied()
            opened = replace(own, name=self.name, chat=self.chat)  # without the fingerprint that the other remembers
        if isinstance(self.change, WeightDelta):
            opened = replace(self.change.apply_to(opened), source=self._changed)
        elif self.change is not None:
            opened = replace(opened.changed_by(self.change, self._changed), name=self.name)
        return opened

    @property
    def stored_types(self) -> dict[str, str]:
        """See `StoredCheckpoint.stored_types`; of what is in memory nothing."""
        return self.origin.stored_types if isinstance(self.origin, StoredCheckpoint) else {}

    @property
    def _changed(self) -> str:
        below = self.origin.label if isinstance(self.origin, StoredCheckpoint) else self.origin.source
        if isinstance(self.change, WeightDelta):
            return f"{below} + edit of instance {self.change.instance}"
        return f"{self.source} on {below}"

    @cached_property
    def skeleton(self) -> Checkpoint:
        """It for checks before anything long: without weights, where these lie on disk.

        Raises:
            InputError: see `Checkpoint.skeleton`.
        """
        if isinstance(self.origin, StoredCheckpoint):
            found = Checkpoint.skeleton(self.origin, chat=self.chat)
        else:
            found = self.origin if self.origin.chat == self.chat else replace(self.origin, chat=self.chat)
        if self.change is None:
            return found
        if isinstance(self.change, Source) and self.change.kind == "adapter":
            check_adapter(self.change, found.model)
        else:
            delta = self.change if isinstance(self.change, WeightDelta) else WeightDelta.load(self.change.path)
            delta.check_shapes(found.shapes, found.source)
        return replace(found, source=self._changed)

    def signature(self) -> Any:
        """What changes whenever one of its files does; None where that cannot be told.

        It cannot if it is in memory, if a hub id is part of it, which has no files here, or if a file changed a moment
        ago (`hashing`).
        """
        if not isinstance(self.origin, StoredCheckpoint) or self.change is not None:
            return None
        sources = [stored.source for stored in self.origin.chain]
        if any(source.kind == "hub" for source in sources):
            return None
        now = time.time_ns()
        states = {str(path.resolve()): state_of(path) for path in self.origin.files}
        if not all(settled(state, now) for state in states.values()):
            return None
        read = [] if self.chat is None else [self.chat.fingerprint]
        return [[str(source.path.resolve()) for source in sources], states, self.options.get("dtype", "auto"), *read]


def stands_on_memory(source: Source, base: Checkpoint) -> bool:
    """Whether a source is a change of a base in memory; an adapter may have been trained on another model.

    Raises:
        InputError: for an adapter that names no model, or one that is not here.
    """
    if source.kind == "adapter":
        return stands_below(source, base.source) == base.source
    return source.kind == "edit"


def _stored_base(source: Source, base: Candidate) -> Source | None:
    """The files of the base that a source stands on.

    Raises:
        InputError: for bare weights on a base in memory, which has none.
    """
    if isinstance(base.origin, StoredCheckpoint):
        return base.origin.source
    if base.origin.source != "memory" and Path(base.origin.source).exists():
        return Source.find(base.origin.source)
    if source.kind == "tensors":
        raise InputError(
            f"{source.given}: bare weights stand on a model's files, and the base is in memory; give "
            f"{source.given}@MODEL"
        )
    return None
