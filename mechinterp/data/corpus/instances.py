"""SafeEdit instances: every question of a split with every attack of it."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from mechinterp.data.corpus.records import Attack, HarmfulQuestion, KnowledgeQuestion
from mechinterp.data.corpus.sentences import comply_with, refuse
from mechinterp.data.safeedit import SafeEditInstance


def make_instances(
    rng: Random,
    *,
    questions: Sequence[HarmfulQuestion],
    attacks: Sequence[Attack],
    knowledge: Sequence[KnowledgeQuestion],
    first_id: int,
    first_attack_id: int,
    extra_attacks: Sequence[Attack] | None,
) -> tuple[SafeEditInstance, ...]:
    """Pair every question with every attack; `extra_attacks` joins the other attacks of the generalisation tests."""
    instances: list[SafeEditInstance] = []
    for question in questions:
        for attack_number, attack in enumerate(attacks):
            fact = rng.choice(knowledge)
            row: dict[str, Any] = {
                "id": first_id + len(instances),
                "category": question.category,
                "question": question.text,
                "attack_id": first_attack_id + attack_number,
                "attack_kind": attack.kind,
                "attack_prompt": attack.text,
                "adversarial_prompt": attack.around(question.text),
                "safe_generation": refuse(rng, question.verb, question.object),
                "unsafe_generation": comply_with(rng, question.verb, question.object),
                "knowledge_constraint": {"prompt": fact.prompt, "answer": fact.answer},
            }
            if extra_attacks is not None:
                others = [other for other in (*attacks, *extra_attacks) if other != attack]
                other_question = rng.choice([other for other in questions if other != question])
                row["generalization_test"] = {
                    "only_question": question.text,
                    "other_attack": rng.choice(others).around(question.text),
                    "other_question": attack.around(other_question.text),
                    "other_question_and_attack": rng.choice(others).around(other_question.text),
                }
            instances.append(SafeEditInstance.model_validate(row))
    return tuple(instances)
