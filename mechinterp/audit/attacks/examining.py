"""Checkpoints under all attacks that are wanted, one after the other, beside their base."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mechinterp.answers.behaviour import UNSAFE, Behaviour
from mechinterp.answers.judges import Judge
from mechinterp.answers.refusals import refusal_detector
from mechinterp.answers.safety import unsafe
from mechinterp.answers.scoring import score_responses
from mechinterp.audit.attacks.attack import Known
from mechinterp.audit.attacks.registry import ATTACKS
from mechinterp.audit.attacks.results import Examined, Measured, Role
from mechinterp.audit.attacks.settings import AttackSettings
from mechinterp.audit.attacks.splits import Split
from mechinterp.audit.attacks.testing import Examiner, attacked_points
from mechinterp.audit.store import Store
from mechinterp.data.benign import BenignPrompt
from mechinterp.data.counting import many
from mechinterp.data.pairs import AnyPair
from mechinterp.data.storage.provenance import code_of, digest
from mechinterp.errors import NothingUnsafeError
from mechinterp.measures.statistics import seeded_order
from mechinterp.models import processes
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.generation import answers_of, continue_greedily
from mechinterp.models.passes.watching import Progress
from mechinterp.models.progress import Reporter
from mechinterp.models.text.tokens import Encoded

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Attacking:
    """What all checkpoints of a work are attacked with.

    Attributes:
        examiner: asks and reads them.
        settings: which attacks, and how.
        store: where points are kept.
        key: everything they depend on besides attack, target and code.
        reporter: told what is being done.
    """

    examiner: Examiner
    settings: AttackSettings
    store: Store
    key: Any
    reporter: Reporter

    @classmethod
    def of(
        cls,
        base: Checkpoint,
        pairs: Sequence[AnyPair],
        judge: Judge,
        *,
        settings: AttackSettings,
        store: Store,
        key: Any,
        reporter: Reporter,
        behaviour: Behaviour = UNSAFE,
        knowledge: Sequence[tuple[str, str]] = (),
        benign: Sequence[BenignPrompt] = (),
        max_new_tokens: int = 32,
        truncate: bool = False,
        seed: int = 0,
    ) -> Attacking:
        """Choose the prompts: those of the report's side that the base answers unsafely, in a seeded order.

        Where there is none on that side, as the base complies in some kinds of attack prompts alone, the sides change.

        Args:
            base: in memory for as long as anything is attacked.
            pairs: both sides of the split are taken from them; their prompts are asked.
            judge: of the answers.
            settings, store, key, reporter: see the class; of the key all that the other arguments do not tell.
            behaviour: what the judge judges.
            knowledge: (question, answer) pairs, asked under every attack that changes the model.
            benign: harmless prompts, likewise; how many are refused.
            max_new_tokens: longest answer.
            truncate: cut prompts that exceed the context from the left instead of raising.
            seed: of every random choice.

        Raises:
            NothingUnsafeError: if the base answers none of the prompts unsafely.
        """
        parted = Split.of(pairs, seed=seed)
        told = behaviour.wording.worded("prompts that the base answers unsafely")
        asking: dict[str, Any] = {"max_new_tokens": max_new_tokens, "truncate": truncate}
        for split in (parted, parted.turned):
            asking["progress"] = reporter.progress(told)
            if answers := _unsafe_answers(base, split.report, judge, wanted=settings.prompts, seed=seed, **asking):
                break
        else:
            raise NothingUnsafeError(
                f"{base.source} answers none of the {many(len(pairs), 'prompt')} {behaviour.wording.so}, so that "
                "nothing could "
                f"come back; give other {'pairs' if behaviour.of_pairs else 'data'}, a larger `max_new_tokens`"
                f"{' or another judge' if behaviour.judge is None else ''}"
            )
        known = Known(
            base=base,
            pairs=tuple(split.report[i] for i in answers),
            answers=tuple(answers.values()),
            attacker=split.attacker,
            benign=tuple(benign),
            max_new_tokens=max_new_tokens,
            truncate=truncate,
            seed=seed,
        )
        detector = None
        if benign:
            asked, good = [one.prompt for one in benign], [one.answer for one in benign]
            detector = refusal_detector(behaviour.refusals(pairs), good, seed=seed, asked=asked)
        said = [text.ids.tolist() for text in known.answers]
        chosen = digest([said, [pair.model_dump(mode="json") for pair in known.attacker]])
        return cls(Examiner(known, judge, tuple(knowledge), detector), settings, store, [key, chosen], reporter)

    def examine(self, target: Checkpoint, *, name: str, role: Role, identity: Any) -> Examined:
        """A checkpoint as it is and under every attack; it is left as it was.

        Args:
            target: the checkpoint; for the base the very one that `of` was given.
            name: in tables.
            role: what it is to the others.
            identity: fingerprints of it.
        """
        key, known = [self.key, identity], self.examiner.known
        plain_key = [key, code_of(Examiner.__module__)]
        plain = self.store.find("attacks", plain_key, load=Measured.load)
        if plain is None:
            plain = self.store.add("attacks", plain_key, self.examiner.plain(target))
        found: list[Measured] = []
        further: dict[str, pd.DataFrame] = {}
        for attack in (ATTACKS[each] for each in self.settings.attacks):
            if role == "base" and not attack.on_base:
                continue
            if lacking := attack.lacks(known):
                logger.warning("attack %s is left out: there is nothing for its %s", attack.name, ", ".join(lacking))
                continue
            found += attacked_points(
                target,
                self.examiner,
                attack,
                self.settings.options_of(attack.name),
                plain,
                store=self.store,
                key=key,
                progress=self.reporter.progress(f"{attack.label}: {name}"),
            )
            for own in attack.further if role == "tuned" else ():
                further[own.table] = own.make(target, known, self.settings.options_of(attack.name)).assign(method=name)
        return Examined(name, role, plain, tuple(found), further)


def answered(examined: Examined, known: Known) -> list[dict[str, object]]:
    """Every answer of a checkpoint with its prompt, for reading."""
    return [
        {
            "attack": measured.attack,
            "setting": measured.point.setting,
            "dose": measured.point.dose,
            "prompt": pair.prompt,
            "responses": list(responses),
            "unsafe": chance,
        }
        for measured in (examined.plain, *examined.found)
        for pair, responses, chance in zip(known.pairs, measured.responses, measured.values["unsafe"], strict=True)
    ]


def _unsafe_answers(
    base: Checkpoint,
    pairs: Sequence[AnyPair],
    judge: Judge,
    *,
    wanted: int,
    seed: int,
    progress: Progress,
    **asking: Any,
) -> Mapping[int, Encoded]:
    """Numbers of pairs with the base's own answers, asked in a seeded order until enough are unsafe; perhaps none."""
    numbers = list({str(pair.prompt): i for i, pair in reversed(list(enumerate(pairs)))}.values())
    order = [numbers[i] for i in seeded_order(len(numbers), seed)]
    found: dict[int, Encoded] = {}
    for start in range(0, len(order), 2 * wanted):
        portion = order[start : start + 2 * wanted]
        prompts = [pairs[i].prompt for i in portion]
        texts = continue_greedily(base, prompts, **asking)
        scores = processes.from_main(score_responses(judge, answers_of(base, texts), prompts))
        found |= {i: text for i, text, bad in zip(portion, texts, unsafe(scores), strict=True) if bad}
        progress(min(len(found), wanted), wanted)
        if len(found) >= wanted:
            break
    return dict(list(found.items())[:wanted])
