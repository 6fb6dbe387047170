"""The study: from nothing, or from a user's model and files, to the tables, figures and report of the mechanism.

    data       the corpus, or the user's data, copied beside the results
    vanilla    the vanilla model, trained on the corpus; there is no such stage where the user has a model
    never      its twin, which never learnt to answer unsafely; where the config asks for it, or a model is taught
    organism   how the vanilla model behaves, and how good the judge is
    sft, dpo   fine-tuned checkpoints; DPO starts from SFT, as in the paper (`StudyConfig.studied` names the methods)
    probe      the toxic probe of the vanilla model
    locate     the toxic layer of every test instance
    dinm       an edit per chosen test instance; the first one at the most frequent toxic layer stands for `dinm`
    record     activations and read-outs of every checkpoint, and the check of the directions on the vanilla model
    compare    the mechanism, decomposition, verdict and validity tables
    defend     defense success of every checkpoint on the edited instances, each edit on its own
    relapse    parts of the vanilla model put back into every checkpoint: does the unsafe behaviour return?
    depth      how deep every change goes, against the model that never learnt; without one the table says so
    attack     every checkpoint under attack, where the config names attacks
    decode     what can still be read off every checkpoint's states, where the config asks for it
    circuits   which edges carry the unsafe answer in every checkpoint, where the config asks for it
    report     figures and report.html

Everything is read back from the run folder, so that a run that was killed goes on where it was. What makes each stage
start again: `dependencies`.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Collection, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from mechinterp.answers.judges import Judge
from mechinterp.audit.directions.probe import ToxicProbe
from mechinterp.data.benign import BenignPrompt
from mechinterp.data.comments import Comment, read_comments
from mechinterp.data.pairs import AnyPair
from mechinterp.data.showing import one_line
from mechinterp.data.storage.files import remove, write_json
from mechinterp.data.storage.places import check_free
from mechinterp.data.storage.provenance import versions
from mechinterp.errors import InputError
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import WeightDelta
from mechinterp.models.files.stored_checkpoint import StoredCheckpoint
from mechinterp.models.launcher import launched
from mechinterp.models.progress import Reporter, Silent
from mechinterp.runs.config import StudyConfig
from mechinterp.runs.one_format import described
from mechinterp.runs.stages import Runner, Stage, locked, needed, read_marker
from mechinterp.runs.study.checkpoints import chat_of, checkpoint_of, edits_of, opened
from mechinterp.runs.study.dependencies import stages_of
from mechinterp.runs.study.edited import edited_instances
from mechinterp.runs.study.further import check_further
from mechinterp.runs.study.instances import instances_of
from mechinterp.runs.study.judging import judge_of
from mechinterp.runs.study.questions import asked_knowledge, benign_of, knowledge_of
from mechinterp.runs.study.run import Run
from mechinterp.runs.study.toxic_layer import block_of, blocks_of


@dataclass(frozen=True)
class Study(Run):
    """A config, a seed and the folder that holds everything made from them; what stands there, read when asked for."""

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

    def __repr__(self) -> str:
        return one_line(self, f"in {self.folder}", f"seed {self.seed}")

    # -- what the stages leave, typed ---------------------------------------------------------------------------

    def instances(self, split: str) -> list[AnyPair]:
        """The instances of a split: `train`, `validation` or `test`."""
        return instances_of(self, split)

    @cached_property
    def comments(self) -> list[Comment]:
        """The labelled comments of the probe."""
        return read_comments(self.folder / "data" / "comments.csv")

    @cached_property
    def knowledge(self) -> list[tuple[str, str]]:
        """Knowledge questions in phrasings never seen in training, with the word that answers each; may be empty."""
        return knowledge_of(self)

    @cached_property
    def benign(self) -> list[BenignPrompt]:
        """Harmless prompts never seen in training, some with a good answer; may be empty."""
        return benign_of(self)

    @cached_property
    def judge(self) -> Judge:
        """The judge of responses."""
        return judge_of(self)

    @cached_property
    def probe(self) -> ToxicProbe:
        """The toxic probe of the vanilla model."""
        return ToxicProbe.load(self.folder / "probe.safetensors")

    @cached_property
    def block(self) -> int:
        """The toxic layer of most test instances, or of the first one where it is used for all."""
        return block_of(self)

    @property
    def blocks(self) -> dict[int, int]:
        """The toxic layer of every test instance, by its id."""
        return blocks_of(self)

    def asked_knowledge(self) -> list[tuple[str, str]]:
        """The knowledge questions that are asked of every evaluated checkpoint: a seeded choice."""
        return asked_knowledge(self)

    def checkpoint(self, name: str) -> Checkpoint:
        """`vanilla`, or what a method made that makes one checkpoint, loaded."""
        return checkpoint_of(self, name)

    def edits(self, method: str = "dinm") -> Iterator[WeightDelta]:
        """The edits of a method, one at a time, the one that stands for it first."""
        return edits_of(self, method)

    def opened(self, name: str) -> AbstractContextManager[Checkpoint]:
        """Any checkpoint of the study, for the time of the context; of edits, the one that stands for the method."""
        return opened(self, name)

    def edit_instances(self) -> list[AnyPair]:
        """The test instances that are edited and evaluated: a seeded choice, spread evenly over the categories."""
        return edited_instances(self)

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

        Raises:
            InputError: before any work, if a launcher started several processes, another run holds the folder or a
                name in it is taken by a file of the user's; and as the stages.
        """
        if launched():
            raise InputError("a study runs as one process: start it without torchrun or accelerate launch")
        check_further(self.config)
        reporter = reporter or Silent()
        stages = self.stages(reporter)
        wanted = {stage.name for stage in stages} if only is None else needed(stages, set(only))
        stages = [stage for stage in stages if stage.name in wanted]
        self.check_places(stages)
        with nullcontext() if held else locked(self.folder):
            runner = Runner(self.folder, note=reporter.note)
            for stage in stages:
                marker = self.folder / "stages" / f"{stage.name}.json"
                before = read_marker(marker).get("made")
                if runner.run(stage) and stage.name != "report" and read_marker(marker)["made"] != before:
                    remove(self.folder / "report.html")  # it is of other tables
                for cached in _CACHED:  # a stage may have replaced it
                    self.__dict__.pop(cached, None)
                self._write_manifest()
                if stage.name == until:
                    break
        return self.folder / "report.html"

    def check_places(self, stages: Iterable[Stage]) -> None:
        """Raise `InputError` if something that this tool did not write stands where stages would write."""
        made = {name for stage in stages for name in (f"stages/{stage.name}.json", *stage.makes, *stage.may_make)}
        if "figures" in made and (self.folder / "figures").is_dir():  # which may hold other figures, too
            from mechinterp.report.plates import PLATES, figure_files

            made.remove("figures")
            check_free(*(file for name in PLATES for file in figure_files(self.folder / "figures", name)))
        check_free(*(self.folder / name for name in ("manifest.json", *sorted(made))))

    def stages(self, reporter: Reporter) -> list[Stage]:
        """The stages in their order."""
        return stages_of(self, reporter)

    def _write_manifest(self) -> None:
        fingerprints = {}
        for name, part in (("vanilla", "base/evidence"), *((method, method) for method in self.config.studied)):
            labels = self.folder / "evidence" / part / "evidence.json"
            if labels.is_file():
                fingerprints[name] = json.loads(labels.read_text(encoding="utf-8"))["fingerprint"]
        model = self.config.model
        types = StoredCheckpoint.find(model).stored_types if model is not None and Path(model).exists() else {}
        markers = sorted((self.folder / "stages").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        stages = {path.stem: read_marker(path) for path in markers}
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
                "chat": described(chat_of(self)),
                "fingerprints": fingerprints,
                **({"stored_types": {"vanilla": types}} if types else {}),
                "seconds": seconds,
                "seconds_total": round(sum(seconds.values()), 2),
                "peak_memory_gib": max((left.get("peak_memory_gib", 0.0) for left in stages.values()), default=0.0),
            },
        )


_CACHED = [name for name, value in vars(Study).items() if isinstance(value, cached_property)]
