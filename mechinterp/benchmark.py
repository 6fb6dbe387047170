"""The benchmark: ways to detoxify, by their names, on the instances of a study; every answer is kept in its folder.

A way that edits instance by instance is evaluated as in the paper, each edit on its own instance's five prompts; a way
that makes one checkpoint, on the prompts of all of them. Edits and responses are stored under what they depend on, so
that tables share them, a killed run goes on, and nothing is generated twice.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from mechinterp.data.safeedit import SafeEditInstance
from mechinterp.defense import check_test_instances, defend, defend_edits
from mechinterp.divergence import next_token_divergence
from mechinterp.files import write_json
from mechinterp.judged import KINDS, Defense
from mechinterp.location import blocks_for
from mechinterp.measures.statistics import seeded_order
from mechinterp.methods.registry import describe, find_way
from mechinterp.methods.task import Task, Treatment
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import WeightDelta
from mechinterp.provenance import code_hash, digest
from mechinterp.refusals import RefusalDetector, refusal_detector
from mechinterp.side_effects import over_refusal
from mechinterp.study import Reporter, Silent, Study

TRAINED = ("sft", "dpo")
"""Ways whose checkpoint is one of the study's own."""


@dataclass(frozen=True)
class Benchmark:
    """Ways to detoxify the vanilla model of a study."""

    study: Study
    reporter: Reporter = field(default_factory=Silent)

    def prepare(self, ways: Sequence[str]) -> None:
        """Check the names, and make what the ways stand on: the model and its data, toxic layers, SFT and DPO.

        Raises:
            InputError: for an unknown way, before anything long; with the known ones.
        """
        for way in ways:
            find_way(way)
        self.study.run(self.reporter, only={"locate", *(way for way in ways if way in TRAINED)})
        check_test_instances(self.instances)

    @cached_property
    def base(self) -> Checkpoint:
        """The vanilla model."""
        return self.study.checkpoint("vanilla")

    @cached_property
    def instances(self) -> list[SafeEditInstance]:
        """The test instances that are edited and defended."""
        return self.study.edit_instances()

    @cached_property
    def blocks(self) -> dict[int, int]:
        """The toxic layer of every test instance."""
        config, located = self.study.config, self.study.table("located")
        return blocks_for(
            located, self.study.instances("test"), config.distance, reuse_first_layer=config.reuse_first_layer
        )

    @cached_property
    def knowledge(self) -> list[tuple[str, str]]:
        """Knowledge questions asked of every way."""
        every = self.study.knowledge
        return [every[i] for i in seeded_order(len(every), self.study.seed)[: self.study.config.knowledge_questions]]

    @cached_property
    def detector(self) -> RefusalDetector:
        """Tells refusals from answers."""
        refusals = [instance.safe_generation for instance in self.study.instances("train")]
        return refusal_detector(refusals, [one.answer for one in self.study.benign], seed=self.study.seed)

    def evaluate(self, way: str, *, label: str | None = None, settings: Mapping[str, Any] | None = None) -> Defense:
        """How a way defends the instances.

        Args:
            way: its name in the registry.
            label: in tables; by default the way's name.
            settings: of ways by their names, beside and before those of the study's config.
        """
        made = self.make(way, label=label, settings=settings)
        common: dict[str, Any] = {
            "method": made.label,
            "prefix": made.prefix,
            "suffix": made.suffix,
            "max_new_tokens": self.study.config.max_new_tokens,
            "knowledge": self.knowledge,
            "truncate": self.study.config.truncate,
            "responses": made.folder / "responses.jsonl",
            "progress": self.reporter.progress(f"{made.label}: answers"),
        }
        if made.edits:
            return defend_edits(self.base, made.edits, self.instances, self.study.judge, **common)
        with made.opened(self.base) as treated:
            return defend(treated, self.instances, self.study.judge, **common)

    def make(self, way: str, *, label: str | None = None, settings: Mapping[str, Any] | None = None) -> Made:
        """Apply a way, unless what it makes is there already.

        Args, Raises: as `evaluate`.
        """
        label = label or way
        described = next(one for one in describe() if one.name == way)
        config = self.study.config
        given = (
            {name: getattr(config, name) for name in ("dinm", *TRAINED)} | dict(config.methods) | dict(settings or {})
        )
        key = {
            "way": way,
            "settings": {name: _plain(value) for name, value in given.items()},
            "instances": [instance.id for instance in self.instances],
            "blocks": self.blocks,
            "base": self.base.fingerprint,
            "seed": self.study.seed,
            "truncate": config.truncate,
            "code": code_hash(),
        }
        folder = self.study.folder / "benchmark" / f"{label}-{digest(key)[:12]}"
        made = Made.read(folder, label)
        if made is not None:
            return made
        there = {int(path.parent.name): path.parent for path in folder.glob("edits/*/edit.json")}
        task = Task(
            instances=[i for i in self.instances if i.id not in there or not described.per_instance],
            blocks=self.blocks,
            training=self.study.instances("train"),
            settings=given,
            made={name: self.study.checkpoint(name) for name in TRAINED if name == way},
            seed=self.study.seed,
            note=self.reporter.note,
            progress=self.reporter.progress,
        )
        self.reporter.note(f"{label}: {described.line}")
        started = time.perf_counter()
        around: dict[str, Any] = {}
        for treatment in find_way(way)(self.base, task):
            around = {"prefix": treatment.prefix, "suffix": treatment.suffix}
            _keep(treatment, folder, per_instance=described.per_instance)
        if not around:  # all edits were there: only their company is missing
            around = json.loads((folder / "around.json").read_text(encoding="utf-8"))
        order = [instance.id for instance in self.instances]
        write_json(
            folder / "made.json",
            {**around, "order": order, "seconds": round(time.perf_counter() - started, 2), "key": key},
        )
        made = Made.read(folder, label)
        assert made is not None
        return made

    def ask(self, part: Made, instances: Sequence[SafeEditInstance], *, kinds: Sequence[str] = KINDS) -> Defense:
        """How one treated checkpoint answers the prompts of any instances, those it was not made for included.

        Args:
            part: see `Made.parts`.
            instances: test instances.
            kinds: which of their prompts.
        """
        key = digest([[instance.id for instance in instances], list(kinds)])[:8]
        with part.opened(self.base) as treated:
            return defend(
                treated,
                instances,
                self.study.judge,
                kinds=kinds,
                method=part.label,
                prefix=part.prefix,
                suffix=part.suffix,
                max_new_tokens=self.study.config.max_new_tokens,
                truncate=self.study.config.truncate,
                responses=part.answers / f"asked-{key}.jsonl",
            )

    def side_effects(self, made: Made, *, edits: int = 9) -> dict[str, float]:
        """What a way does to harmless prompts, asked as the way is evaluated.

        Args:
            edits: of a way that edits instance by instance, how many are measured; values are means over them.

        Returns:
            `over_refusal`; `jsd_last`: Jensen-Shannon divergence of the next-token distributions after the prompt from
            the base's after the same query, in bits. Empty without benign prompts.
        """
        prompts = [one.prompt for one in self.study.benign[: self.study.config.benign_prompts]]
        if not prompts:
            return {}
        found: list[dict[str, float]] = []
        around: dict[str, Any] = {"prefix": made.prefix, "suffix": made.suffix, "truncate": self.study.config.truncate}
        for part in made.parts(edits):
            with part.opened(self.base) as treated:
                refused = over_refusal(
                    treated, prompts, self.detector, max_new_tokens=self.study.config.max_new_tokens, **around
                )
            moved = next_token_divergence(self._base_opened, partial(part.opened, self.base), prompts, **around)
            found.append({"over_refusal": refused.rate.value, "jsd_last": float(moved.values.mean())})
        return {name: sum(one[name] for one in found) / len(found) for name in found[0]}

    def _base_opened(self) -> AbstractContextManager[Checkpoint]:
        return nullcontext(self.base)


@dataclass(frozen=True)
class Made:
    """What a way made, in its folder.

    Attributes:
        edits: id of the instance -> folder, of a way that edits instance by instance; in the order of the study's
            instances, which takes turns among the categories.
        prefix, suffix: text around every query.
        seconds: that making took, the last time.
    """

    folder: Path
    label: str
    edits: Mapping[int, Path]
    prefix: str | None
    suffix: str | None
    seconds: float

    @classmethod
    def read(cls, folder: Path, label: str) -> Made | None:
        """What is there, None if it is not complete."""
        try:
            labels = json.loads((folder / "made.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        every = {number: folder / "edits" / str(number) for number in labels["order"]}
        edits = {number: path for number, path in every.items() if path.is_dir()}
        return cls(folder, label, edits, labels["prefix"], labels["suffix"], labels["seconds"])

    @contextmanager
    def opened(self, base: Checkpoint) -> Iterator[Checkpoint]:
        """The treated checkpoint, for the time of the context; of a way that makes one."""
        if (self.folder / "edit").is_dir():
            with WeightDelta.load(self.folder / "edit").applied(base, name=self.label) as edited:
                yield edited
        elif (self.folder / "checkpoint").is_dir():
            yield Checkpoint.load(self.folder / "checkpoint", name=self.label, dtype="auto", device=str(base.device))
        else:
            yield base

    @property
    def answers(self) -> Path:
        """Folder of the answers of this one checkpoint."""
        return self.folder

    def parts(self, most: int | None = None) -> Iterator[Made]:
        """Itself, or its edits (the first ones), each as one that makes one checkpoint."""
        if not self.edits:
            yield self
            return
        for number in list(self.edits)[:most]:
            yield self.part(number)

    def part(self, instance: int) -> Made:
        """The edit of one instance."""
        return OneEdit(self.folder, self.label, {}, self.prefix, self.suffix, 0.0, self.edits[instance])


@dataclass(frozen=True)
class OneEdit(Made):
    """One edit of many."""

    edit: Path = Path()

    @property
    def answers(self) -> Path:
        """Not beside the edit: what is in its folder counts as the edit."""
        return self.folder / "asked" / self.edit.name

    @contextmanager
    def opened(self, base: Checkpoint) -> Iterator[Checkpoint]:
        """The edited checkpoint, for the time of the context."""
        with WeightDelta.load(self.edit).applied(base, name=self.label) as edited:
            yield edited


def _keep(treatment: Treatment, folder: Path, *, per_instance: bool) -> None:
    """Write what a way made of one instance, or of all."""
    if per_instance and treatment.delta is not None:
        if not (folder / "around.json").exists():
            write_json(folder / "around.json", {"prefix": treatment.prefix, "suffix": treatment.suffix})
        treatment.delta.save(folder / "edits" / str(treatment.instances[0].id))
    elif treatment.delta is not None:
        treatment.delta.save(folder / "edit")
    elif treatment.checkpoint is not None:
        treatment.checkpoint.save(folder / "checkpoint")


def _plain(settings: Any) -> Any:
    return settings.model_dump(mode="json") if hasattr(settings, "model_dump") else settings
