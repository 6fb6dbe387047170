"""How deep a change goes: a tuned model's states in the base's place, against those of a model that never learnt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechinterp.answers.behaviour import UNSAFE, Behaviour
from mechinterp.audit.depth import DepthTables, Drops, answer_drops
from mechinterp.audit.questions import questions_of
from mechinterp.audit.readouts import ANSWER_TOKENS, ReadoutTexts
from mechinterp.data.counting import many
from mechinterp.data.showing import one_line, shown
from mechinterp.data.storage.kept_tables import keep_tables, open_tables
from mechinterp.errors import InputError
from mechinterp.face.loading import CheckpointLike
from mechinterp.face.looked_up import Opening, Several, TunedLike, looked_up
from mechinterp.measures.intervals import Interval, with_ends
from mechinterp.runs.one_format import in_one_format

if TYPE_CHECKING:
    import pandas as pd

    from mechinterp.report.picture import Picture


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
            raise InputError(f"there are {many(len(self.scores), 'checkpoint')}; the scores of all are in `scores`")
        return dict(self.scores.iloc[0])

    def save(self, folder: str | Path) -> Path:
        """Keep the tables in a folder, whole or not at all.

        Raises:
            InputError: if the folder cannot be written, or holds what this tool did not write.
        """
        return keep_tables(folder, "depths", {"scores": self.scores, "table": self.table}, {})

    @classmethod
    def load(cls, folder: str | Path) -> Depths:
        """Open what `save` kept.

        Raises:
            InputError: if it is not there, damaged, or of another kind.
        """
        tables, _ = open_tables(folder, "depths")
        reason = tables["scores"]["reason"].astype(object)  # of no reasons at all a column without a value is read
        return cls(tables["scores"].assign(reason=reason.where(reason.notna(), "")), tables["table"])

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
    tuned: Several,
    never: TunedLike,
    pairs: Sequence[Any] | str | Path,
    *,
    behaviour: Behaviour | str = UNSAFE,
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
        pairs: prompts with unsafe answers, or the file of them: best those that the base answers unsafely. Of another
            behaviour its data.
        behaviour: as `mi.attack` takes it.
        answers: other unsafe answers, one per pair: the base's own. Those of the pairs if not given.
        tokens: of each answer that are read.
        truncate: cut prompts that exceed the context from the left instead of raising.
        seed: of the bootstrap over questions.
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
    opening = Opening(seed=seed, dtype=dtype, device=device, chat=chat, progress=progress)
    with looked_up(base, tuned, pairs, opening, behaviour=behaviour, never=never) as work:
        if work.never is None:
            raise InputError("depth is measured against a model that never learnt the behaviour; give one (`never`)")
        below, others = in_one_format(work.base, [*work.tuned, work.never], work.chat)
        opened = below.open()
        texts = ReadoutTexts.of(opened, work.instances, unsafe=answers, tokens=tokens, truncate=truncate)
        drops: dict[str, Drops] = {}
        for other in others:
            progress_of = work.reporter.progress(f"depth: {other.name}")
            drops[other.name] = answer_drops(opened, other.open(), texts, progress=progress_of)
    reference = drops.pop("never")
    found = DepthTables.of(drops, reference, questions_of(work.instances), seed=seed)
    return Depths(found.depth, found.depth_blocks)
