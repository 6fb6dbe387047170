"""How deep a change goes: a tuned model's states in the base's place, against those of a model that never learnt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechinterp.audit.depth import DepthTables, answer_drops
from mechinterp.audit.readouts import ANSWER_TOKENS, ReadoutTexts
from mechinterp.data.pairs import AnyPair
from mechinterp.data.showing import one_line, shown
from mechinterp.errors import InputError
from mechinterp.face.loading import CheckpointLike, instances_of
from mechinterp.face.progress import watched
from mechinterp.measures.intervals import Interval, with_ends
from mechinterp.models.deltas import WeightDelta
from mechinterp.models.text.chat import ChatChoice
from mechinterp.runs.candidate import Candidate
from mechinterp.runs.one_format import in_one_format

if TYPE_CHECKING:
    import pandas as pd

    from mechinterp.report.picture import Picture

ALONE = "tuned"
"""The name in the tables of a checkpoint that was given without one."""


@dataclass(frozen=True, eq=False)
class Depths:
    """How deep the changes of some checkpoints go.

    Attributes:
        scores: a row for each checkpoint: its score with the interval, or why it has none.
        table: a row for each checkpoint and block: what its state and that of the model that never learnt take from the
            base's answers, and the one as a share of the other.
    """

    scores: pd.DataFrame
    table: pd.DataFrame

    @property
    def score(self) -> Interval:
        """Of the one checkpoint: 0 untouched, 1 as if never learnt; NaN where it is undefined, `reason` says why.

        Raises:
            InputError: if there are several.
        """
        return Interval(*(float(self._alone[name]) for name in with_ends("score")))

    @property
    def reason(self) -> str:
        """Why the one checkpoint has no score; empty where it has one."""
        return str(self._alone["reason"])

    @property
    def _alone(self) -> Mapping[str, Any]:
        if len(self.scores) != 1:
            raise InputError(f"there are {len(self.scores)} checkpoints; the scores of all are in `scores`")
        return dict(self.scores.iloc[0])

    def plot(self) -> Picture:
        """Block by block, a line for each checkpoint.

        Raises:
            InputError: if no prompt was read.
        """
        from mechinterp.report.picture import Picture
        from mechinterp.report.plates import draw_figure

        return Picture("depth", draw_figure("depth", {"depth_blocks": self.table}))

    def __repr__(self) -> str:
        rows = self.scores.to_dict("records")
        return one_line(self, *(f"{row['method']} {row['score']:.2f}" for row in rows))

    def _repr_html_(self) -> str:
        return shown("depth of the change", {}, self.scores, self.table)


def depth(
    base: CheckpointLike,
    tuned: CheckpointLike | WeightDelta | Mapping[str, CheckpointLike | WeightDelta],
    never: CheckpointLike | WeightDelta,
    pairs: Sequence[AnyPair] | str | Path,
    *,
    answers: Sequence[str] | None = None,
    tokens: int = ANSWER_TOKENS,
    truncate: bool = False,
    seed: int = 0,
    dtype: str = "auto",
    device: str = "auto",
    chat: str | None = None,
    progress: bool | None = None,
) -> Depths:
    """How far a tuned model's states went from the base's towards those of a model that never learnt the behaviour.

    The base reads each prompt with an unsafe answer and goes on, after one block at a time, from the other model's
    states at the positions that predict the answer: what that takes from the answer is measured for both.

    Args:
        base: in memory, or a source that `mi.load` takes; with one of the others it is in memory together.
        tuned: a checkpoint or an edit, or several by name.
        never: a model of the same shape that never learnt the behaviour: a twin taught without it, or what the base was
            before. Another seed's, given as a tuned one, is the null.
        pairs: prompts with unsafe answers, or the file of them: best those that the base answers unsafely.
        answers: other unsafe answers, one per pair: the base's own. Those of the pairs if not given.
        tokens: of each answer that are read.
        truncate: cut prompts that exceed the context from the left instead of raising.
        seed: of the bootstrap over prompts.
        dtype: of what is opened from folders, as `mi.load` takes it.
        device: likewise.
        chat: the one format that all are read in, as `mi.load` takes it.
        progress: whether bars are shown; None: in a notebook or on a terminal.

    Returns:
        The depths: `.score` of one checkpoint, `.scores` of several, `.table` block by block, `.plot()`.

    Raises:
        InputError: for checkpoints that cannot be compared, or that are not there.

    Example:
        >>> mi.depth("BASE", "runs/dpo", "runs/never", "SafeEdit_test.json").score
    """
    named: Mapping[str, CheckpointLike | WeightDelta] = tuned if isinstance(tuned, Mapping) else {ALONE: tuned}
    if not named or "never" in named:
        said = "`never` is the name of the model that never learnt" if named else "there are no tuned checkpoints"
        raise InputError(f"{said}; give one checkpoint, or several by other names")
    with watched(progress) as reporter:
        below = Candidate.of(base, name="base", dtype=dtype, device=device)
        others = [
            Candidate.of(each, name=name, base=below, dtype=dtype, device=device)
            for name, each in {**named, "never": never}.items()
        ]
        below, others = in_one_format(below, others, None if chat is None else ChatChoice(chat))
        opened = below.open()
        texts = ReadoutTexts.of(opened, instances_of(pairs), unsafe=answers, tokens=tokens, truncate=truncate)
        drops = {
            other.name: answer_drops(opened, other.open(), texts, progress=reporter.progress(f"depth: {other.name}"))
            for other in others
        }
    reference = drops.pop("never")
    found = DepthTables.of(drops, reference, seed=seed)
    return Depths(found.depth, found.depth_blocks)
