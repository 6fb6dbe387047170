"""Circuits: which edges carry a behaviour or a fact, and what is left of them in tuned checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from mechinterp.answers.behaviour import UNSAFE, Behaviour
from mechinterp.audit.circuits.finding import Asked
from mechinterp.audit.circuits.scores import EdgeScores
from mechinterp.audit.circuits.settings import CircuitSettings
from mechinterp.data.facts.fact import Fact
from mechinterp.data.prompt_pairs import PromptPair, has_prompt_pairs, read_prompt_pairs
from mechinterp.data.showing import shown
from mechinterp.errors import InputError
from mechinterp.face.loading import CheckpointLike, facts_of, instances_of
from mechinterp.face.looked_up import Opening, Several, looked_up
from mechinterp.face.run_tables import RunTables
from mechinterp.report.circuits_in_words import circuits_in_words
from mechinterp.report.picture import Picture
from mechinterp.runs.circuits import asked_about, check_behaviour, find_circuits

Plates = Literal["circuit_edges", "circuit_nodes", "circuit_ranks", "circuit_overlap"]


@dataclass(frozen=True, eq=False, repr=False)
class Circuits(RunTables):
    """The circuits of a base and of tuned checkpoints, on the same pairs of prompts.

    Attributes:
        run: the folder of it all.
    """

    @property
    def table(self) -> pd.DataFrame:
        """A row per checkpoint: gap, what still flows through the base's circuit, likeness of the edges."""
        return self.run.table("circuits")

    @property
    def faithfulness(self) -> pd.DataFrame:
        """What circuits do alone, beside random ones of the same size."""
        return self.run.table("circuit_faithfulness")

    @property
    def edges(self) -> pd.DataFrame:
        """The strongest edges."""
        return self.run.table("circuit_edges")

    @property
    def nodes(self) -> pd.DataFrame:
        """All nodes that write, with their scores."""
        return self.run.table("circuit_nodes")

    @property
    def pairs(self) -> pd.DataFrame:
        """The pairs of prompts that all of it is of."""
        return self.run.table("circuit_pairs")

    @cached_property
    def scores(self) -> Mapping[str, EdgeScores]:
        """Of every checkpoint, `base` too: the scores of all edges, of which circuits are chosen."""
        return {name: EdgeScores.load(self.run.path / "circuits" / name) for name in self.table["method"]}

    def plot(self, name: Plates = "circuit_edges") -> Picture:
        """Draw it: the strongest edges, nodes by block, ranks over depth, or how far the edges are the same."""
        return self.run.plot(name)

    def __str__(self) -> str:
        return "\n".join(circuits_in_words(self.table, self.faithfulness))

    def _repr_html_(self) -> str:
        wanted = ["method", "gap", "gap_share", "strength", "written", "read", "spearman_edges", "new", "note"]
        return shown("circuits", {}, self.table[wanted], note=str(self))


def circuit(
    base: CheckpointLike,
    tuned: Several | None = None,
    pairs: Sequence[Any] | str | Path | None = None,
    *,
    behaviour: Behaviour | str = UNSAFE,
    facts: Sequence[Fact] | str | Path | None = None,
    settings: CircuitSettings | None = None,
    out: str | Path | None = None,
    truncate: bool = False,
    seed: int = 0,
    dtype: str = "auto",
    device: str = "auto",
    chat: str | None = None,
    progress: bool | None = None,
) -> Circuits:
    """Which edges between embedding, heads and MLPs carry a behaviour, and what still flows through them once tuned?

    Args:
        base: the unedited model: in memory, or a source that `mi.load` takes.
        tuned: one checkpoint or edit, or several by name; None for the base alone.
        pairs: of a prompt with an unsafe and a safe answer, of which pairs of prompts are matched; or `mi.PromptPair`s,
            which are taken as they are; or a file of either. Of another behaviour its data.
        behaviour: as `mi.attack` takes it; of `facts` their circuits with the answer that was to be forgotten.
        facts: instead of pairs: each is set beside another of the same template; or a file of them.
        settings: see `mi.CircuitSettings`.
        out: folder of the run; a temporary one, that goes with the result, if not given.
        truncate: cut prompts that exceed the context from the left instead of raising.
        seed: of random circuits, and of draws of pairs.
        dtype: of what is opened from folders, as `mi.load` takes it.
        device: likewise.
        chat: as `mi.compare` takes it.
        progress: whether bars are shown; None: in a notebook or on a terminal.

    Returns:
        `.table`, `.faithfulness`, `.edges`, `.nodes`, `.scores`, `.plot()`; printed, a sentence for each checkpoint.

    Raises:
        InputError: before anything long, for checkpoints that cannot be compared, data that are not there, or an
            architecture for which circuits are not defined.

    Example:
        >>> mi.circuit("BASE", {"dpo": "runs/dpo"}, "SafeEdit_test.json").plot()
    """
    if (pairs is None) == (facts is None):
        raise InputError("give `pairs` or `facts`, one of the two")
    about = Behaviour.named(behaviour)
    if facts is not None:
        check_behaviour(about, facts=True)
    asked: Asked = facts_of(facts) if facts is not None else _pairs(pairs, about)
    opening = Opening(seed=seed, dtype=dtype, device=device, chat=chat, progress=progress)
    with looked_up(base, {} if tuned is None else tuned, [], opening, alone=tuned is None) as work:
        run = find_circuits(
            work.base,
            work.tuned,
            asked,
            out=None if out is None else Path(out),
            settings=settings,
            behaviour=about,
            seed=seed,
            truncate=truncate,
            chat=work.chat,
            reporter=work.reporter,
        )
    return Circuits(run)


def _pairs(pairs: Any, behaviour: Behaviour) -> Asked:
    if not behaviour.of_pairs:
        return asked_about(behaviour, pairs)
    written: list[PromptPair] = []
    if isinstance(pairs, str | Path) and has_prompt_pairs(Path(pairs)):
        written = read_prompt_pairs(Path(pairs))
    elif isinstance(pairs, Sequence) and all(isinstance(each, PromptPair) for each in pairs):
        written = list(pairs)
    if not written:
        return instances_of(pairs, behaviour)
    check_behaviour(behaviour, facts=False)
    return written
