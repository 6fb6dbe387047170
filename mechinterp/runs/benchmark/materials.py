"""What every way to detoxify is given, and asked: all of it a study's."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mechinterp.answers.refusals import RefusalDetector, refusal_detector
from mechinterp.data.pairs import AnyPair
from mechinterp.data.storage.provenance import digest
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.progress import Reporter, Silent
from mechinterp.runs.study import Study
from mechinterp.runs.study.made import methods_of


@dataclass(frozen=True)
class Materials:
    """The vanilla model of a study, its instances, toxic layers, questions and harmless prompts, read when needed."""

    study: Study
    reporter: Reporter = field(default_factory=Silent)

    @cached_property
    def trained(self) -> tuple[str, ...]:
        """The ways whose checkpoint is one of the study's own."""
        return tuple(method.name for method in methods_of(self.study) if not method.per_instance)

    @cached_property
    def base(self) -> Checkpoint:
        """The vanilla model."""
        return self.study.checkpoint("vanilla")

    @cached_property
    def instances(self) -> list[AnyPair]:
        """The test instances that are edited and defended."""
        return self.study.edit_instances()

    @cached_property
    def training(self) -> list[AnyPair]:
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
        refusals = [instance.safe for instance in self.training]
        benign = self.study.benign
        answers, asked = [one.answer for one in benign], [one.prompt for one in benign]
        return refusal_detector(refusals, answers, seed=self.study.seed, asked=asked)

    @cached_property
    def key(self) -> dict[str, Any]:
        """What everything that is made of it depends on."""
        return {
            "instances": digest([i.model_dump(mode="json") for i in self.instances]),
            "training": digest([i.model_dump(mode="json") for i in self.training]),
            "blocks": {str(i.id): self.blocks[i.id] for i in self.instances},
            "base": [self.base.fingerprint, self.base.tokenizer_fingerprint],
            "seed": self.study.seed,
        }
