"""Circuits of a base and of any number of checkpoints on the same pairs of prompts: two models in memory at a time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mechinterp.answers.behaviour import UNSAFE, Behaviour
from mechinterp.audit.circuits.finding import Asked, Finding
from mechinterp.audit.circuits.places import check_architecture
from mechinterp.audit.circuits.settings import CircuitSettings
from mechinterp.audit.tables.registry import tables_of
from mechinterp.data.facts.fact import Fact
from mechinterp.data.facts.files import read_facts
from mechinterp.data.prompt_pairs import PromptPair
from mechinterp.data.storage.places import check_free, check_name
from mechinterp.data.storage.provenance import versions
from mechinterp.errors import InputError
from mechinterp.models import processes
from mechinterp.models.progress import Reporter
from mechinterp.models.text.chat import ChatChoice
from mechinterp.runs.candidate import Candidate
from mechinterp.runs.folder import RunFolder
from mechinterp.runs.one_format import described, in_one_format
from mechinterp.runs.workspace import Workspace

TABLES = tables_of("circuits", optional=True)


def find_circuits(
    base: Candidate,
    tuned: Sequence[Candidate],
    asked: Asked,
    *,
    out: Path | None,
    settings: CircuitSettings | None = None,
    behaviour: Behaviour = UNSAFE,
    seed: int = 0,
    truncate: bool = False,
    chat: ChatChoice | None = None,
    reporter: Reporter | None = None,
) -> RunFolder:
    """Score the edges of a base and of tuned checkpoints; what was measured before is not again.

    Args:
        base: the unedited model, in whose behaviour pairs are matched.
        tuned: what is set against it; may be none.
        asked: pairs of a prompt with an unsafe and a safe answer, of which pairs of prompts are matched; pairs of
            prompts; or facts.
        out: folder for `tables`, `figures`, `circuits` and `manifest.json`; None for one that goes with what is
            returned.
        settings: see `CircuitSettings`.
        behaviour: what pairs of a prompt with both answers are of.
        seed: of random circuits, and of draws of pairs.
        truncate: cut prompts that exceed the context from the left, or raise.
        chat: which chat format all of them are read in, see `one_format`.
        reporter: told what is being done.

    Returns:
        The folder, with the tables `TABLES`, and in `circuits/NAME` the scores of all edges (`EdgeScores.load`).

    Raises:
        InputError: for checkpoints that cannot be compared, an architecture for which circuits are not defined, or
            prompts of which there are no pairs.
    """
    settings = settings or CircuitSettings()
    if not asked:
        raise InputError("there is nothing to find a circuit of; give pairs or facts")
    base, tuned = in_one_format(base, tuned, chat)
    work = Workspace(base, tuned, out=out, of="circuits", purpose="circuits", reporter=reporter)
    names = [check_name(candidate.name, "checkpoint") for candidate in (base, *tuned)]
    check_architecture(base.skeleton)
    RunFolder.check_free(work.folder, TABLES)
    check_free(*(work.folder / "circuits" / name for name in names))
    work.check(_texts(asked), truncate=truncate)
    with work.held(), work.together():
        finding = Finding.of(
            work.open(base),
            asked,
            settings=settings,
            store=work.store,
            identity=work.identify(base),
            reporter=work.reporter,
            wording=behaviour.wording,
            seed=seed,
            truncate=truncate,
        )
        found = {base.name: finding.circuit(base.name, work.identify(base))}
        for candidate in tuned:
            opened = partial(work.open, candidate)
            found[candidate.name] = finding.circuit(candidate.name, work.identify(candidate), opened)
        tables = finding.tables(found)
        if processes.is_main():
            for name, each in found.items():
                each.scores.save(work.folder / "circuits" / name)
        config = {
            "checkpoints": {candidate.name: candidate.source for candidate in (base, *tuned)},
            "circuits": settings.model_dump(mode="json"),
            "of": type(asked[0]).__name__,
            "truncate": truncate,
            "chat": described(base.chat),
            **behaviour.wording.config,
        }
        work.close()
        return work.publish(tables, config, seed=seed, versions=versions())


def asked_about(behaviour: Behaviour, data: Any) -> Asked:
    """What circuits of a behaviour are of: pairs of it; of facts these themselves, with the answer to be forgotten.

    Args:
        behaviour: which.
        data: its own, or the file of them; of a behaviour of pairs these.

    Raises:
        InputError: for facts that are prompts with answers: a circuit of a fact sets its subject beside another.
    """
    if not behaviour.about_facts:
        return behaviour.pairs(data)
    facts = read_facts(data) if isinstance(data, str | Path) else data
    if not isinstance(facts, Sequence) or not all(isinstance(each, Fact) for each in facts):
        raise InputError("a circuit of facts sets a subject beside another; give mi.Fact, with subject and template")
    return [fact.unchanged for fact in facts]


def check_behaviour(behaviour: Behaviour, *, facts: bool) -> None:
    """Raise `InputError` for a behaviour beside what says by itself what is right: facts, or pairs of prompts."""
    if behaviour.wording != UNSAFE.wording:
        what = "facts are" if facts else "pairs of prompts with right and wrong answers are"
        raise InputError(f"{what} of no `behaviour`; leave it out")


def _texts(asked: Asked) -> list[str]:
    found: list[str] = []
    for each in asked:
        if isinstance(each, Fact):
            found += [each.text, each.answer]
        elif isinstance(each, PromptPair):
            found += [each.clean, each.corrupted, *each.right, *each.wrong]
        else:
            found += [each.prompt, each.unsafe, each.safe]
    return found
