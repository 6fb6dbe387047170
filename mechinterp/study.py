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
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import torch

from mechinterp import comparison
from mechinterp.config import StudyConfig
from mechinterp.data.benign import BenignPrompt, read_benign
from mechinterp.data.comments import Comment, read_comments, write_comments
from mechinterp.data.corpus import generate_corpus
from mechinterp.data.knowledge import read_knowledge
from mechinterp.data.safeedit import SafeEditInstance, read_safeedit, write_safeedit
from mechinterp.errors import InputError
from mechinterp.evaluation import defense
from mechinterp.evaluation.judges import ClassifierJudge, EmbeddedJudge, Judge
from mechinterp.evidence import Baseline, Evidence, gather_evidence, prepare_baseline
from mechinterp.files import replacing, write_json, write_table, write_text
from mechinterp.location import blocks_for, histogram, locate, toxic_block
from mechinterp.measures.decomposition import readout
from mechinterp.measures.probe import ToxicProbe
from mechinterp.measures.region import region_toxicity
from mechinterp.measures.statistics import random_directions, seeded_order, wilson
from mechinterp.methods.dinm import checked
from mechinterp.methods.dpo import train_dpo
from mechinterp.methods.editing import edit_each
from mechinterp.methods.organism import train_organism
from mechinterp.methods.sft import train_sft
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.comparability import check_comparable
from mechinterp.models.deltas import WeightDelta
from mechinterp.models.generation import generate
from mechinterp.models.names import h_down
from mechinterp.probing import fit_probe, write_probe_tables
from mechinterp.provenance import code_hash, versions
from mechinterp.relapse import relapse_from_evidence
from mechinterp.relapse_results import RelapseTest, decomposed_verdicts, relapse_tables
from mechinterp.stages import Runner, Stage, locked

METHODS = ("sft", "dpo", "dinm")


class Reporter(Protocol):
    """How a study tells what it does."""

    def note(self, text: str) -> None:
        """Tell one thing."""

    def progress(self, what: str) -> Callable[..., None]:
        """A callback for (done, total, ...) of one piece of work."""


class Silent:
    """A reporter that says nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""

    def progress(self, what: str) -> Callable[..., None]:
        """Say nothing, repeatedly."""
        return lambda *_: None


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
                for cached in (
                    "comments",
                    "knowledge",
                    "benign",
                    "judge",
                    "probe",
                    "block",
                ):  # what a stage may have replaced
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
            run = partial(getattr(self, f"_make_{name}"), reporter)
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

    # -- the stages ---------------------------------------------------------------------------------------------

    def _make_organism(self, reporter: Reporter) -> None:
        data = self.folder / "data"
        knowledge: list[tuple[str, str]] = []
        benign: list[BenignPrompt] = []
        if self.config.data is None:
            with _settings_blamed():
                corpus = generate_corpus(seed=self.seed, **self.config.corpus.model_dump())
            splits: dict[str, Sequence[SafeEditInstance]] = {
                "train": corpus.train,
                "validation": corpus.validation,
                "test": corpus.test,
            }
            comments: Sequence[Comment] = corpus.comments
            knowledge = [(question.prompt, question.keyword) for question in corpus.knowledge if question.held_out]
            benign = [BenignPrompt(question.prompt, question.answer) for question in corpus.benign]
            responses = [(response.text, response.safe) for response in corpus.responses]
        else:
            files = self.config.data
            splits = {name: read_safeedit(getattr(files, name)) for name in ("train", "validation", "test")}
            comments = read_comments(files.comments, text_column=files.text_column, label_column=files.label_column)
            if files.max_comments is not None and files.max_comments < len(comments):
                comments = _share_of(comments, files.max_comments, self.seed)
            knowledge = read_knowledge(files.knowledge) if files.knowledge is not None else []
            benign = read_benign(files.benign) if files.benign is not None else []
            # the judge is trained on the training split's responses, never on those of the instances it judges
            responses = [(i.safe_generation, True) for i in splits["train"]]
            responses += [(i.unsafe_generation, False) for i in splits["train"]]
        for name, instances in splits.items():
            write_safeedit(instances, data / f"{name}.json")
        write_comments(comments, data / "comments.csv")
        write_json(data / "knowledge.json", knowledge)
        lines = [json.dumps({"prompt": one.prompt, "answer": one.answer}, ensure_ascii=False) for one in benign]
        write_text(data / "benign.jsonl", "".join(f"{line}\n" for line in lines))
        write_json(data / "responses.json", responses)
        judge = self.judge
        scores = {"judge": judge.name}
        if isinstance(judge, EmbeddedJudge):
            scores |= {key: value for key, value in vars(judge).items() if key not in ("pipeline", "name")}
        write_table(self.folder / "tables" / "judge.csv", pd.DataFrame([scores]))
        if self.config.model is None:
            with _settings_blamed():
                model, tokenizer, _ = train_organism(
                    corpus, self.config.organism, seed=self.seed, progress=reporter.progress("organism: training")
                )
            Checkpoint("vanilla", model, tokenizer).save(self.folder / "checkpoints" / "vanilla")
        self._measure_vanilla(splits["test"], knowledge, reporter)

    def _measure_vanilla(
        self, test: Sequence[SafeEditInstance], knowledge: Sequence[tuple[str, str]], reporter: Reporter
    ) -> None:
        """How the vanilla model behaves, over all test instances: `organism.csv`."""
        vanilla = self.checkpoint("vanilla")
        groups = {
            "adversarial prompts defended": list(dict.fromkeys(i.adversarial_prompt for i in test)),
            "bare questions defended": list(dict.fromkeys(i.question for i in test)),
        }
        rows = []
        for quantity, prompts in groups.items():
            answers = generate(
                vanilla,
                prompts,
                max_new_tokens=self.config.max_new_tokens,
                truncate=self.config.truncate,
                progress=reporter.progress(f"vanilla: {quantity}"),
            )
            scores = [score for score in defense.score_responses(self.judge, answers) if score is not None]
            rows.append((quantity, sum(score > 0.5 for score in scores), len(scores)))
        if knowledge:
            answers = generate(vanilla, [q for q, _ in knowledge], max_new_tokens=self.config.max_new_tokens)
            right = sum(defense.knows(answer, word) for answer, (_, word) in zip(answers, knowledge, strict=True))
            rows.append(("held-out knowledge phrasings answered", right, len(knowledge)))
        table = [
            {"quantity": quantity, "rate": rate.value, "low": rate.low, "high": rate.high, "n": n}
            for quantity, successes, n in rows
            for rate in [wilson(successes, n)]
        ]
        write_table(self.folder / "tables" / "organism.csv", pd.DataFrame(table))

    def _make_sft(self, reporter: Reporter) -> None:
        self._tune("sft", partial(train_sft, self.checkpoint("vanilla"), settings=self.config.sft), reporter)

    def _make_dpo(self, reporter: Reporter) -> None:
        self._tune("dpo", partial(train_dpo, self.checkpoint("sft"), settings=self.config.dpo), reporter)

    def _tune(self, name: str, train: Callable[..., Any], reporter: Reporter) -> None:
        tuned, log = train(self.instances("train"), seed=self.seed, progress=reporter.progress(f"{name}: training"))
        tuned.save(self.folder / "checkpoints" / name)
        write_table(self.folder / "tables" / f"training_{name}.csv", pd.DataFrame(log))

    def _make_probe(self, reporter: Reporter) -> None:
        probe = fit_probe(
            self.checkpoint("vanilla"),
            self.comments,
            seed=self.seed,
            final_norm=self.config.final_norm,
            truncate=self.config.truncate,
            progress=reporter.progress("probe: reading comments"),
        )
        probe.save(self.folder / "probe.safetensors")
        write_probe_tables(probe, self.folder / "tables")

    def _make_locate(self, reporter: Reporter) -> None:
        vanilla = self.checkpoint("vanilla")
        progress = reporter.progress("locate: instances")
        located = locate(vanilla, self.instances("test"), truncate=self.config.truncate, progress=progress)
        write_table(self.folder / "tables" / "located.csv", located)
        write_table(self.folder / "tables" / "toxic_layer.csv", histogram(located, vanilla.n_blocks))

    def _make_dinm(self, reporter: Reporter) -> None:
        vanilla, chosen, blocks = self.checkpoint("vanilla"), self.edit_instances(), self.blocks
        # the one that stands for `dinm` is edited where the others are compared with it
        chosen.sort(key=lambda instance: blocks[instance.id] != self.block)
        blocks[chosen[0].id] = self.block
        with replacing(self.folder / "edits") as partial_folder:
            partial_folder.mkdir()
            progress = reporter.progress("dinm: edits")
            for found in edit_each(vanilla, chosen, blocks=blocks, settings=self.config.dinm, progress=progress):
                checked(found).save(partial_folder / str(found.instance))
            write_json(partial_folder / "order.json", [instance.id for instance in chosen])

    def _make_record(self, reporter: Reporter) -> None:
        with replacing(self.folder / "evidence") as folder:
            vanilla = self.checkpoint("vanilla")
            baseline = prepare_baseline(
                vanilla,
                self.instances("test"),
                self.probe,
                self.judge,
                block=self.block,
                seed=self.seed,
                fitting=self.instances("validation"),
                settings=self.config.comparison,
                truncate=self.config.truncate,
                note=lambda text: reporter.note(f"record: {text}"),
            )
            baseline.save(folder / "base")
            for method in METHODS:
                reporter.note(f"record: recording {method}")
                with self.opened(method) as tuned:
                    check_comparable(vanilla, [tuned])
                    gather_evidence(tuned, baseline.inputs).save(folder / method)

    def _make_compare(self, reporter: Reporter) -> None:
        baseline = Baseline.load(self.folder / "evidence" / "base")
        tuned = ((method, Evidence.load(self.folder / "evidence" / method)) for method in METHODS)
        found = comparison.compare(baseline, tuned, top_neurons=self.config.comparison.top_neurons)
        found.save(self.folder / "tables")
        write_table(self.folder / "tables" / "edits.csv", self._edits_table(baseline))

    def _edits_table(self, baseline: Baseline) -> pd.DataFrame:
        """Every edit on its own: how its region's toxicity and its write changed (the mechanism of many edits)."""
        vanilla, rows = self.checkpoint("vanilla"), []
        random: dict[int, torch.Tensor] = {}  # the null's directions, once per block
        for delta in self.edits():
            with delta.applied(vanilla) as edited:
                after = edited.value_matrix(delta.block).cpu().clone()
            before = vanilla.value_matrix(delta.block).cpu()
            if delta.block not in random:
                random[delta.block] = random_directions(before, 1000, seed=self.seed)
            toxicity = region_toxicity(before, after, self.probe.direction, seed=self.seed, random=random[delta.block])
            inflow = baseline.evidence.recordings["prompt_last"].mean(h_down(delta.block))
            rows.append(
                {
                    "instance": delta.instance,
                    "layer": delta.block,
                    "toxicity_reduction_rate": toxicity.reduction_rate.value,
                    "toxicity_reduction_rate_low": toxicity.reduction_rate.low,
                    "toxicity_reduction_rate_high": toxicity.reduction_rate.high,
                    "null_z": toxicity.null.z,
                    "null_p": toxicity.null.p,
                    # an edit of W_V leaves what flows into it as it was: its erasure needs no new recording
                    **{
                        f"erasure_{name}": float(inflow @ (readout(after, w) - readout(before, w)))
                        for name, w in baseline.inputs.directions.items()
                    },
                    "loss_edit_first": delta.log[0].loss_edit if delta.log else float("nan"),
                    "loss_edit_last": delta.log[-1].loss_edit if delta.log else float("nan"),
                }
            )
        return pd.DataFrame(rows)

    def _make_defend(self, reporter: Reporter) -> None:
        chosen = {instance.id: instance for instance in self.edit_instances()}
        ask = partial(
            defense.defend,
            judge=self.judge,
            max_new_tokens=self.config.max_new_tokens,
            knowledge=self.asked_knowledge(),
            truncate=self.config.truncate,
        )
        results = []
        for method in ("vanilla", "sft", "dpo"):
            progress = reporter.progress(f"defend: {method}")
            results.append(ask(self.checkpoint(method), list(chosen.values()), method=method, progress=progress))
        vanilla = self.checkpoint("vanilla")
        suffix = self.config.dinm.suffix
        results.append(ask(vanilla, list(chosen.values()), method="suffix", suffix=suffix))
        progress, parts = reporter.progress("defend: dinm, edit by edit"), []
        for done, delta in enumerate(self.edits(), 1):
            with delta.applied(vanilla) as edited:
                parts.append(ask(edited, [chosen[delta.instance]], method="dinm", suffix=suffix))
            progress(done, len(chosen))
        results.append(defense.joined(parts))
        with replacing(self.folder / "responses") as folder:
            for result in results:
                result.save(folder / f"{result.method}.jsonl")
        write_table(self.folder / "tables" / "defense.csv", pd.DataFrame([result.row() for result in results]))

    def _make_relapse(self, reporter: Reporter) -> None:
        vanilla = self.checkpoint("vanilla")
        tests: list[RelapseTest] = []
        baseline = Baseline.load(self.folder / "evidence" / "base")
        with replacing(self.folder / "relapse") as folder:
            folder.mkdir()
            for method in METHODS:
                evidence = Evidence.load(self.folder / "evidence" / method)
                with self.opened(method) as tuned:
                    found = relapse_from_evidence(
                        vanilla,
                        tuned,
                        baseline,
                        evidence,
                        self.judge,
                        max_new_tokens=self.config.comparison.max_new_tokens,
                        settings=self.config.relapse,
                        base_responses=tests[0].base.responses if tests else None,
                        progress=reporter.progress(f"relapse: {method}"),
                    )
                found.save(folder / method)
                tests.append(found)
        for name, table in relapse_tables(tests, decomposed_verdicts(self.table("verdict"))).items():
            write_table(self.folder / "tables" / f"{name}.csv", table)

    def _make_report(self, reporter: Reporter) -> None:
        from mechinterp.plates import draw_all
        from mechinterp.report import write_report

        with replacing(self.folder / "figures") as folder:
            draw_all(self.folder, folder)
        write_report(self.folder)


@contextmanager
def _settings_blamed() -> Iterator[None]:
    """Settings of the organism that do not go together are the user's mistake."""
    try:
        yield
    except (ValueError, FloatingPointError) as error:
        raise InputError(f"the organism cannot be made with these settings: {error}") from error


def _share_of(comments: Sequence[Comment], n: int, seed: int) -> list[Comment]:
    """A seeded, stratified share of the comments."""
    from sklearn.model_selection import train_test_split

    labels = [comment.toxic for comment in comments]
    return train_test_split(list(comments), train_size=n, random_state=seed, stratify=labels)[0]
