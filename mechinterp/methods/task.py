"""What every way to detoxify is given, and what it gives back.

A way is a function of a checkpoint and a `Task`. It yields `Treatment`s, each for the instances it is meant to be
evaluated on: the edit of one instance, or one checkpoint for all of them. The checkpoint is left as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from mechinterp.data.pairs import AnyPair
from mechinterp.data.validation import Fault
from mechinterp.errors import InputError, near
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import WeightDelta
from mechinterp.models.passes.watching import Progress

Settings = TypeVar("Settings", bound=BaseModel)


class NoSettings(BaseModel):
    """Of a way that has no settings of its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class Task:
    """What is to be detoxified, on what, and how.

    Attributes:
        instances: those that are edited, or defended by what was trained.
        blocks: toxic layer of every instance, by its id.
        training: instances for the ways that train one checkpoint.
        more: further data by their kind, for methods that take other things: facts, texts to forget and to retain.
        settings: of each way, by its name, as a model or as a mapping; a way that has none here uses its defaults.
        made: checkpoints of trained ways that exist already, by the way's name; they are not trained again.
        kept: folder where a way may keep what it has so far, to go on from; it belongs to this task alone.
        seed: of every random choice.
        note: told what is being done.
        progress: gives a callback for (done, in all) of one piece of work.
    """

    instances: Sequence[AnyPair]
    blocks: Mapping[int, int]
    training: Sequence[AnyPair] = ()
    more: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    made: Mapping[str, Checkpoint] = field(default_factory=dict)
    kept: Path | None = None
    seed: int = 0
    note: Callable[[str], None] = lambda _: None
    progress: Callable[[str], Progress] = lambda _: lambda done, total: None

    def settings_of(self, name: str, kind: type[Settings]) -> Settings:
        """The settings given for a way, or its defaults.

        Raises:
            InputError: for settings that do not fit, see `checked_settings`.
        """
        return checked_settings(name, kind, self.settings.get(name, {}))


@dataclass(frozen=True)
class Treatment:
    """What a way made.

    Attributes:
        method: the way's name.
        instances: what it is evaluated on, of whatever kind it was given.
        delta: a change of the base's weights; None for none.
        checkpoint: a checkpoint of its own, instead of a change.
        prefix, suffix: text put before and after every query, None for none.
        log: a row for each step that a trainer told of; it may be empty.
    """

    method: str
    instances: tuple[Any, ...]
    delta: WeightDelta | None = None
    checkpoint: Checkpoint | None = None
    prefix: str | None = None
    suffix: str | None = None
    log: tuple[Mapping[str, float], ...] = ()

    @contextmanager
    def opened(self, base: Checkpoint) -> Iterator[Checkpoint]:
        """The treated checkpoint, for the time of the context; the base comes back as it was."""
        if self.checkpoint is not None:
            yield replace(self.checkpoint, name=self.method)
        elif self.delta is not None:
            with self.delta.applied(base, name=self.method) as edited:
                yield edited
        else:
            yield replace(base, name=self.method)


Way = Callable[[Checkpoint, Task], Iterator[Treatment]]


def checked_settings(name: str, kind: type[Settings], given: Mapping[str, Any] | BaseModel) -> Settings:
    """Settings from what a user wrote.

    Args:
        name: of the way, for the error.
        kind: what they are checked against.
        given: the settings by their names, or checked already.

    Raises:
        InputError: for a setting that is unknown, missing, or out of range; the message names it.
    """
    if isinstance(given, kind):
        return given
    if not isinstance(given, Mapping):
        raise InputError(f"{name}: settings are a mapping of names to values, this is {type(given).__name__}")
    try:
        return kind.model_validate(dict(given))
    except ValidationError as error:
        fault = Fault.of(error)
    if fault.kind == "extra_forbidden":
        known = ", ".join(kind.model_fields) or "it has none of its own"
        raise InputError(
            f"{name}: unknown setting `{fault.where}`; known: {known}{near(fault.where, kind.model_fields)}"
        )
    if fault.kind == "missing":
        raise InputError(f"{name}: the setting `{fault.where}` is missing; give one")
    if not fault.where:  # of several settings together; the message names them
        raise InputError(f"{name}: {fault.said}")
    raise InputError(f"{name}: `{fault.where}`: {fault.told}")
