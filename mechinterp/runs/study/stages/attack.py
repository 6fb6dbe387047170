"""Stage `attack`: the tuned checkpoints, the vanilla model and one that never learnt, where there is one, attacked."""

from __future__ import annotations

from mechinterp.answers.behaviour import UNSAFE
from mechinterp.audit.attacks.examining import Attacking
from mechinterp.audit.attacks.results import Role
from mechinterp.audit.attacks.tables import attack_tables
from mechinterp.audit.store import Store
from mechinterp.data.storage.files import remove
from mechinterp.data.storage.provenance import digest, library_versions
from mechinterp.errors import NothingUnsafeError
from mechinterp.models.progress import Reporter
from mechinterp.runs.study.checkpoints import checkpoint_of, opened
from mechinterp.runs.study.instances import instances_of
from mechinterp.runs.study.judging import judge_of
from mechinterp.runs.study.questions import asked_knowledge, benign_of
from mechinterp.runs.study.run import Run
from mechinterp.runs.study.splits import about_of

BENIGN = 20
"""Harmless prompts asked under every attack that changes the model."""


def make(run: Run, reporter: Reporter) -> None:
    """`attacks.csv`, `worst.csv`, tables of single attacks; points of a stage that was stopped are not made again.

    None where the vanilla model says nothing unsafe: that is a finding, told by the other tables, and no fault.
    """
    try:
        _attack(run, reporter)
    except NothingUnsafeError as nothing:
        reporter.note(f"no attack: {nothing}")


def _attack(run: Run, reporter: Reporter) -> None:
    config, vanilla, judge = run.config, checkpoint_of(run, "vanilla"), judge_of(run)
    settings, pairs, knowledge = config.attack, instances_of(run, "test"), asked_knowledge(run)
    benign = benign_of(run)[:BENIGN]
    asked = [pairs, knowledge, benign, settings.prompts, config.max_new_tokens, config.truncate, run.seed]
    kept = Store(run.folder / "attacks")
    attacking = Attacking.of(
        vanilla,
        pairs,
        judge,
        settings=settings,
        store=kept,
        key=[
            library_versions(),
            digest(repr(asked)),
            judge.name,
            getattr(judge, "fingerprint", ""),
            vanilla.fingerprint,
        ],
        reporter=reporter,
        behaviour=about_of(config) or UNSAFE,
        knowledge=knowledge,
        benign=benign,
        max_new_tokens=config.max_new_tokens,
        truncate=config.truncate,
        seed=run.seed,
    )
    examined = [attacking.examine(vanilla, name="base", role="base", identity=vanilla.fingerprint)]
    for name in (*(["never"] if config.has_never else []), *config.studied):
        role: Role = "never" if name == "never" else "tuned"
        with opened(run, name) as target:
            examined.append(attacking.examine(target, name=name, role=role, identity=target.fingerprint))
    tables = attack_tables(examined, attacking.examiner.known.pairs, settings.losses, seed=run.seed)
    for name, table in tables.items():
        run.write_table(name, table)
    remove(kept.folder)
