"""The relapse test of any number of checkpoints, without a comparison: base and one of them are in memory together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mechinterp.answers.behaviour import UNSAFE, Behaviour
from mechinterp.answers.judges import Judge
from mechinterp.audit.directions.probe import ToxicProbe
from mechinterp.audit.relapse.results import RelapseTest, relapse_tables
from mechinterp.audit.relapse.testing import kept_tests, relapse_test, unsafe_prompts
from mechinterp.audit.relapse.treatments import RelapseSettings
from mechinterp.audit.tables.registry import tables_of
from mechinterp.audit.toxic_layer import toxic_block
from mechinterp.data.pairs import AnyPair
from mechinterp.data.storage.places import check_name
from mechinterp.data.storage.provenance import versions
from mechinterp.measures.distances import Distance
from mechinterp.models.progress import Reporter
from mechinterp.models.text.chat import ChatChoice
from mechinterp.runs.candidate import Candidate
from mechinterp.runs.folder import RunFolder
from mechinterp.runs.one_format import described, in_one_format
from mechinterp.runs.workspace import Workspace, fingerprint_of_instances, fingerprint_of_judge, made_by


def treat_checkpoints(
    base: Candidate,
    tuned: Sequence[Candidate],
    instances: Sequence[AnyPair],
    judge: Judge,
    *,
    out: Path | None,
    probe: ToxicProbe | None = None,
    block: int | None = None,
    distance: Distance = "released",
    settings: RelapseSettings | None = None,
    behaviour: Behaviour = UNSAFE,
    max_new_tokens: int = 32,
    seed: int = 0,
    truncate: bool = False,
    never: Candidate | None = None,
    chat: ChatChoice | None = None,
    reporter: Reporter | None = None,
) -> RunFolder:
    """Put parts of the base back into checkpoints; a test that was made before is not made again.

    Args:
        base: the unedited model.
        tuned: what is treated.
        instances: their adversarial prompts are asked, those that the base answers unsafely are used.
        judge: of the answers.
        out: folder for `tables`, `figures`, `answers` and `manifest.json`; None for one that goes with what is
            returned.
        probe: of the base: the keys of its most toxic value vectors are scaled too.
        block: the toxic layer; None to locate it.
        distance: by which it is located.
        settings: see `RelapseSettings`; without evidence there are no `neurons` and no groups of them.
        behaviour: what the judge judges, and the instances are of.
        max_new_tokens: longest answer.
        seed: of every random choice.
        truncate: cut prompts that exceed the context from the left (responses to locate it at their end), or raise.
        never: a model that never learnt the behaviour, named `never`: it is treated too, last. What the base's parts
            bring to it they do not bring back.
        chat: which chat format all of them are read in, see `one_format`.

    Returns:
        The folder, with tables `relapse` and `relapse_verdict`.

    Raises:
        InputError: for checkpoints that cannot be compared, a probe of other weights, or a base that answers none of
            the prompts unsafely.
    """
    settings, wording = settings or RelapseSettings(), behaviour.wording
    base, tuned = in_one_format(base, tuned if never is None else [*tuned, never], chat)
    work = Workspace(base, tuned, out=out, of="relapse", purpose="test", reporter=reporter)
    # before anything long is started
    names = [check_name(candidate.name, "checkpoint") for candidate in tuned]
    RunFolder.check_free(work.folder, tables_of("relapse"), answers=names)
    work.check([instance.prompt for instance in instances], truncate=truncate)
    with work.held(), work.together():
        identity = work.identify(base)
        if probe is not None:
            probe.check(identity["weights"], base.source, identity["tokenizer"])
        if block is None:
            block = toxic_block(work.locate(instances, truncate=truncate), distance)
        block = base.skeleton.names.check_block(block)
        direction = None if probe is None else probe.direction
        asking: dict[str, Any] = {"max_new_tokens": max_new_tokens, "seed": seed, "truncate": truncate}

        def ask() -> dict[str, Any]:
            progress = work.reporter.progress(wording.worded("prompts that the base answers unsafely"))
            of_base = work.open(base)
            found = unsafe_prompts(
                of_base, instances, judge, settings.prompts, wording=wording, progress=progress, **asking
            )
            return {"prompts": found}

        def treat(candidate: Candidate, responses: Sequence[str] | None) -> RelapseTest:
            return relapse_test(
                work.open(base),
                work.open(candidate),
                prompts,
                judge,
                block=block,
                settings=settings,
                toxic_direction=direction,
                base_responses=responses,
                progress=work.reporter.progress(f"relapse: {candidate.name}"),
                **asking,
            )

        made, data = made_by("mechinterp.audit.relapse.testing"), fingerprint_of_instances(instances)
        chosen = [made, data, identity, truncate, seed, max_new_tokens, fingerprint_of_judge(judge)]
        prompts = work.store.remember("unsafe_prompts", [chosen, settings.prompts], ask)["prompts"]
        depends = [chosen, block, settings.model_dump(mode="json"), None if direction is None else direction.tolist()]
        keys = ([depends, work.identify(candidate)] for candidate in tuned)
        tests = kept_tests(work.store, tuned, keys, treat)
        config = {
            "checkpoints": {candidate.name: candidate.source for candidate in (base, *tuned)},
            "block": block,
            "judge": judge.name,
            "relapse": settings.model_dump(),
            "max_new_tokens": max_new_tokens,
            "truncate": truncate,
            "chat": described(base.chat),
            **wording.config,
        }
        answers = {test.method: test.answers() for test in tests}
        return work.publish(relapse_tables(tests), config, answers=answers, seed=seed, versions=versions())
