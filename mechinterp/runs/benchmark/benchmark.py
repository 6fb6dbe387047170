"""The benchmark: ways to detoxify, by their names, on the instances of a study; every answer is kept in its folder.

A way that edits instance by instance is evaluated as in the paper, each edit on its own instance's five prompts; a way
that makes one checkpoint, on the prompts of all of them. What is made stands in a folder named after the way and a
digest of everything that it depends on, and answers in files named after what was asked: tables share both whatever
they call the way, nothing stale is used, and nothing is made or asked twice. A killed run goes on with the edits and
answers that it has; SFT and DPO are the study's own, a way that trains another checkpoint begins anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from pydantic import BaseModel

from mechinterp.answers.defense import check_test_instances, defend, defend_edits
from mechinterp.answers.judged import Defense
from mechinterp.answers.judged_response import KINDS
from mechinterp.data.pairs import AnyPair
from mechinterp.data.storage.provenance import digest
from mechinterp.errors import InputError
from mechinterp.methods.registry import find_method
from mechinterp.models import processes
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.runs.benchmark.harmless import HARMLESS_EDITS, side_effects
from mechinterp.runs.benchmark.made import Made
from mechinterp.runs.benchmark.making import make, settings_of
from mechinterp.runs.benchmark.materials import Materials
from mechinterp.runs.benchmark.opening import opened
from mechinterp.runs.stages import locked


@dataclass(frozen=True)
class Benchmark(Materials):
    """Ways to detoxify the vanilla model of a study."""

    @contextmanager
    def prepared(self, ways: Sequence[str]) -> Iterator[None]:
        """Make what the ways stand on (model and data, toxic layers, SFT and DPO), and hold the run folder meanwhile.

        Raises:
            InputError: for an unknown way, with the known ones, or several processes; and if another run is working in
                the folder. All before anything long.
        """
        if processes.launched():
            raise InputError("the benchmark runs as one process: start it without torchrun or accelerate launch")
        for way in ways:
            find_method(way)
        with locked(self.study.folder):
            self.study.run(self.reporter, only={"locate", *(way for way in ways if way in self.trained)}, held=True)
            check_test_instances(self.instances)
            yield

    def make(self, way: str, *, label: str | None = None, settings: Mapping[str, Any] | None = None) -> Made:
        """Apply a way, unless what it makes is there already; see `making.make`."""
        return make(self, way, label=label, settings=settings)

    def settings(self, way: str, before: Mapping[str, Any]) -> dict[str, BaseModel]:
        """The settings that a way may read, checked; see `making.settings_of`."""
        return settings_of(self, way, before)

    def opened(self, part: Made) -> AbstractContextManager[Checkpoint]:
        """A treated checkpoint (see `Made.parts`), for the time of the context; the base comes back as it was."""
        return opened(self, part)

    def side_effects(self, made: Made, *, edits: int = HARMLESS_EDITS) -> pd.DataFrame:
        """What a way does to harmless prompts; see `harmless.side_effects`."""
        return side_effects(self, made, edits=edits)

    def evaluate(self, way: str, *, label: str | None = None, settings: Mapping[str, Any] | None = None) -> Defense:
        """How a way defends the instances, and what it knows.

        Args, Raises: as `make`.
        """
        made = self.make(way, label=label, settings=settings)
        if not made.edits:
            return self.ask(made, self.instances)
        asking = self._asking(made, self.instances, KINDS, self.knowledge)
        found = defend_edits(self.base, made.edits, self.instances, self.study.judge, **asking)
        return replace(found, method=made.label)

    def ask(
        self,
        part: Made,
        instances: Sequence[AnyPair],
        *,
        kinds: Sequence[str] = KINDS,
        knowledge: bool = True,
    ) -> Defense:
        """How one treated checkpoint answers the prompts of any instances, those it was not made for included.

        Args:
            part: see `Made.parts`.
            instances: test instances.
            kinds: which of their prompts.
            knowledge: ask the knowledge questions, too.
        """
        asking = self._asking(part, instances, kinds, self.knowledge if knowledge else [])
        with self.opened(part) as treated:
            found = defend(treated, instances, self.study.judge, kinds=kinds, **asking)
        return replace(found, method=part.label)

    def _asking(
        self,
        part: Made,
        instances: Sequence[AnyPair],
        kinds: Sequence[str],
        knowledge: Sequence[tuple[str, str]],
    ) -> dict[str, Any]:
        """How to ask, and where the answers stand; a label is no part of them."""
        config = self.study.config
        asking = {
            "method": part.way,
            "prefix": part.prefix,
            "suffix": part.suffix,
            "max_new_tokens": config.max_new_tokens,
            "truncate": config.truncate,
            "knowledge": knowledge,
        }
        key = digest([asking, list(kinds), [i.model_dump(mode="json") for i in instances]])[:12]
        return {
            **asking,
            "responses": part.answers / f"responses-{key}.jsonl",
            "progress": self.reporter.progress(f"{part.label}: answers"),
        }
