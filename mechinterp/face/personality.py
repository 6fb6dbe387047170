"""What edits towards traits do to each, as a run that is opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel

from mechinterp.data.personality import Topic, read_personality
from mechinterp.data.showing import shown
from mechinterp.errors import InputError
from mechinterp.face.given import check_seed
from mechinterp.face.loading import CheckpointLike
from mechinterp.face.looked_up import TunedLike
from mechinterp.face.progress import watched
from mechinterp.face.run_tables import RunTables
from mechinterp.methods.editors import MakeEdit
from mechinterp.models.text.chat import ChatChoice
from mechinterp.report.traits_in_words import traits_in_words
from mechinterp.runs.candidate import Candidate
from mechinterp.runs.edits import Editing
from mechinterp.runs.personality import run_personality


@dataclass(frozen=True, eq=False, repr=False)
class TraitTables(RunTables):
    """What edits towards traits do to each.

    Attributes:
        run: the folder of it all.
    """

    @property
    def table(self) -> pd.DataFrame:
        """A row per trait that was edited towards and trait that was measured, with intervals over topics."""
        return self.run.table("traits")

    @property
    def topics(self) -> pd.DataFrame:
        """The same topic by topic."""
        return self.run.table("traits_topics")

    def __str__(self) -> str:
        return "\n".join(traits_in_words(self.table))

    def _repr_html_(self) -> str:
        return shown("traits", {}, self.table, note=str(self))


def trait_effects(
    base: CheckpointLike,
    edits: str | MakeEdit | Mapping[str, TunedLike],
    topics: Sequence[Topic] | str | Path,
    *,
    settings: BaseModel | Mapping[str, Any] | None = None,
    released: bool = False,
    out: str | Path | None = None,
    truncate: bool = False,
    seed: int = 0,
    dtype: str = "auto",
    device: str = "auto",
    chat: str | None = None,
    progress: bool | None = None,
) -> TraitTables:
    """What does an edit towards one trait do to it, to the other traits, and to another topic?

    Args:
        base: the unedited model: in memory, or a source that `mi.load` takes; left as it was.
        edits: trait -> a checkpoint or edit that was made towards it; or an editor (`rome`, `ft_m`, or a function, as
            `mi.edits_in_conflict` takes it), which edits the base towards each trait, topic by topic.
        topics: with opinions, or the file of them: PersonalityEdit's, or ConvSent.
        settings: of the editor.
        released: score as the released code, too.
        out: folder of the run; a temporary one, that goes with the result, if not given.
        truncate: cut prompts that exceed the context from the left instead of raising.
        seed: of intervals, and of the editor's contexts.
        dtype: of what is opened from folders, as `mi.load` takes it.
        device: likewise.
        chat: as `mi.compare` takes it.
        progress: whether bars are shown; None: in a notebook or on a terminal.

    Returns:
        `.table`, trait by trait, `.topics`; printed, a sentence per trait.

    Raises:
        InputError: for topics or checkpoints that are not there, or a name that is no trait.

    Example:
        >>> print(mi.trait_effects("BASE", "ft_m", "personality_test.json"))
    """
    check_seed(seed)
    if isinstance(topics, str | Path):
        topics = read_personality(topics)
    if not all(isinstance(topic, Topic) for topic in topics):
        raise InputError("topics is no list of mi.Topic; give what mi.read_personality reads, or a file's path")
    options: dict[str, Any] = {"dtype": dtype, "device": device}
    below = Candidate.of(base, name="base", **options)
    tuned: list[Candidate] = []
    editing = None
    if isinstance(edits, Mapping):
        tuned = [Candidate.of(each, name=str(trait), base=below, **options) for trait, each in edits.items()]
    elif isinstance(edits, str) or callable(edits):
        editing = Editing(edits, settings, seed=seed)
    else:
        raise InputError(f"`edits` is {edits!r:.60}; give an editor's name, or a checkpoint for each trait by its name")
    with watched(progress) as reporter:
        run = run_personality(
            below,
            tuned,
            topics,
            editing,
            out=None if out is None else Path(out),
            released=released,
            truncate=truncate,
            seed=seed,
            chat=None if chat is None else ChatChoice(chat),
            reporter=reporter,
        )
    return TraitTables(run)
