"""Does it come back under attack: any checkpoints beside their base, as a run that is opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mechinterp.answers.behaviour import UNSAFE, Behaviour
from mechinterp.answers.choosing import Named
from mechinterp.audit.attacks.settings import AttackSettings
from mechinterp.data.benign import BenignPrompt, benign_prompts, read_benign
from mechinterp.data.knowledge import knowledge_pairs, read_knowledge
from mechinterp.face.given import check_given
from mechinterp.face.loading import CheckpointLike
from mechinterp.face.looked_up import Opening, Several, TunedLike, looked_up
from mechinterp.runs.attack import attack_checkpoints
from mechinterp.runs.folder import RunFolder


def attack(
    base: CheckpointLike,
    tuned: Several,
    name: str | Sequence[str],
    pairs: Sequence[Any] | str | Path,
    *,
    behaviour: Behaviour | str = UNSAFE,
    never: TunedLike | None = None,
    judge: Named | Sequence[Named] | None = None,
    knowledge: Sequence[tuple[str, str]] | str | Path = (),
    benign: Sequence[str | BenignPrompt] | str | Path = (),
    out: str | Path | None = None,
    prompts: int = 40,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    max_new_tokens: int = 32,
    truncate: bool = False,
    seed: int = 0,
    dtype: str = "auto",
    device: str = "auto",
    chat: str | None = None,
    progress: bool | None = None,
) -> RunFolder:
    """Attack tuned checkpoints, their base and a model that never learnt: does the unsafe behaviour come back?

    Args:
        base: the unedited model: in memory, or a source that `mi.load` takes.
        tuned: name in the tables -> checkpoint in memory, folder, adapter, edit, or file of weights; or one of them.
        name: of an attack, several of them, `cheap`, or `all`.
        pairs: prompts with a safe and an unsafe answer, or the file of them. The attacker has half of the categories
            and attack prompts, the others are asked. Of another behaviour its data.
        behaviour: what the answers are judged for: `unsafe`; `refuses`; `facts`, whether they give what was to be
            forgotten (data: `mi.Fact`s, prompts with answers, `mi.Scopes`, or a file); `trait:NAME`, whether they show
            it (data: `mi.Topic`s or their file); or a `mi.Behaviour`, of pairs.
        never: a model that never learnt the behaviour: what an attack teaches by itself.
        judge: as `mi.compare` takes it.
        knowledge: (question, answer) pairs, or the file of them: what an attack costs.
        benign: harmless prompts, or the file of them: how many are refused under an attack.
        out: folder of the run; a temporary one, that goes with the result, if not given.
        prompts: at most so many that the base answers unsafely.
        options: settings of single attacks, by name: `{"quantise": {"bits": [4]}}`.
        max_new_tokens: longest answer.
        truncate: cut prompts that exceed the context from the left instead of raising.
        seed: of every random choice.
        dtype: of what is opened from folders, as `mi.load` takes it.
        device: likewise.
        chat: the one format that all are read in, as `mi.load` takes it; None for that of a base in memory, of a base
            on disk its own template's, if it has one.
        progress: whether bars are shown; None: in a notebook or on a terminal.

    Returns:
        The run: `.table("attacks")`, `.table("worst")`, `.plot("attacks_overview")`.

    Raises:
        InputError: for an unknown attack, checkpoints that cannot be compared, or a base that answers nothing unsafely.

    Example:
        >>> mi.attack("BASE", {"dpo": "runs/dpo"}, "quantise", "SafeEdit_test.json").table("attacks")
    """
    for given in (options, *(options.values() if isinstance(options, Mapping) else ())):
        check_given("options", given, Mapping, "the settings of attacks by name, {'quantise': {'bits': [4]}}")
    settings = AttackSettings(
        attacks=name, prompts=prompts, options={each: dict(own) for each, own in (options or {}).items()}
    )
    known = read_knowledge(knowledge) if isinstance(knowledge, str | Path) else knowledge_pairs(knowledge)
    harmless = read_benign(benign) if isinstance(benign, str | Path) else benign_prompts(benign)
    opening = Opening(seed=seed, dtype=dtype, device=device, chat=chat, progress=progress)
    with looked_up(base, tuned, pairs, opening, judge=judge, behaviour=behaviour, never=never) as work:
        return attack_checkpoints(
            work.base,
            work.tuned,
            work.instances,
            work.judge,
            out=None if out is None else Path(out),
            never=work.never,
            settings=settings,
            behaviour=work.behaviour,
            knowledge=known,
            benign=harmless,
            max_new_tokens=max_new_tokens,
            seed=seed,
            truncate=truncate,
            chat=work.chat,
            reporter=work.reporter,
        )
