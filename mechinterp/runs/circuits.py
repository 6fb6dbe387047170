"""Circuits of a base and of any number of checkpoints on the same pairs of prompts: two models in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from mechinterp.answers.behaviour import UNSAFE, Behaviour
from mechinterp.answers.wording import UNSAFELY, Wording
from mechinterp.audit.circuits.matching import MatchedPair, behaviour_pairs, fact_pairs, given_pairs
from mechinterp.audit.circuits.means import held_apart
from mechinterp.audit.circuits.measuring import CheckpointCircuit, circuit_of_base, circuit_of_tuned
from mechinterp.audit.circuits.places import check_architecture
from mechinterp.audit.circuits.settings import CircuitSettings
from mechinterp.audit.circuits.tables import circuit_tables
from mechinterp.data.counting import many
from mechinterp.data.facts.fact import Fact
from mechinterp.data.facts.files import read_facts
from mechinterp.data.pairs import AnyPair
from mechinterp.data.prompt_pairs import PromptPair
from mechinterp.data.storage.places import check_free, check_name
from mechinterp.data.storage.provenance import digest, versions
from mechinterp.errors import InputError
from mechinterp.models import processes
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.watching import Progress
from mechinterp.models.progress import Reporter
from mechinterp.models.text.chat import ChatChoice
from mechinterp.runs.candidate import Candidate
from mechinterp.runs.folder import RunFolder
from mechinterp.runs.one_format import described, in_one_format
from mechinterp.runs.workspace import Workspace, made_by

Asked = Sequence[AnyPair] | Sequence[PromptPair] | Sequence[Fact]
"""What circuits are of: a behaviour, pairs of prompts as they were written, or facts."""

TABLES = (
    *("circuits", "circuit_faithfulness", "circuit_edges", "circuit_nodes", "circuit_ranks", "circuit_pairs"),
    "circuit_overlap",
)


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
        pairs, held_out = matched(work.open(base), asked, settings, wording=behaviour.wording, truncate=truncate)
        beside = f"; the mean is of {many(len(held_out), 'other')}" if held_out else ""
        work.reporter.note(f"{many(len(pairs), 'pair')} of prompts, {_apart(pairs)}{beside}")
        tokens, others = ([pair.tokens for pair in some] for some in (pairs, held_out))
        code = [made_by("mechinterp.audit.circuits.measuring"), settings.model_dump(mode="json"), seed]
        key = [code, digest([[asdict(pair) for pair in some] for some in (tokens, others)]), work.identify(base)]
        found: dict[str, CheckpointCircuit] = {}
        for candidate in (base, *tuned):

            def make(candidate: Candidate = candidate) -> CheckpointCircuit:
                known: dict[str, Any] = {"held_out": others, "seed": seed}
                known["reported"] = partial(_reported, work.reporter, candidate.name)
                if candidate is base:
                    return circuit_of_base(work.open(base), tokens, settings, **known)
                return circuit_of_tuned(work.open(base), work.open(candidate), tokens, settings, **known)

            own = [key, work.identify(candidate), candidate is base]
            found[candidate.name] = work.store.keep("circuits", own, load=CheckpointCircuit.load, make=make)
        tuned_found = {candidate.name: found[candidate.name] for candidate in tuned}
        tables = circuit_tables(found[base.name], tuned_found, pairs, settings, seed=seed)
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
    return [replace(fact, target_new="") if fact.ground_truth else fact for fact in facts]


def check_behaviour(behaviour: Behaviour, *, facts: bool) -> None:
    """Raise `InputError` for a behaviour beside what says by itself what is right: facts, or pairs of prompts."""
    if behaviour.wording != UNSAFE.wording:
        what = "facts are" if facts else "pairs of prompts with right and wrong answers are"
        raise InputError(f"{what} of no `behaviour`; leave it out")


def matched(
    base: Checkpoint,
    asked: Asked,
    settings: CircuitSettings,
    *,
    wording: Wording = UNSAFELY,
    truncate: bool = False,
) -> tuple[list[MatchedPair], list[MatchedPair]]:
    """Pairs of prompts of what is asked, in the base's tokens and by its behaviour; and those held out for the mean.

    Raises:
        InputError: if there are none.
    """
    held = settings.replace == "mean"
    sizes: dict[str, Any] = {"tokens": settings.tokens, "most": 2 * settings.pairs if held else settings.pairs}
    found = _matched(base, asked, wording=wording, truncate=truncate, **sizes)
    if not held:
        return found, []
    apart = held_apart([pair.tokens for pair in found])
    measured, others = ([pair for pair, out in zip(found, apart, strict=True) if out is of] for of in (False, True))
    return measured, others


def _matched(base: Checkpoint, asked: Asked, *, tokens: int, most: int, **more: Any) -> list[MatchedPair]:
    facts = [each for each in asked if isinstance(each, Fact)]
    if facts:
        return fact_pairs(base, facts, most=most)
    given = [each for each in asked if isinstance(each, PromptPair)]
    if given:
        return given_pairs(base, given[:most])
    pairs = [each for each in asked if not isinstance(each, Fact | PromptPair)]
    return behaviour_pairs(base, pairs, tokens=tokens, most=most, **more)


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


def _apart(pairs: Sequence[MatchedPair]) -> str:
    found = [pair.tokens.differences for pair in pairs]
    least, most = min(found), max(found)
    several = f"{least} to {most}" if least < most else str(most)
    return f"which differ in {several} token{'s' if most > 1 else ''}"


def _reported(reporter: Reporter, name: str, what: str) -> Progress:
    told: Callable[..., None] = reporter.progress(f"{what}: {name}")
    return told
