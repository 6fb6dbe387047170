"""The origins of any number of checkpoints' changes, without a comparison: base and one of them in memory together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from mechinterp.answers.behaviour import UNSAFE, Behaviour
from mechinterp.answers.judges import Judge
from mechinterp.audit.directions.toxic_direction import ToxicDirection
from mechinterp.audit.origins.asking import Asked, answered_unsafely
from mechinterp.audit.origins.measuring import Origins, origins_of, origins_tables
from mechinterp.audit.origins.settings import OriginsSettings
from mechinterp.audit.readouts import Readout, WritePosition, write
from mechinterp.audit.tables.registry import tables_of
from mechinterp.data.pairs import AnyPair
from mechinterp.data.storage.places import check_name
from mechinterp.data.storage.provenance import versions
from mechinterp.models.progress import Reporter
from mechinterp.models.text.chat import ChatChoice
from mechinterp.runs.candidate import Candidate
from mechinterp.runs.folder import RunFolder
from mechinterp.runs.one_format import described, in_one_format
from mechinterp.runs.workspace import Workspace, fingerprint_of_instances, fingerprint_of_judge, made_by


def attribute_checkpoints(
    base: Candidate,
    tuned: Sequence[Candidate],
    pairs: Sequence[AnyPair],
    judge: Judge | None,
    *,
    out: Path | None,
    settings: OriginsSettings | None = None,
    behaviour: Behaviour = UNSAFE,
    directions: Sequence[ToxicDirection] = (),
    position: WritePosition = "prompt_last",
    max_new_tokens: int = 32,
    seed: int = 0,
    truncate: bool = False,
    chat: ChatChoice | None = None,
    reporter: Reporter | None = None,
) -> RunFolder:
    """Share out the change of every checkpoint among its changed weights; what was measured before is not again.

    Args:
        base: the unedited model.
        tuned: what is set against it.
        pairs: prompts with both answers.
        judge: of the base's answers, which are read where they are unsafe; None to read the data's unsafe answers.
        out: folder for `tables`, `figures` and `manifest.json`; None for one that goes with what is returned.
        settings: see `OriginsSettings`.
        behaviour: what the judge judges, and the pairs are of.
        directions: along each of which the write is a read-out too, `write NAME`.
        position: where these are read.
        max_new_tokens: longest answer of the base that is judged.
        seed: of every random choice.
        truncate: cut prompts that exceed the context from the left, or raise.
        chat: which chat format all of them are read in, see `one_format`.
        reporter: told what is being done.

    Returns:
        The folder, with tables `origins`, `origins_blocks`, `origins_neurons` and `origins_controls`.

    Raises:
        InputError: for checkpoints that cannot be compared, a direction of other weights, or a place that is taken.
    """
    settings = settings or OriginsSettings()
    base, tuned = in_one_format(base, tuned, chat)
    work = Workspace(base, tuned, out=out, of="origins", purpose="measurement", reporter=reporter)
    for candidate in tuned:
        check_name(candidate.name, "checkpoint")
    RunFolder.check_free(work.folder, tables_of("origins"))
    work.check([text for pair in pairs for text in (pair.prompt, pair.unsafe, pair.safe)], truncate=truncate)
    with work.held():
        identity = work.identify(base)
        for direction in directions:
            direction.check(identity["weights"], base.source, identity["tokenizer"])
        asking: dict[str, Any] = {"prompts": settings.prompts, "seed": seed, "truncate": truncate}

        def ask() -> Mapping[str, Any]:
            if judge is None:
                return {"unsafe": [False] * len(pairs)}
            work.reporter.note("the base's own answers")
            return {"unsafe": answered_unsafely(work.open(base), pairs, judge, max_new_tokens=max_new_tokens, **asking)}

        data = [fingerprint_of_instances(pairs), identity, [max_new_tokens, asking]]
        asked_by = [made_by("mechinterp.audit.origins.asking"), data, judge and fingerprint_of_judge(judge)]
        unsafe = work.store.remember("answered_unsafely", asked_by, ask)["unsafe"]
        more = {f"write {direction.name}": write(direction.vector, position) for direction in directions}
        depends = [data, unsafe, [[d.name, d.vector.tolist()] for d in directions], position]
        tables = measured(work, pairs, unsafe, settings, more, depends=depends, seed=seed, truncate=truncate)
        config = {
            "checkpoints": {candidate.name: candidate.source for candidate in (base, *tuned)},
            "judge": judge and judge.name,
            "origins": settings.model_dump(),
            "directions": [direction.name for direction in directions],
            "position": position,
            "max_new_tokens": max_new_tokens,
            "truncate": truncate,
            "chat": described(base.chat),
            **behaviour.wording.config,
        }
        work.close()
        return work.publish(tables, config, seed=seed, versions=versions())


def measured(
    work: Workspace,
    pairs: Sequence[AnyPair],
    unsafe: Sequence[bool],
    settings: OriginsSettings,
    more: Mapping[str, Readout] | None = None,
    *,
    depends: Any,
    seed: int,
    truncate: bool,
) -> dict[str, pd.DataFrame]:
    """The tables of all tuned checkpoints of a workspace, each kept under everything that it depends on.

    Args:
        work: held.
        pairs: prompts with both answers.
        unsafe: whether the base answers each unsafely.
        settings: see `OriginsSettings`.
        more: further read-outs, by name.
        depends: what the texts and the further read-outs come from.
        seed: of every random choice.
        truncate: cut prompts that exceed the context from the left, or raise.
    """
    asked: list[Asked] = []

    def make(candidate: Candidate) -> Origins:
        base = work.open(work.base)
        if not asked:
            asked.append(
                Asked.of(
                    base,
                    pairs,
                    unsafe,
                    prompts=settings.prompts,
                    tokens=settings.tokens,
                    seed=seed,
                    truncate=truncate,
                )
            )
        tuned = work.open(candidate)
        progress = work.reporter.progress(f"origins: {candidate.name}")
        return origins_of(
            base,
            tuned,
            asked[0],
            method=candidate.name,
            settings=settings,
            more=more,
            seed=seed,
            progress=progress,
        )

    key = [made_by("mechinterp.audit.origins.measuring"), depends, settings.model_dump(mode="json"), seed, truncate]
    found = []
    with work.together():
        for candidate in work.tuned:
            own = [key, work.identify(candidate)]
            kept = work.store.keep("origins", own, load=Origins.load, make=partial(make, candidate))
            found.append(kept.named(candidate.name))
    return origins_tables(found)
