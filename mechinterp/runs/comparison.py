"""Compare any number of checkpoints with their base, and leave tables, figures and a report.

One model is in memory at a time: each is opened when its turn comes, and only if what is wanted of it was not recorded
before. Checkpoints of one training run, by their steps, are a trajectory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import pandas as pd

from mechinterp.answers.judges import Judge
from mechinterp.audit.directions.probe import ToxicProbe
from mechinterp.audit.directions.standard import check_more
from mechinterp.audit.directions.toxic_direction import ToxicDirection
from mechinterp.audit.evidence import Baseline, ComparisonSettings, Evidence, gather_evidence, prepare_baseline
from mechinterp.audit.evidence.preparing import fitting_half
from mechinterp.audit.location import histogram
from mechinterp.audit.relapse.results import RelapseTest, decomposed_verdicts, relapse_tables
from mechinterp.audit.relapse.testing import kept_tests, relapse_from_evidence
from mechinterp.audit.relapse.treatments import RelapseSettings
from mechinterp.audit.store import Store
from mechinterp.audit.tables import OPTIONAL_TABLES, TABLES, compare
from mechinterp.audit.toxic_layer import toxic_block
from mechinterp.audit.trajectory import trajectory_table
from mechinterp.data.safeedit import SafeEditInstance
from mechinterp.data.storage.files import write_json
from mechinterp.data.storage.places import check_free
from mechinterp.data.storage.provenance import versions
from mechinterp.data.storage.publishing import publishing
from mechinterp.data.storage.tables import write_table
from mechinterp.errors import InputError
from mechinterp.measures.distances import Distance
from mechinterp.models import processes
from mechinterp.models.equality import notes_of_equal
from mechinterp.models.progress import Reporter, Silent
from mechinterp.runs.stages import locked, peak_memory
from mechinterp.runs.workspace import (
    Candidate,
    Desk,
    check_tuned,
    fingerprint_of_instances,
    fingerprint_of_judge,
    made_by,
    skeleton_of,
)


def check_results(out: Path) -> None:
    """Raise `InputError` if something that this tool did not write stands where a comparison's results would."""
    from mechinterp.report.plates import figure_files, plates_of

    tables = (*TABLES, *OPTIONAL_TABLES, "toxic_layer", "relapse", "relapse_verdict", "trajectory")
    figures = [file for name in plates_of(tables) for file in figure_files(out / "figures", name)]
    check_free(
        out / "manifest.json", out / "report.html", *(out / "tables" / f"{name}.csv" for name in tables), *figures
    )


def compare_checkpoints(
    base: Candidate,
    tuned: Sequence[Candidate],
    instances: Sequence[SafeEditInstance],
    probe: ToxicProbe,
    judge: Judge,
    *,
    out: Path,
    cache: Path | None = None,
    block: int | None = None,
    distance: Distance = "released",
    seed: int = 0,
    settings: ComparisonSettings | None = None,
    more: Sequence[ToxicDirection] = (),
    truncate: bool = False,
    relapse: RelapseSettings | None = None,
    reporter: Reporter | None = None,
) -> Path:
    """Compare checkpoints with their base, one in memory at a time; what was recorded before is not recorded again.

    Args:
        base: the unedited model.
        tuned: what is compared with it.
        instances: test instances; half of them, seeded and by question, serve to fit the directions that are checked on
            the others.
        probe: of the base.
        judge: of the base's answers.
        out: folder for `tables`, `figures`, `manifest.json` and `report.html`.
        cache: folder of the recordings, may be shared by many comparisons; `out/recordings` if not given.
        block: the toxic layer; None to locate it.
        distance: by which it is located.
        more: directions to measure along besides those that every comparison has.
        truncate: cut prompts that exceed the context from the left (responses to locate it at their end), or raise.
        relapse: also put parts of the base back into each checkpoint (`relapse`); the two are then in memory together.

    Returns:
        The report's path. What an earlier comparison wrote there makes way for it all at once, and nothing else.

    Raises:
        InputError: before anything long, for checkpoints that cannot be compared, or a name in `out` that is taken by
            what this tool did not write.
    """
    from mechinterp.report import write_report
    from mechinterp.report.plates import draw_all

    reporter, settings = reporter or Silent(), settings or ComparisonSettings()
    if not tuned:
        raise InputError("there are no tuned checkpoints to compare with the base")
    if not instances:
        raise InputError("there are no instances to compare on")
    check_results(out)
    skeleton = skeleton_of(base, tuned, out=out, purpose="comparison")
    check_more(more, skeleton.names.d_model, skeleton.source)
    texts = [text for i in instances for text in (i.adversarial_prompt, i.unsafe_generation)]
    # before anything long is started
    fitting_half(instances, seed)
    sources = {base.name: skeleton.source, **check_tuned(skeleton, tuned, texts, truncate=truncate)}
    with locked(out) if processes.is_main() else nullcontext():
        desk = Desk(Store(cache or out / "recordings"), reporter)
        data = fingerprint_of_instances(instances)
        identity = desk.identify(base)
        probe.check(identity["weights"], base.source, identity["tokenizer"])
        for direction in more:
            direction.check(identity["weights"], base.source, identity["tokenizer"])
        tables: dict[str, pd.DataFrame] = {}
        if block is None:
            located = desk.locate(base, instances, truncate=truncate)
            block = toxic_block(located, distance)
            tables["toxic_layer"] = histogram(located, skeleton.n_blocks)
        at = skeleton.names.check_block(block)
        recorded = settings.model_dump(exclude={"top_neurons"})
        chosen = [at, seed, truncate, recorded, fingerprint_of_judge(judge), probe.direction.tolist()]
        chosen += [[direction.name, direction.vector.tolist()] for direction in more]
        baseline = desk.store.keep(
            "baseline",
            [made_by("mechinterp.audit.evidence.preparing"), data, identity, chosen],
            load=Baseline.load,
            make=lambda: prepare_baseline(
                desk.open(base),
                instances,
                probe,
                judge,
                block=at,
                seed=seed,
                settings=settings,
                more=more,
                truncate=truncate,
                note=reporter.note,
            ),
        )
        identities = {base.name: identity}

        def evidence_of(candidate: Candidate) -> Evidence:
            def gather() -> Evidence:
                checkpoint = desk.open(candidate)
                reporter.note(f"recording {candidate.name}")
                return gather_evidence(checkpoint, baseline.inputs)

            # its inputs tell the data and the base apart, and whatever else made them
            made = made_by("mechinterp.audit.evidence.recording")
            key = [made, identities[candidate.name], baseline.inputs.fingerprint]
            return desk.store.keep("evidence", key, load=Evidence.load, make=gather)

        def evidence() -> Iterator[tuple[str, Evidence]]:
            for candidate in tuned:
                identities[candidate.name] = desk.identify(candidate)
                yield candidate.name, evidence_of(candidate)

        tables |= compare(baseline, evidence(), top_neurons=settings.top_neurons).tables
        if relapse is not None:
            beside = Desk(desk.store, reporter)  # where the base lies meanwhile

            def treat(candidate: Candidate, responses: Sequence[str] | None) -> RelapseTest:
                return relapse_from_evidence(
                    beside.open(base),
                    desk.open(candidate),
                    baseline,
                    evidence_of(candidate),
                    judge,
                    settings=relapse,
                    max_new_tokens=settings.max_new_tokens,
                    base_responses=responses,
                    progress=reporter.progress(f"relapse: {candidate.name}"),
                )

            made = made_by("mechinterp.audit.evidence.preparing", "mechinterp.audit.relapse.testing")
            depends = [made, data, identity, chosen, relapse.model_dump(mode="json")]
            keys = [[*depends, identities[candidate.name]] for candidate in tuned]
            tests = kept_tests(desk.store, tuned, keys, treat)
            tables |= relapse_tables(tests, decomposed_verdicts(tables["verdict"]))
            beside.close()
        desk.close()
        if steps := {candidate.name: candidate.step for candidate in tuned if candidate.step is not None}:
            tables["trajectory"] = trajectory_table(steps, tables)
        names = [candidate.name for candidate in tuned]
        for text in notes_of_equal(base.name, names, lambda a, b: identities[a]["weights"] == identities[b]["weights"]):
            reporter.note(text)
        manifest = {
            "config": {
                "checkpoints": sources,
                "block": block,
                "distance": distance,
                "judge": judge.name,
                "comparison": settings.model_dump(),
                "relapse": relapse and relapse.model_dump(),
                "truncate": truncate,
            },
            "seed": seed,
            "versions": versions(),
            "fingerprints": {name: found["weights"] for name, found in identities.items()},
            "peak_memory_gib": round(peak_memory(), 3),
        }
        if processes.is_main():
            with publishing(out, "compare") as staging:
                for name, table in tables.items():
                    write_table(staging / "tables" / f"{name}.csv", table)
                write_json(staging / "manifest.json", manifest)
                write_report(staging, draw_all(staging), name=out.resolve().name)
        processes.wait()
        return out / "report.html"
