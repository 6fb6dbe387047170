"""What several checkpoints are set against each other with, looked up in one way for every function that does so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mechinterp.answers.behaviour import UNSAFE, Behaviour, judge_of
from mechinterp.answers.choosing import Named
from mechinterp.answers.judges import Judge
from mechinterp.data.pairs import AnyPair
from mechinterp.data.storage.places import check_name
from mechinterp.errors import InputError
from mechinterp.face.given import check_seed
from mechinterp.face.loading import CheckpointLike, instances_of
from mechinterp.face.progress import watched
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import WeightDelta
from mechinterp.models.progress import Reporter
from mechinterp.models.text.chat import ChatChoice
from mechinterp.runs.candidate import Candidate

TunedLike = CheckpointLike | WeightDelta
"""A checkpoint, or an edit that stands on the base."""
Several = TunedLike | Mapping[str, TunedLike]
"""One tuned checkpoint, or several by their names in the tables."""

ALONE = "tuned"
"""What one checkpoint is called that has no name of its own."""


@dataclass(frozen=True, kw_only=True)
class Opening:
    """How checkpoints are opened, and what is shown meanwhile: what every such function takes besides them.

    Attributes:
        seed: of every random choice.
        dtype, device: of what is opened from folders.
        chat: the one format that all are read in; None for the base's own.
        progress: whether bars are shown; None: in a notebook or on a terminal.
    """

    seed: int
    dtype: str
    device: str
    chat: str | None
    progress: bool | None


@dataclass(frozen=True)
class LookedUp:
    """What a function of the face was given, looked up; nothing of weights is read.

    Attributes:
        base, tuned, never: what is set against each other.
        behaviour: what is asked about.
        instances: pairs of it.
        chat: the format that was asked for, for all of them.
        reporter: told what is being done.
    """

    base: Candidate
    tuned: list[Candidate]
    never: Candidate | None
    behaviour: Behaviour
    instances: list[AnyPair]
    chat: ChatChoice | None
    reporter: Reporter
    _judge: Named | Sequence[Named] | None
    _opening: Opening

    @cached_property
    def judge(self) -> Judge:
        """The judge, made or opened once it is asked for.

        Raises:
            InputError: if there is no such judge, or the behaviour has one of its own.
        """
        how = self._opening
        return judge_of(
            self.behaviour, self._judge, self.instances, seed=how.seed, device=how.device, note=self.reporter.note
        )


@contextmanager
def looked_up(
    base: CheckpointLike,
    tuned: Several,
    data: Sequence[Any] | str | Path,
    opening: Opening,
    *,
    judge: Named | Sequence[Named] | None = None,
    behaviour: Behaviour | str = UNSAFE,
    never: TunedLike | None = None,
    alone: bool = False,
) -> Iterator[LookedUp]:
    """Look up what is set against each other, and show what is done meanwhile; `alone`: the base will do.

    Raises:
        InputError: for what is no checkpoint, is not there, or has another's name.
    """
    check_seed(opening.seed)
    about = Behaviour.named(behaviour)
    named = dict(tuned) if isinstance(tuned, Mapping) else _alone(tuned)
    beside = {} if never is None else {"never": never}
    for name, each in {"base": base, **named, **beside}.items():
        if not isinstance(each, Checkpoint | WeightDelta | str | Path):
            raise InputError(
                f"{name} is a {type(each).__name__}; give a checkpoint, an edit, or a folder or file of one"
            )
        if not isinstance(name, str):
            raise InputError(f"a tuned checkpoint is called {name!r:.60}; give its name as a text")
    if not (named or alone):
        raise InputError("there are no tuned checkpoints to compare with the base; give them by name")
    if taken := [name for name in ("base", *beside) if name in named]:
        whose = {"base": "the base", "never": "the model that never learnt"}[taken[0]]
        raise InputError(f"`{taken[0]}` is the name of {whose}; give the tuned checkpoint another")
    with watched(opening.progress) as reporter:
        options: dict[str, Any] = {"dtype": opening.dtype, "device": opening.device}
        below = Candidate.of(base, name="base", **options)
        candidates = [
            Candidate.of(each, name=check_name(name, "tuned"), base=below, **options) for name, each in named.items()
        ]
        yield LookedUp(
            below,
            candidates,
            None if never is None else Candidate.of(never, name="never", base=below, **options),
            about,
            instances_of(data, about),
            None if opening.chat is None else ChatChoice(opening.chat),
            reporter,
            judge,
            opening,
        )


def _alone(tuned: Any) -> dict[str, TunedLike]:
    """One checkpoint, by its own name if that is not another's.

    Raises:
        InputError: for a list of them, which has no names.
    """
    if not isinstance(tuned, Checkpoint | WeightDelta | str | Path):
        raise InputError(f"tuned is a checkpoint, or names the checkpoints, {{'sft': 'runs/sft'}}; got {tuned!r:.60}")
    own = tuned.name if isinstance(tuned, Checkpoint) else ALONE
    return {ALONE if own in ("base", "never") else own: tuned}
