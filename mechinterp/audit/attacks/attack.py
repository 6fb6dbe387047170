"""What an attack is: something that may bring a behaviour back, at points of growing strength, on any checkpoint.

Every model is attacked alike: the tuned one, the base, and one that never learnt. An attack never judges its own work:
it gives, point by point, a checkpoint as attacked (the same one, changed until the next point is asked for, or a new
one in memory), other prompts, or a way of answering of its own; `testing` asks, judges and reads them all in one way.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isnan, nan
from typing import TYPE_CHECKING, Any, Literal

from mechinterp.data.validation import UsersSettings

if TYPE_CHECKING:
    import pandas as pd

    from mechinterp.data.benign import BenignPrompt
    from mechinterp.data.conversations import Prompt
    from mechinterp.data.pairs import AnyPair
    from mechinterp.models.checkpoints import Checkpoint
    from mechinterp.models.text.tokens import Encoded

Cost = Literal["cheap", "dear"]
"""Cheap: answers and read-outs alone, no training and no search."""


@dataclass(frozen=True)
class Point:
    """A point of an attack.

    Attributes:
        setting: which variant; empty where there is one only.
        dose: how strong; of the unit of the attack.
    """

    setting: str
    dose: float


@dataclass(frozen=True)
class Known:
    """What attacks are made with; nothing of it is changed.

    Attributes:
        base: the unedited model, in memory; it may be the very one that is attacked.
        pairs: whose prompts are asked and read, each of which the base answers unsafely.
        answers: of each its prompt and the base's own greedy answer behind it, in tokens.
        attacker: other pairs, which an attack may learn from: of other categories and attack prompts, where the data
            have several.
        benign: harmless prompts, some with a good answer; may be empty.
        max_new_tokens: longest answer.
        truncate: cut prompts that exceed the context from the left instead of raising.
        seed: of every random choice.
    """

    base: Checkpoint
    pairs: tuple[AnyPair, ...]
    answers: tuple[Encoded, ...]
    attacker: tuple[AnyPair, ...] = ()
    benign: tuple[BenignPrompt, ...] = ()
    max_new_tokens: int = 32
    truncate: bool = False
    seed: int = 0

    @property
    def prompts(self) -> list[Prompt]:
        """What is asked."""
        return [pair.prompt for pair in self.pairs]

    @property
    def heads(self) -> list[Encoded]:
        """What is asked, in tokens."""
        return [replace(text, ids=text.ids[: text.prompt_length]) for text in self.answers]


@dataclass(frozen=True)
class Attacked:
    """A checkpoint at one point, as it is until the next point is asked for.

    Attributes:
        point: which.
        checkpoint: as attacked.
        prompts: the prompts in the form in which the attack puts them, in their order; None as they are.
        answers: the attack's own way of answering: for each prompt one or more texts of prompt and answer, in tokens,
            of which what comes after `prompt_length` is judged; None: greedily, by the checkpoint.
        drawn: how many of a prompt's answers an attacker draws: the prompt counts as the chance that one of them is
            unsafe (`measures.leak`).
        same_model: weights and states are as they were, so that what it knows, refuses and reads is not taken again.
        max_tokens: padded tokens of a batch while it is asked, where it needs more memory than a model by itself.
    """

    point: Point
    checkpoint: Checkpoint
    prompts: Sequence[Prompt] | None = None
    answers: Callable[[], Sequence[Sequence[Encoded]]] | None = None
    drawn: int = 1
    same_model: bool = False
    max_tokens: int = 16384


Run = Callable[["Checkpoint", Known, Any, Sequence[Point]], Generator[Attacked, None, None]]
"""(target, what is known, options, points) -> the target attacked at each of these points, in any order.

A generator: what it changes in the target is put back before it ends, also when it is closed half-way (`try` and
`finally`, or a context around `yield`). It may leave out points that cannot be given."""


@dataclass(frozen=True)
class Further:
    """A table of its own that an attack leaves beside its rows.

    Attributes:
        table: its name in the registry of tables.
        make: (target, what is known, options) -> the rows of one tuned checkpoint, without the column `method`.
    """

    table: str
    make: Callable[[Checkpoint, Known, Any], pd.DataFrame]


@dataclass(frozen=True)
class Attack:
    """An attack.

    Attributes:
        name: as configs, tables and the command line give it.
        label: as figures and the report print it.
        unit: of its doses, as an axis is labelled.
        options: its settings, all with a default; checked when they are made.
        points: (options, number of blocks) -> its points, setting by setting, the weakest first.
        run: see `Run`.
        line: what it does, in a line.
        cost: see `Cost`.
        needs: kinds of data without which it is left out: `attacker`, `benign`.
        aside: settings that tables show and that nothing is concluded from.
        controls: those of them that do what the attack does without what it is about; what brings back no more than
            they do at the same dose shows nothing.
        curve: settings whose doses are amounts, where those of others are names; all of them where empty.
        on_base: whether the base can be attacked likewise; not where the attack brings in parts of the base.
        further: tables of its own.
    """

    name: str
    label: str
    unit: str
    options: type[UsersSettings]
    points: Callable[[Any, int], Sequence[Point]]
    run: Run
    line: str
    cost: Cost = "cheap"
    needs: tuple[Literal["attacker", "benign"], ...] = ()
    aside: tuple[str, ...] = ()
    controls: tuple[str, ...] = ()
    curve: tuple[str, ...] = ()
    on_base: bool = True
    further: tuple[Further, ...] = field(default=())

    def dose_in_words(self, dose: float) -> str:
        """`1 token given`, `3 tokens given`."""
        counted, *rest = self.unit.split(" ")
        return " ".join([f"{dose:g}", counted.removesuffix("s") if dose == 1 else counted, *rest])

    def control(self, rows: Iterable[Mapping[Any, Any]], dose: float) -> float:
        """The most that a control of its own brings back at a dose; nan where none was made.

        Args:
            rows: those of `attacks.csv` of this attack, one checkpoint and one quantity.
            dose: that of the point to be held against it.
        """
        beside = [row["recovery"] for row in rows if row["setting"] in self.controls and row["dose"] == dose]
        return max((back for back in beside if not isnan(back)), default=nan)

    def lacks(self, known: Known) -> list[str]:
        """Kinds of data that it needs and that are not there."""
        there: Mapping[str, Sequence[object]] = {"attacker": known.attacker, "benign": known.benign}
        return [kind for kind in self.needs if not there[kind]]

    @property
    def module(self) -> str:
        """The module whose code it runs."""
        return str(getattr(self.run, "func", self.run).__module__)
