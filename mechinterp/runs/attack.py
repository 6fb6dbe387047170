"""Attacks on any number of checkpoints, on their base, and on one that never learnt: two models in memory at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from mechinterp.answers.behaviour import UNSAFE, Behaviour
from mechinterp.answers.judges import Judge
from mechinterp.audit.attacks.examining import Attacking, answered
from mechinterp.audit.attacks.registry import ATTACKS
from mechinterp.audit.attacks.results import Examined, Role
from mechinterp.audit.attacks.settings import AttackSettings
from mechinterp.audit.attacks.tables import attack_tables, names_of_tables
from mechinterp.data.benign import BenignPrompt
from mechinterp.data.pairs import AnyPair
from mechinterp.data.storage.places import check_name
from mechinterp.data.storage.provenance import digest, library_versions, versions
from mechinterp.errors import InputError
from mechinterp.models.progress import Reporter
from mechinterp.models.text.chat import ChatChoice
from mechinterp.runs.candidate import Candidate
from mechinterp.runs.folder import RunFolder
from mechinterp.runs.one_format import described, in_one_format
from mechinterp.runs.workspace import Workspace, fingerprint_of_instances, fingerprint_of_judge


def attack_checkpoints(
    base: Candidate,
    tuned: Sequence[Candidate],
    pairs: Sequence[AnyPair],
    judge: Judge,
    *,
    out: Path | None,
    never: Candidate | None = None,
    settings: AttackSettings | None = None,
    behaviour: Behaviour = UNSAFE,
    knowledge: Sequence[tuple[str, str]] = (),
    benign: Sequence[BenignPrompt] = (),
    max_new_tokens: int = 32,
    seed: int = 0,
    truncate: bool = False,
    chat: ChatChoice | None = None,
    reporter: Reporter | None = None,
) -> RunFolder:
    """Attack checkpoints; a point that was made before is not made again.

    Args:
        base: the unedited model.
        tuned: what is attacked, beside the base.
        pairs: half of their categories and attack prompts are the attacker's, the others are asked; see `Split`.
        judge: of the answers.
        out: folder for `tables`, `figures`, `answers` and `manifest.json`; None for one that goes with what is
            returned.
        never: a model that never learnt the behaviour, attacked likewise.
        settings: which attacks, and how.
        behaviour: what the judge judges, and the pairs are of.
        knowledge: (question, answer) pairs: what an attack costs.
        benign: harmless prompts: how many are refused under an attack.
        max_new_tokens: longest answer.
        seed: of every random choice.
        truncate: cut prompts that exceed the context from the left, or raise.
        chat: which chat format all of them are read in, see `one_format`.

    Returns:
        The folder, with tables `attacks`, `worst` and those that single attacks leave.

    Raises:
        InputError: for no attack, checkpoints that cannot be compared, or a base that answers no prompt unsafely.
    """
    settings = settings or AttackSettings()
    if not settings.attacks:
        raise InputError(f"there is no attack to make; name some of {', '.join(ATTACKS)}, or `cheap` or `all`")
    others = [*tuned, *([] if never is None else [never])]
    base, others = in_one_format(base, others, chat)
    work = Workspace(base, others, out=out, of="attack", purpose="attacks", reporter=reporter)
    names = [check_name(candidate.name, "checkpoint") for candidate in (base, *others)]
    RunFolder.check_free(work.folder, names_of_tables(settings.attacks), answers=names)
    work.check([pair.prompt for pair in pairs], truncate=truncate)
    with work.held(), work.together():
        asked = [digest(list(knowledge)), digest([asdict(one) for one in benign]), settings.prompts]
        asked += [max_new_tokens, truncate, seed]
        key = [library_versions(), fingerprint_of_instances(pairs), fingerprint_of_judge(judge), asked]
        attacking = Attacking.of(
            work.open(base),
            pairs,
            judge,
            settings=settings,
            store=work.store,
            key=[*key, work.identify(base)],
            reporter=work.reporter,
            behaviour=behaviour,
            knowledge=knowledge,
            benign=benign,
            max_new_tokens=max_new_tokens,
            truncate=truncate,
            seed=seed,
        )
        examined: list[Examined] = []
        for candidate in (base, *others):
            target, identity = work.open(candidate), work.identify(candidate)
            role: Role = "base" if candidate is base else "tuned" if candidate in others[: len(tuned)] else "never"
            examined.append(attacking.examine(target, name=candidate.name, role=role, identity=identity))
        known = attacking.examiner.known
        tables = attack_tables(examined, known.pairs, settings.losses, seed=seed)
        config = {
            "checkpoints": {candidate.name: candidate.source for candidate in (base, *others)},
            "never": None if never is None else never.name,
            "judge": judge.name,
            "attack": settings.model_dump(mode="json"),
            "max_new_tokens": max_new_tokens,
            "truncate": truncate,
            "chat": described(base.chat),
            **behaviour.wording.config,
        }
        answers = {one.name: answered(one, known) for one in examined}
        return work.publish(tables, config, answers=answers, seed=seed, versions=versions())
