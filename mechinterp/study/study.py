"""The study: from nothing, or from a user's model and files, to the tables, figures and report of the mechanism.

    organism   the corpus and the vanilla model (or the user's data, copied beside the results), and the judge
    sft, dpo   fine-tuned checkpoints; DPO starts from SFT, as in the paper
    probe      the toxic probe of the vanilla model
    locate     the toxic layer of every test instance
    dinm       an edit per chosen test instance; the first one at the most frequent toxic layer stands for `dinm`
    record     activations and read-outs of every checkpoint, and the check of the directions on the vanilla model
    compare    the mechanism, decomposition, verdict and validity tables
    defend     defense success of every checkpoint on the edited instances, each edit on its own
    relapse    parts of the vanilla model put back into every checkpoint: does the unsafe behaviour return?
    report     figures and report.html

Everything is read back from the run folder, so that a run that was killed goes on where it was.
"""

from __future__ import annotations

import gc
import json
import platform
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from mechinterp import comparison
from mechinterp.calibration.table import CERTIFICATE
from mechinterp.config import METHODS, StudyConfig
from mechinterp.data.benign import BenignPrompt, read_benign
from mechinterp.data.comments import Comment, read_comments
from mechinterp.data.safeedit import SafeEditInstance, read_safeedit
from mechinterp.errors import InputError
from mechinterp.evaluation.judges import ClassifierJudge, EmbeddedJudge, Judge
from mechinterp.files import write_json
from mechinterp.location import blocks_for, toxic_block
from mechinterp.measures.probe import ToxicProbe
from mechinterp.measures.statistics import seeded_order
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import WeightDelta
from mechinterp.provenance import code_hash, versions
from mechinterp.reporting import Reporter, Silent
from mechinterp.stages import Runner, Stage, locked
from mechinterp.study import making, measuring

MAKERS: Mapping[str, Callable[[Study, Reporter], None]] = {
    "organism": making.make_organism,
    "sft": making.make_sft,
    "dpo": making.make_dpo,
    "probe": making.make_probe,
    "locate": making.make_locate,
    "dinm": making.make_dinm,
    "record": measuring.make_record,
    "compare": measuring.make_compare,
    "defend": measuring.make_defend,
    "relapse": measuring.make_relapse,
    "report": measuring.make_report,
}
"""What each stage runs."""


@dataclass(frozen=True)
class Study:
    """A config, a seed and the folder that holds everything made from them."""

    config: StudyConfig
    seed: int
    folder: Path

    @classmethod
    def open(cls, folder: str | Path) -> Study:
        """Open a finished or half-finished run.

        Raises:
            InputError: if the folder holds no run.
        """
        folder = Path(folder)
        try:
            manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            return cls(StudyConfig.model_validate(manifest["config"]), manifest["seed"], folder)
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{folder}: not the folder of a run, there is no readable manifest.json in it") from error

    # -- what the stages leave, typed ---------------------------------------------------------------------------

    def instances(self, split: str) -> list[SafeEditInstance]:
        """The instances of a split: `train`, `validation` or `test`."""
        return read_safeedit(self.folder / "data" / f"{split}.json")

    @cached_property
    def comments(self) -> list[Comment]:
        """The labelled comments of the probe."""
        return read_comments(self.folder / "data" / "comments.csv")

    @cached_property
    def knowledge(self) -> list[tuple[str, str]]:
        """Knowledge questions in phrasings never seen in training, with the word that answers each; may be empty."""
        return [tuple(pair) for pair in json.loads((self.folder / "data" / "knowledge.json").read_text())]

    @cached_property
    def benign(self) -> list[BenignPrompt]:
        """Harmless prompts never seen in training, some with a good answer; may be empty."""
        path = self.folder / "data" / "benign.jsonl"
        return read_benign(path) if path.stat().st_size else []

    @cached_property
    def judge(self) -> Judge:
        """The judge of responses."""
        if self.config.judge is not None:
            return ClassifierJudge.load(self.config.judge, device=self.config.device)
        rows = json.loads((self.folder / "data" / "responses.json").read_text())
        return EmbeddedJudge.fit([text for text, _ in rows], [safe for _, safe in rows], seed=self.seed)

    @cached_property
    def probe(self) -> ToxicProbe:
        """The toxic probe of the vanilla model."""
        return ToxicProbe.load(self.folder / "probe.safetensors")

    @cached_property
    def block(self) -> int:
        """The toxic layer of most test instances, or of the first one where it is used for all."""
        located = self.table("located")
        first = int(located["instance"].iloc[0]) if self.config.reuse_first_layer else None
        return toxic_block(located, self.config.distance, first)

    @property
    def blocks(self) -> dict[int, int]:
        """The toxic layer of every test instance, by its id."""
        located, config = self.table("located"), self.config
        return blocks_for(located, self.instances("test"), config.distance, reuse_first_layer=config.reuse_first_layer)

    def asked_knowledge(self) -> list[tuple[str, str]]:
        """The knowledge questions that are asked of every evaluated checkpoint: a seeded choice."""
        order = seeded_order(len(self.knowledge), self.seed)[: self.config.knowledge_questions]
        return [self.knowledge[i] for i in order]

    def table(self, name: str) -> pd.DataFrame:
        """A table of the run."""
        return pd.read_csv(self.folder / "tables" / f"{name}.csv")

    def checkpoint(self, name: str) -> Checkpoint:
        """`vanilla`, `sft` or `dpo`, loaded."""
        own = self.config.model if name == "vanilla" else None
        return Checkpoint.load(
            own or self.folder / "checkpoints" / name,
            name=name,
            dtype=self.config.dtype,
            device=self.config.device,
            device_map=self.config.device_map,
        )

    def edits(self) -> Iterator[WeightDelta]:
        """The edits, one at a time, the one that stands for `dinm` first."""
        for number in json.loads((self.folder / "edits" / "order.json").read_text()):
            yield WeightDelta.load(self.folder / "edits" / str(number))

    @contextmanager
    def opened(self, name: str) -> Iterator[Checkpoint]:
        """Any checkpoint of the study, `dinm` included, for the time of the context."""
        if name == "dinm":
            with next(self.edits()).applied(self.checkpoint("vanilla"), name="dinm") as edited:
                yield edited
        else:
            with nullcontext(self.checkpoint(name)) as checkpoint:
                yield checkpoint
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def edit_instances(self) -> list[SafeEditInstance]:
        """The test instances that are edited and evaluated: a seeded choice, spread evenly over the categories."""
        instances = self.instances("test")
        by_category: dict[str, list[SafeEditInstance]] = {}
        for i in seeded_order(len(instances), self.seed):
            by_category.setdefault(instances[i].category, []).append(instances[i])
        rounds = max(len(chosen) for chosen in by_category.values())
        dealt = [chosen[k] for k in range(rounds) for chosen in by_category.values() if k < len(chosen)]
        return dealt[: self.config.edit_instances]

    # -- running ------------------------------------------------------------------------------------------------

    def run(
        self,
        reporter: Reporter | None = None,
        *,
        until: str | None = None,
        only: Collection[str] | None = None,
        held: bool = False,
    ) -> Path:
        """Bring stages up to date; returns the report's path.

        Args:
            until: the last stage to run.
            only: run these, and what they need, instead of all.
            held: the caller holds the run folder already (`stages.locked`), for longer than this takes.
        """
        reporter = reporter or Silent()
        with nullcontext() if held else locked(self.folder):
            runner = Runner(self.folder, note=reporter.note)
            stages = self.stages(reporter)
            wanted = {stage.name for stage in stages} if only is None else set(only)
            for stage in reversed(stages):  # a stage comes after all that it needs
                if stage.name in wanted:
                    wanted |= set(stage.needs)
            for stage in stages:
                if stage.name not in wanted:
                    continue
                runner.run(stage)
                for cached in _CACHED:  # a stage may have replaced it
                    self.__dict__.pop(cached, None)
                self._write_manifest()
                if stage.name == until:
                    break
        return self.folder / "report.html"

    def stages(self, reporter: Reporter) -> list[Stage]:
        """The stages in their order."""
        config, data = self.config, self.config.data
        common = {"seed": self.seed, "versions": versions(), "code": code_hash()}
        loading = [config.model, config.dtype, config.device, config.device_map, config.truncate]

        def stage(name: str, *, makes: list[str], needs: str = "", settings: Any = None, **more: Any) -> Stage:
            run = partial(MAKERS[name], self, reporter)
            return Stage(name, run, makes, needs=needs.split(), settings={**common, "own": settings}, **more)

        def dump(model: Any) -> Any:
            return model.model_dump(mode="json")

        files = [data.train, data.validation, data.test, data.comments] if data else []
        files += [path for path in (data.knowledge, data.benign) if path is not None] if data else []
        own_model = [Path(config.model)] if config.model is not None and Path(config.model).exists() else []
        own_judge = [Path(config.judge)] if config.judge is not None and Path(config.judge).exists() else []
        names = ["train.json", "validation.json", "test.json", "comments.csv"]
        names += ["knowledge.json", "benign.jsonl", "responses.json"]
        return [
            stage(
                "organism",
                makes=[
                    *(f"data/{name}" for name in names),
                    *(["checkpoints/vanilla"] if config.model is None else []),
                    "tables/judge.csv",
                    "tables/organism.csv",
                ],
                settings=[
                    *[loading, dump(config.corpus), dump(config.organism), data and dump(data)],
                    *[config.judge, config.max_new_tokens],
                ],
                reads=[*files, *own_model, *own_judge],
            ),
            stage(
                "sft",
                makes=["checkpoints/sft", "tables/training_sft.csv"],
                needs="organism",
                settings=[loading, dump(config.sft)],
            ),
            stage(
                "dpo",
                makes=["checkpoints/dpo", "tables/training_dpo.csv"],
                needs="sft organism",
                settings=[loading, dump(config.dpo)],
            ),
            stage(
                "probe",
                makes=["probe.safetensors", "tables/probe.csv", "tables/probe_roc.csv"],
                needs="organism",
                settings=[loading, config.final_norm],
            ),
            stage(
                "locate",
                makes=["tables/toxic_layer.csv", "tables/located.csv"],
                needs="organism",
                settings=[loading],
            ),
            stage(
                "dinm",
                makes=["edits"],
                needs="organism locate",
                settings=[loading, dump(config.dinm), config.distance, config.reuse_first_layer, config.edit_instances],
            ),
            stage(
                "record",
                makes=["evidence"],
                needs="organism sft dpo probe locate dinm",
                settings=[loading, dump(config.comparison), config.judge, config.distance, config.reuse_first_layer],
                reads=own_judge,
            ),
            stage(
                "compare",
                makes=[f"tables/{name}.csv" for name in (*comparison.TABLES, "edits")],
                may_make=[f"tables/{name}.csv" for name in comparison.OPTIONAL_TABLES],
                needs="record dinm probe",
                settings=[loading, config.comparison.top_neurons],
            ),
            stage(
                "defend",
                makes=["tables/defense.csv", "responses"],
                needs="organism sft dpo dinm",
                settings=[loading, config.max_new_tokens, config.knowledge_questions, config.judge],
                reads=own_judge,
            ),
            stage(
                "relapse",
                makes=["tables/relapse.csv", "tables/relapse_verdict.csv", "relapse"],
                needs="organism sft dpo dinm record compare",
                settings=[loading, dump(config.relapse), config.comparison.max_new_tokens, config.judge],
                reads=own_judge,
            ),
            stage(
                "report",
                makes=["figures", "report.html"],
                needs="organism probe locate compare defend relapse",
                settings=dump(config),
                reads=[CERTIFICATE] if CERTIFICATE.is_file() else [],  # the page gives the instrument's rates
            ),
        ]

    def _write_manifest(self) -> None:
        fingerprints = {}
        for name, part in (("vanilla", "base/evidence"), *((method, method) for method in METHODS)):
            labels = self.folder / "evidence" / part / "evidence.json"
            if labels.is_file():
                fingerprints[name] = json.loads(labels.read_text())["fingerprint"]
        markers = sorted((self.folder / "stages").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        stages = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in markers}
        seconds = {name: left.get("seconds", 0.0) for name, left in stages.items()}
        write_json(
            self.folder / "manifest.json",
            {
                "config": self.config.model_dump(mode="json"),
                "seed": self.seed,
                "versions": versions(),
                "platform": platform.platform(),
                "device": str(self.config.device),
                "threads": torch.get_num_threads(),
                "fingerprints": fingerprints,
                "seconds": seconds,
                "seconds_total": round(sum(seconds.values()), 2),
                "peak_memory_gib": max((left.get("peak_memory_gib", 0.0) for left in stages.values()), default=0.0),
            },
        )


_CACHED = [name for name, value in vars(Study).items() if isinstance(value, cached_property)]
