"""The relapse test of any number of checkpoints, without a comparison: base and one of them are in memory together."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pandas as pd

from mechinterp.answers.judges import Judge
from mechinterp.audit.directions.probe import ToxicProbe
from mechinterp.audit.relapse.results import RELAPSE_TABLES, RelapseTest, relapse_tables
from mechinterp.audit.relapse.testing import kept_tests, relapse_test, unsafe_prompts
from mechinterp.audit.relapse.treatments import RelapseSettings
from mechinterp.audit.store import Store
from mechinterp.audit.toxic_layer import toxic_block
from mechinterp.data.safeedit import SafeEditInstance
from mechinterp.data.storage.files import write_json
from mechinterp.data.storage.places import check_free, check_name
from mechinterp.data.storage.provenance import versions
from mechinterp.data.storage.publishing import publishing
from mechinterp.data.storage.tables import write_table
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


def treat_checkpoints(
    base: Candidate,
    tuned: Sequence[Candidate],
    instances: Sequence[SafeEditInstance],
    judge: Judge,
    *,
    out: Path,
    probe: ToxicProbe | None = None,
    block: int | None = None,
    distance: Distance = "released",
    settings: RelapseSettings | None = None,
    max_new_tokens: int = 32,
    seed: int = 0,
    truncate: bool = False,
    reporter: Reporter | None = None,
) -> pd.DataFrame:
    """Put parts of the base back into checkpoints; a test that was made before is not made again.

    Args:
        base: the unedited model.
        tuned: what is treated.
        instances: their adversarial prompts are asked, those that the base answers unsafely are used.
        judge: of the answers.
        out: folder for `tables`, `figures`, `answers` and `manifest.json`.
        probe: of the base: the keys of its most toxic value vectors are scaled too.
        block: the toxic layer; None to locate it.
        distance: by which it is located.
        settings: see `RelapseSettings`; without evidence there are no `neurons` and no groups of them.
        max_new_tokens: longest answer.
        seed: of every random choice.
        truncate: cut prompts that exceed the context from the left (responses to locate it at their end), or raise.

    Returns:
        The table `relapse_verdict`.

    Raises:
        InputError: for checkpoints that cannot be compared, a probe of other weights, or a base that answers none of
            the prompts unsafely.
    """
    from mechinterp.report.plates import draw_all, figure_files

    reporter, settings = reporter or Silent(), settings or RelapseSettings()
    skeleton = skeleton_of(base, tuned, out=out, purpose="test")
    # before anything long is started
    answers = [f"answers/{check_name(candidate.name, '--checkpoint')}.json" for candidate in tuned]
    drawn = [file for name in RELAPSE_TABLES for file in figure_files(out / "figures", name)]
    written = ["manifest.json", *(f"tables/{name}.csv" for name in RELAPSE_TABLES), *answers]
    check_free(*(out / name for name in written), *drawn)
    check_tuned(skeleton, tuned, [instance.adversarial_prompt for instance in instances], truncate=truncate)
    with locked(out) if processes.is_main() else nullcontext():
        store = Store(out / "recordings")
        at_base, desk = (Desk(store, reporter) for _ in range(2))
        identity = at_base.identify(base)
        if probe is not None:
            probe.check(identity["weights"], base.source, identity["tokenizer"])
        if block is None:
            block = toxic_block(at_base.locate(base, instances, truncate=truncate), distance)
        block = skeleton.names.check_block(block)
        made, data = made_by("mechinterp.audit.relapse.testing"), fingerprint_of_instances(instances)
        chosen = [made, data, identity, truncate, seed, max_new_tokens, fingerprint_of_judge(judge)]

        def ask() -> dict[str, Any]:
            progress = reporter.progress("prompts that the base answers unsafely")
            found = unsafe_prompts(
                at_base.open(base),
                instances,
                judge,
                settings.prompts,
                seed=seed,
                max_new_tokens=max_new_tokens,
                truncate=truncate,
                progress=progress,
            )
            return {"prompts": found}

        prompts = store.remember("unsafe_prompts", [chosen, settings.prompts], ask)["prompts"]

        def treat(candidate: Candidate, responses: Sequence[str] | None) -> RelapseTest:
            return relapse_test(
                at_base.open(base),
                desk.open(candidate),
                prompts,
                judge,
                block=block,
                max_new_tokens=max_new_tokens,
                settings=settings,
                seed=seed,
                toxic_direction=None if probe is None else probe.direction,
                base_responses=responses,
                truncate=truncate,
                progress=reporter.progress(f"relapse: {candidate.name}"),
            )

        direction = None if probe is None else probe.direction.tolist()
        depends = [chosen, block, settings.model_dump(mode="json"), direction]
        weights = {base.name: identity["weights"]}

        def key(candidate: Candidate) -> Any:
            found = desk.identify(candidate)
            weights[candidate.name] = found["weights"]
            return [depends, found]

        tests = kept_tests(store, tuned, map(key, tuned), treat)
        names = [candidate.name for candidate in tuned]
        for text in notes_of_equal(base.name, names, lambda a, b: weights[a] == weights[b]):
            reporter.note(text)
        tables = relapse_tables(tests)
        manifest = {
            "config": {
                "checkpoints": {candidate.name: candidate.source for candidate in (base, *tuned)},
                "block": block,
                "judge": judge.name,
                "relapse": settings.model_dump(),
                "max_new_tokens": max_new_tokens,
                "truncate": truncate,
            },
            "seed": seed,
            "versions": versions(),
            "peak_memory_gib": round(peak_memory(), 3),
        }
        if processes.is_main():
            with publishing(out, "relapse") as staging:
                for name, table in tables.items():
                    write_table(staging / "tables" / f"{name}.csv", table)
                for test in tests:
                    write_json(staging / "answers" / f"{test.method}.json", test.answers())
                write_json(staging / "manifest.json", manifest)
                draw_all(staging)
        processes.wait()
        return tables["relapse_verdict"]
