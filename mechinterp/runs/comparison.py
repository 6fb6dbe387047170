"""Compare any number of checkpoints with their base, and leave tables, figures and a report.

One model is in memory at a time: each is opened when its turn comes, and only if what is wanted of it was not recorded
before. Checkpoints of one training run, by their steps, are a trajectory.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pandas as pd

from mechinterp.answers.behaviour import UNSAFE, Behaviour
from mechinterp.answers.judge_table import judge_table
from mechinterp.answers.judges import Judge
from mechinterp.audit.depth import DepthTables, Drops, answer_drops, depth_questions, depth_texts
from mechinterp.audit.directions.probe import ToxicProbe
from mechinterp.audit.directions.standard import check_more
from mechinterp.audit.directions.toxic_direction import ToxicDirection
from mechinterp.audit.evidence import Baseline, ComparisonSettings, Evidence, gather_evidence, prepare_baseline
from mechinterp.audit.evidence.preparing import fitting_half
from mechinterp.audit.location import histogram
from mechinterp.audit.origins.settings import OriginsSettings
from mechinterp.audit.relapse.results import RelapseTest, decomposed_verdicts, relapse_tables
from mechinterp.audit.relapse.testing import kept_tests, relapse_from_evidence
from mechinterp.audit.relapse.treatments import RelapseSettings
from mechinterp.audit.tables import COMPARED, compare
from mechinterp.audit.tables.mechanism import mechanism_of
from mechinterp.audit.tables.registry import tables_of
from mechinterp.audit.toxic_layer import toxic_block
from mechinterp.audit.trajectory import trajectory_table
from mechinterp.data.pairs import AnyPair
from mechinterp.data.storage.provenance import versions
from mechinterp.errors import InputError
from mechinterp.measures.distances import Distance
from mechinterp.models.progress import Reporter
from mechinterp.models.text.chat import ChatChoice
from mechinterp.runs.candidate import Candidate
from mechinterp.runs.folder import RunFolder
from mechinterp.runs.one_format import described, in_one_format
from mechinterp.runs.origins import measured
from mechinterp.runs.workspace import Workspace, fingerprint_of_instances, fingerprint_of_judge, made_by


def check_results(out: Path) -> None:
    """Raise `InputError` if something that this tool did not write stands where a comparison's results would."""
    depth = (*tables_of("depth"), *tables_of("depth", optional=True))
    made = (*tables_of("origins"), *tables_of("relapse"), *depth)
    tables = (*COMPARED, "toxic_layer", "judge", "flags", *made, "trajectory")
    RunFolder.check_free(out, tables, report=True)


def compare_checkpoints(
    base: Candidate,
    tuned: Sequence[Candidate],
    instances: Sequence[AnyPair],
    probe: ToxicProbe,
    judge: Judge,
    *,
    out: Path | None,
    cache: Path | None = None,
    block: int | None = None,
    distance: Distance = "released",
    seed: int = 0,
    settings: ComparisonSettings | None = None,
    behaviour: Behaviour = UNSAFE,
    more: Sequence[ToxicDirection] = (),
    truncate: bool = False,
    without_sinks: bool = False,
    relapse: RelapseSettings | None = None,
    origins: OriginsSettings | None = None,
    never: Candidate | None = None,
    chat: ChatChoice | None = None,
    reporter: Reporter | None = None,
) -> RunFolder:
    """Compare checkpoints with their base, one in memory at a time; what was recorded before is not recorded again.

    Args:
        base: the unedited model.
        tuned: what is compared with it.
        instances: test instances; half of them, seeded and by question, serve to fit the directions that are checked on
            the others.
        probe: of the base.
        judge: of the base's answers.
        out: folder for `tables`, `figures`, `manifest.json` and `report.html`; None for one that goes with what is
            returned.
        cache: folder of the recordings, may be shared by many comparisons; `out/recordings` if not given.
        block: the toxic layer; None to locate it.
        distance: by which it is located.
        behaviour: what the judge judges, and the instances are of.
        more: directions to measure along besides those that every comparison has.
        truncate: cut prompts that exceed the context from the left (responses to locate it at their end), or raise.
        without_sinks: leave tokens with massive activations out of the distances that locate the block, and of every
            mean and length over tokens, see `models.passes.sinks`.
        relapse: also put parts of the base back into each checkpoint (`relapse`); the two are then in memory together.
        origins: also share each checkpoint's change out among its changed weights; there too the two are in memory
            together.
        never: a model that never learnt the behaviour, named `never`: how deep the changes go is measured against it.
        chat: which chat format all of them are read in, see `one_format`.

    Returns:
        The folder. What an earlier comparison wrote there makes way for it all at once, and nothing else.

    Raises:
        InputError: before anything long, for checkpoints that cannot be compared, or a name in `out` that is taken by
            what this tool did not write.
    """
    if not tuned:
        raise InputError("there are no tuned checkpoints to compare with the base")
    if not instances:
        raise InputError("there are no instances to compare on")
    beside = [] if never is None else [never]
    base, others = in_one_format(base, [*tuned, *beside], chat)
    tuned, never = others[: len(tuned)], others[-1] if beside else None
    work = Workspace(
        base, tuned, out=out, cache=cache, never=never, of="compare", purpose="comparison", reporter=reporter
    )
    check_results(work.folder)
    names = base.skeleton.names
    # before anything long is started
    check_more(more, names.d_model, base.skeleton.source)
    fitting_half(instances, seed)
    texts = [text for i in instances for text in (i.prompt, i.unsafe, i.safe)]
    work.check(texts, truncate=truncate)
    with work.held():
        identity, tables = work.identify(base), dict[str, pd.DataFrame]()
        checked: list[ToxicProbe | ToxicDirection] = [probe, *more]
        for direction in checked:
            direction.check(identity["weights"], base.source, identity["tokenizer"])
        if block is None:
            located = work.locate(instances, truncate=truncate, without_sinks=without_sinks)
            block = toxic_block(located, distance)
            tables["toxic_layer"] = histogram(located, names.n_blocks)
        settings = settings or ComparisonSettings()
        recording = _Recording(
            work,
            instances,
            probe,
            judge,
            names.check_block(block),
            seed,
            settings,
            tuple(more),
            truncate,
            without_sinks,
        )
        baseline = recording.baseline()
        evidence = ((candidate.name, recording.evidence(candidate, baseline)) for candidate in tuned)
        with work.together() if settings.per_prompt else nullcontext():
            tables |= compare(baseline, evidence, top_neurons=settings.top_neurons).tables
        if baseline.answers is not None:
            tables["flags"] = baseline.answers.flags_table("base", baseline.inputs.prompts, judge)
        if relapse is not None:
            tests = recording.relapse(baseline, relapse)
            tables |= relapse_tables(tests, decomposed_verdicts(tables["local_verdict"]))
        if origins is not None:
            unsafe, depends = baseline.unsafe.tolist(), recording.depends
            tables |= measured(work, instances, unsafe, origins, depends=depends, seed=seed, truncate=truncate)
        tables |= recording.depth(baseline).tables
        if never is not None:
            tables["mechanism_never"] = mechanism_of(never.name, baseline, recording.evidence(never, baseline))
        work.close()
        tables["judge"] = judge_table(judge)
        if steps := {candidate.name: candidate.step for candidate in tuned if candidate.step is not None}:
            tables["trajectory"] = trajectory_table(steps, tables)
        config = {
            "checkpoints": {candidate.name: candidate.skeleton.source for candidate in (base, *tuned)},
            "block": block,
            "distance": distance,
            "judge": judge.name,
            "comparison": settings.model_dump(),
            "relapse": relapse and relapse.model_dump(),
            "origins": origins and origins.model_dump(),
            "truncate": truncate,
            "chat": described(base.chat),
            "without_sinks": without_sinks,
            **({} if never is None else {"never": never.skeleton.source}),
            **behaviour.wording.config,
        }
        fingerprints = {name: found["weights"] for name, found in work.identities.items()}
        said: dict[str, Any] = {"seed": seed, "versions": versions(), "fingerprints": fingerprints}
        return work.publish(tables, config, report=True, **said)


@dataclass(frozen=True)
class _Recording:
    """What is recorded of each checkpoint, and kept under all that it depends on."""

    work: Workspace
    instances: Sequence[AnyPair]
    probe: ToxicProbe
    judge: Judge
    block: int
    seed: int
    settings: ComparisonSettings
    more: tuple[ToxicDirection, ...]
    truncate: bool
    without_sinks: bool

    @cached_property
    def depends(self) -> list[Any]:
        """What the base's recording depends on, besides code."""
        recorded = self.settings.model_dump(exclude={"top_neurons"})
        judge = fingerprint_of_judge(self.judge)
        given = [self.block, self.seed, self.truncate, self.without_sinks]
        chosen = [*given, recorded, judge, self.probe.direction.tolist()]
        chosen += [[direction.name, direction.vector.tolist()] for direction in self.more]
        return [fingerprint_of_instances(self.instances), self.work.identify(self.work.base), chosen]

    def baseline(self) -> Baseline:
        """The base, prepared for comparison."""

        def make() -> Baseline:
            return prepare_baseline(
                self.work.open(self.work.base),
                self.instances,
                self.probe,
                self.judge,
                block=self.block,
                seed=self.seed,
                settings=self.settings,
                more=self.more,
                truncate=self.truncate,
                without_sinks=self.without_sinks,
                note=self.work.reporter.note,
            )

        made = made_by("mechinterp.audit.evidence.preparing")
        return self.work.store.keep("baseline", [made, *self.depends], load=Baseline.load, make=make)

    def evidence(self, candidate: Candidate, baseline: Baseline) -> Evidence:
        """What was recorded of a checkpoint on the base's inputs."""

        def make() -> Evidence:
            checkpoint = self.work.open(candidate)
            self.work.reporter.note(f"recording {candidate.name}")
            base = self.work.open(self.work.base) if self.settings.per_prompt else None
            return gather_evidence(checkpoint, baseline.inputs, base=base)

        # its inputs tell the data and the base apart, and whatever else made them
        made = made_by("mechinterp.audit.evidence.recording")
        key = [made, self.work.identify(candidate), baseline.inputs.fingerprint]
        return self.work.store.keep("evidence", key, load=Evidence.load, make=make)

    def depth(self, baseline: Baseline) -> DepthTables:
        """How deep every checkpoint's change goes, against the model that never learnt."""
        work = self.work
        if work.never is None:
            return DepthTables.without_reference([candidate.name for candidate in work.tuned])

        def drops(candidate: Candidate) -> Drops:
            base = work.open(work.base)
            texts = depth_texts(base, baseline, self.instances)
            if texts is None:
                return Drops.none(base.n_blocks)
            progress = work.reporter.progress(f"depth: {candidate.name}")
            return answer_drops(base, work.open(candidate), texts, progress=progress)

        made = made_by("mechinterp.audit.evidence.preparing", "mechinterp.audit.depth")
        with work.together():
            found: dict[str, Drops] = {}
            for candidate in (work.never, *work.tuned):
                key, make = [made, *self.depends, work.identify(candidate)], partial(drops, candidate)
                found[candidate.name] = work.store.keep("depth", key, load=Drops.load, make=make)
        reference = found.pop(work.never.name)
        return DepthTables.of(found, reference, depth_questions(baseline, self.instances), seed=self.seed)

    def relapse(self, baseline: Baseline, settings: RelapseSettings) -> list[RelapseTest]:
        """The test of every tuned checkpoint, beside the base."""
        work = self.work

        def treat(candidate: Candidate, responses: Sequence[str] | None) -> RelapseTest:
            return relapse_from_evidence(
                work.open(work.base),
                work.open(candidate),
                baseline,
                self.evidence(candidate, baseline),
                self.judge,
                settings=settings,
                max_new_tokens=self.settings.max_new_tokens,
                base_responses=responses,
                progress=work.reporter.progress(f"relapse: {candidate.name}"),
            )

        made = made_by("mechinterp.audit.evidence.preparing", "mechinterp.audit.relapse.testing")
        depends = [made, *self.depends, settings.model_dump(mode="json")]
        with work.together():
            keys = [[*depends, work.identify(candidate)] for candidate in work.tuned]
            return kept_tests(work.store, work.tuned, keys, treat)
