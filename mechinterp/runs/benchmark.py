"""The benchmark: ways to detoxify, by their names, on the instances of a study; every answer is kept in its folder.

A way that edits instance by instance is evaluated as in the paper, each edit on its own instance's five prompts; a way
that makes one checkpoint, on the prompts of all of them. What is made stands in a folder named after the way and a
digest of everything that it depends on, and answers in files named after what was asked: tables share both whatever
they call the way, nothing stale is used, and nothing is made or asked twice. A killed run goes on with the edits and
answers that it has; SFT and DPO are the study's own, a way that trains another checkpoint begins anew.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from pydantic import BaseModel

from mechinterp.answers.defense import check_test_instances, defend, defend_edits
from mechinterp.answers.divergence import next_token_divergence
from mechinterp.answers.judged import KINDS, Defense
from mechinterp.answers.refusals import RefusalDetector, refusal_detector
from mechinterp.answers.side_effects import over_refusal
from mechinterp.data.safeedit import SafeEditInstance
from mechinterp.data.storage.files import remove, write_json
from mechinterp.data.storage.hashing import hash_path
from mechinterp.data.storage.provenance import code_of, digest
from mechinterp.errors import InputError
from mechinterp.measures.intervals import Interval
from mechinterp.measures.statistics import bootstrap, wilson, wilson_of_shares
from mechinterp.methods.registry import find_method, settings_for
from mechinterp.methods.task import Task, Treatment
from mechinterp.models import processes
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import WeightDelta
from mechinterp.models.equality import equal_weights, notes_of_equal
from mechinterp.models.progress import Reporter, Silent
from mechinterp.models.text.tokenizer import tokenizer_fingerprint
from mechinterp.runs.stages import locked
from mechinterp.runs.study import Study
from mechinterp.runs.study.dependencies import methods_of

HARMLESS_EDITS = 9
"""Of a way that edits instance by instance, how many edits are asked harmless prompts."""


HARMLESS_BY = ("mechinterp.answers.divergence", "mechinterp.answers.side_effects")
"""The code that what is said of harmless prompts depends on."""


@dataclass(frozen=True)
class Made:
    """What a way made.

    Attributes:
        way, label: its name, and what it is called in tables.
        answers: folder of the answers.
        edits: id of the instance -> folder, of a way that edits instance by instance; in the order of the study's
            instances, which takes turns among the categories.
        edit, checkpoint: folder of the one edit or checkpoint, of any other way; of a way that changes nothing, none.
        prefix, suffix: text around every query.
        seconds: that making took; None if it was not all made at one time, or by the study before.
    """

    way: str
    label: str
    answers: Path
    edits: Mapping[int, Path]
    edit: Path | None
    checkpoint: Path | None
    prefix: str | None
    suffix: str | None
    seconds: float | None

    def parts(self, most: int | None = None) -> Iterator[Made]:
        """Itself, or its edits (the first ones), each as one that makes one checkpoint."""
        if not self.edits:
            yield self
            return
        for number in list(self.edits)[:most]:
            yield self.part(number)

    def part(self, instance: int) -> Made:
        """The edit of one instance."""
        answers = self.answers / "asked" / str(instance)  # not in the edit's own folder, which is the edit and no more
        return replace(self, answers=answers, edits={}, edit=self.edits[instance], seconds=None)


@dataclass(frozen=True)
class Benchmark:
    """Ways to detoxify the vanilla model of a study."""

    study: Study
    reporter: Reporter = field(default_factory=Silent)

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

    @cached_property
    def trained(self) -> tuple[str, ...]:
        """The ways whose checkpoint is one of the study's own."""
        return tuple(method.name for method in methods_of(self.study) if not method.per_instance)

    @cached_property
    def base(self) -> Checkpoint:
        """The vanilla model."""
        return self.study.checkpoint("vanilla")

    @cached_property
    def instances(self) -> list[SafeEditInstance]:
        """The test instances that are edited and defended."""
        return self.study.edit_instances()

    @cached_property
    def training(self) -> list[SafeEditInstance]:
        """What ways that train are given."""
        return self.study.instances("train")

    @cached_property
    def blocks(self) -> dict[int, int]:
        """The toxic layer of every test instance."""
        return self.study.blocks

    @cached_property
    def knowledge(self) -> list[tuple[str, str]]:
        """Knowledge questions asked of every way."""
        return self.study.asked_knowledge()

    @cached_property
    def harmless(self) -> list[str]:
        """Harmless prompts asked of every way; may be none."""
        return [one.prompt for one in self.study.benign[: self.study.config.benign_prompts]]

    @cached_property
    def detector(self) -> RefusalDetector:
        """Tells refusals from answers."""
        refusals = [instance.safe_generation for instance in self.training]
        benign = self.study.benign
        answers, asked = [one.answer for one in benign], [one.prompt for one in benign]
        return refusal_detector(refusals, answers, seed=self.study.seed, asked=asked)

    # -- making -------------------------------------------------------------------------------------------------

    def make(self, way: str, *, label: str | None = None, settings: Mapping[str, Any] | None = None) -> Made:
        """Apply a way, unless what it makes is there already.

        Args:
            way: its name in the registry.
            label: in tables; by default the way's name.
            settings: of ways by their names, before those of the study's config.

        Raises:
            InputError: for an unknown way, with the known ones; and as the way itself.
        """
        method, label = find_method(way), label or way
        given = self.settings(way, settings or {})
        key = self._key(way, {name: own.model_dump(mode="json") for name, own in given.items()})
        folder = self.study.folder / "benchmark" / f"{way}-{digest(key)[:12]}"
        made = self._read(way, label, folder)
        if made is not None:
            return made
        missing = [i for i in self.instances if not (_edit_of(folder, i) / "edit.json").is_file()]
        resumed = (folder / "around.json").is_file()
        whole = not missing if method.per_instance else any((folder / name).is_dir() for name in ("edit", "checkpoint"))
        self.reporter.note(f"{label}: {method.line}")
        started = time.perf_counter()
        around: dict[str, str | None] = {"prefix": None, "suffix": None}
        if resumed and whole:  # killed after the last of it: only the note of its being complete is missing
            around = json.loads((folder / "around.json").read_text(encoding="utf-8"))
        elif way not in self.trained:
            task = Task(
                instances=missing if method.per_instance else self.instances,
                blocks=self.blocks,
                training=self.training,
                settings=given,
                kept=folder,
                seed=self.study.seed,
                note=self.reporter.note,
                progress=self.reporter.progress,
            )
            resumed = resumed or (folder / "so_far").is_dir()
            for treatment in method.recipe.make(self.base, task):
                around = {"prefix": treatment.prefix, "suffix": treatment.suffix}
                _keep(treatment, folder, around, per_instance=method.per_instance)
        seconds = None if resumed or way in self.trained else round(time.perf_counter() - started, 2)
        order = [i.id for i in self.instances] if method.per_instance else []
        write_json(folder / "made.json", {**around, "order": order, "seconds": seconds, "key": key})
        remove(folder / "so_far")
        made = self._read(way, label, folder)
        assert made is not None
        return made

    def settings(self, way: str, before: Mapping[str, Any]) -> dict[str, BaseModel]:
        """The settings that a way may read, checked: its own, and those of the ways that it shares some with.

        Args:
            before: settings of ways by their names, before those of the study's config.

        Raises:
            InputError: for settings that are unknown or out of range, of whatever way.
        """
        everything = self.study.config.settings_of_methods | dict(before)
        given = {name: settings_for(name, own) for name, own in everything.items()}
        return {name: given[name] for name in find_method(way).reads if name in given}

    @cached_property
    def _common_key(self) -> dict[str, Any]:
        """What every way depends on."""
        return {
            "instances": digest([i.model_dump(mode="json") for i in self.instances]),
            "training": digest([i.model_dump(mode="json") for i in self.training]),
            "blocks": {str(i.id): self.blocks[i.id] for i in self.instances},
            "base": [self.base.fingerprint, tokenizer_fingerprint(self.base.tokenizer)],
            "seed": self.study.seed,
        }

    def _key(self, way: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        trained = hash_path(self._trained(way)) if way in self.trained else None
        code = code_of(find_method(way).recipe.module)
        return {**self._common_key, "way": way, "settings": dict(settings), "checkpoint": trained, "code": code}

    def _trained(self, way: str) -> Path:
        return self.study.folder / "checkpoints" / way

    def _read(self, way: str, label: str, folder: Path) -> Made | None:
        """What is there, None if it is not complete."""
        try:
            found = json.loads((folder / "made.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        edit, checkpoint = folder / "edit", self._trained(way) if way in self.trained else folder / "checkpoint"
        return Made(
            way,
            label,
            answers=folder,
            edits={number: folder / "edits" / str(number) for number in found["order"]},
            edit=edit if edit.is_dir() else None,
            checkpoint=checkpoint if checkpoint.is_dir() else None,
            **{name: found[name] for name in ("prefix", "suffix", "seconds")},
        )

    @contextmanager
    def opened(self, part: Made) -> Iterator[Checkpoint]:
        """A treated checkpoint (see `Made.parts`), for the time of the context; the base comes back as it was."""
        if part.edit is not None:
            with WeightDelta.load(part.edit).applied(self.base, name=part.label) as edited:
                yield edited
        elif part.checkpoint is not None:
            config = self.study.config
            trained = Checkpoint.load(
                part.checkpoint,
                name=part.label,
                dtype=config.dtype,
                device=config.device,
                device_map=config.device_map,
            )
            for note in notes_of_equal("base", [part.label], lambda *_: equal_weights(self.base, trained)):
                self.reporter.note(note)
            yield trained
        else:
            yield replace(self.base, name=part.label)

    # -- asking -------------------------------------------------------------------------------------------------

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
        instances: Sequence[SafeEditInstance],
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
        instances: Sequence[SafeEditInstance],
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

    # -- side effects -------------------------------------------------------------------------------------------

    def side_effects(self, made: Made, *, edits: int = HARMLESS_EDITS) -> pd.DataFrame:
        """What a way does to harmless prompts, asked as the way is evaluated.

        The prompts are the units: values of several edits are averaged for each prompt first.

        Args:
            edits: of a way that edits instance by instance, how many are measured.

        Returns:
            Tidy: quantity, value, low, high, n (prompts). `over_refusal`: Wilson's interval, of several edits
            `statistics.wilson_of_shares`; `jsd_last`: Jensen-Shannon divergence of the next-token distributions after
            the prompt from the base's after the same query, in bits, with its bootstrap. Empty without such prompts.
        """
        if not self.harmless:
            return pd.DataFrame(columns=["quantity", "value", "low", "high", "n"])
        found = [self._asked_harmless(part) for part in made.parts(edits)]
        moved = torch.tensor([one["jsd"] for one in found], dtype=torch.float64).mean(0)
        seed = self.study.seed
        estimates = {
            "over_refusal": _refusals([one["refused"] for one in found]),
            "jsd_last": (bootstrap(lambda weights: weights @ moved, len(moved), seed=seed), len(moved)),
        }
        return pd.DataFrame([{"quantity": name, **vars(rate), "n": n} for name, (rate, n) in estimates.items()])

    def _asked_harmless(self, part: Made) -> dict[str, list[Any]]:
        """For every harmless prompt: response, whether it is a refusal (None if empty), divergence from the base."""
        config, prompts = self.study.config, self.harmless
        detecting = [self.detector.name, [vars(one) for one in self.study.benign], self.study.seed]
        key = digest([prompts, detecting, config.max_new_tokens, config.truncate, code_of(*HARMLESS_BY)])[:12]
        path = part.answers / f"harmless-{key}.json"
        if path.is_file():
            return dict(json.loads(path.read_text(encoding="utf-8")))
        around: dict[str, Any] = {"prefix": part.prefix, "suffix": part.suffix, "truncate": config.truncate}
        with self.opened(part) as treated:
            refused = over_refusal(treated, prompts, self.detector, max_new_tokens=config.max_new_tokens, **around)
        moved = next_token_divergence(self._base_opened, partial(self.opened, part), prompts, **around)
        found = {"prompts": prompts, "responses": refused.responses, "refused": refused.refused}
        found |= {"jsd": moved.values.tolist()}
        write_json(path, found)
        return {name: list(values) for name, values in found.items()}

    def _base_opened(self) -> AbstractContextManager[Checkpoint]:
        return nullcontext(self.base)


def _refusals(refused: Sequence[Sequence[bool | None]]) -> tuple[Interval, int]:
    """Over-refusal of [edit][prompt], and the number of prompts; empty responses are left out."""
    prompts = [[one for one in own if one is not None] for own in zip(*refused, strict=True)]
    shares = [sum(own) / len(own) for own in prompts if own]
    if len(refused) == 1 or not shares:
        return wilson(round(sum(shares)), len(shares)), len(shares)
    return wilson_of_shares(sum(shares) / len(shares), len(shares)), len(shares)


def _edit_of(folder: Path, instance: SafeEditInstance) -> Path:
    return folder / "edits" / str(instance.id)


def _keep(treatment: Treatment, folder: Path, around: Mapping[str, str | None], *, per_instance: bool) -> None:
    """Write what a way made of one instance, or of all."""
    if not (folder / "around.json").exists():
        write_json(folder / "around.json", around)
    if treatment.delta is not None:
        treatment.delta.save(_edit_of(folder, treatment.instances[0]) if per_instance else folder / "edit")
    elif treatment.checkpoint is not None:
        treatment.checkpoint.save(folder / "checkpoint")
