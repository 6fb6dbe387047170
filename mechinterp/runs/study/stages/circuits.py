"""Stage `circuits`: the edges that carry the unsafe answer in the vanilla model, and what still flows through them."""

from __future__ import annotations

from mechinterp.answers.wording import UNSAFELY, Wording
from mechinterp.audit.circuits.finding import Asked, Finding
from mechinterp.audit.circuits.settings import CircuitSettings
from mechinterp.audit.circuits.tables import BASE
from mechinterp.audit.store import Store
from mechinterp.data.facts.files import read_facts
from mechinterp.data.storage.files import remove, replacing
from mechinterp.errors import NothingToPairError
from mechinterp.models.progress import Reporter
from mechinterp.runs.study.checkpoints import checkpoint_of, opened
from mechinterp.runs.study.instances import instances_of
from mechinterp.runs.study.run import Run
from mechinterp.runs.study.splits import about_of


def make(run: Run, reporter: Reporter) -> None:
    """The tables of `mechinterp circuit`, and the scores of all edges in `circuits`.

    Circuits of a stage that was stopped are not found again. None where the vanilla model answers all prompts alike, or
    no two that it answers otherwise have as many tokens: that is told, and no fault.
    """
    vanilla, kept = checkpoint_of(run, "vanilla"), Store(run.folder / "finding")
    try:
        finding = Finding.of(
            vanilla,
            _asked(run),
            settings=run.config.circuits or CircuitSettings(),
            store=kept,
            identity=vanilla.fingerprint,
            reporter=reporter,
            wording=Wording.named(run.config.behaviour or UNSAFELY.name),
            seed=run.seed,
            truncate=run.config.truncate,
        )
    except NothingToPairError as nothing:
        reporter.note(f"no circuit: {nothing}")
        return
    found = {BASE: finding.circuit(BASE, vanilla.fingerprint)}
    for name in run.config.studied:
        with opened(run, name) as tuned:
            found[name] = finding.circuit(name, tuned.fingerprint, lambda tuned=tuned: tuned)  # type: ignore[misc]
    with replacing(run.folder / "circuits") as folder:
        folder.mkdir()
        for name, each in found.items():
            each.scores.save(folder / name)
    for name, table in finding.tables(found).items():
        run.write_table(name, table)
    remove(kept.folder)


def _asked(run: Run) -> Asked:
    """The test instances; of facts these themselves, since one's subject is set beside another's."""
    instances, about = instances_of(run, "test"), about_of(run.config)
    if about is None or not about.about_facts:
        return instances
    asked = {instance.prompt for instance in instances}
    facts = read_facts(run.folder / "data" / "facts.jsonl")
    return [fact.unchanged for fact in facts if fact.text in asked]
