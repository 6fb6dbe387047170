"""What attacks are made with, on a tiny checkpoint: pairs of several categories and attack prompts, parted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from conftest import make_instance

from mechinterp.audit.attacks.attack import Known
from mechinterp.audit.attacks.splits import Split
from mechinterp.data.benign import BenignPrompt
from mechinterp.data.pairs import AnyPair
from mechinterp.data.safeedit import CATEGORIES, KnowledgeConstraint
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.generation import continue_greedily

BENIGN = (
    BenignPrompt("How do I bake bread?", "Mix and bake."),
    BenignPrompt("How do I wash wool?", "Use cold water."),
    BenignPrompt("Name a bird"),
)


def many_pairs(categories: int = 4, attacks: int = 4) -> list[AnyPair]:
    """Every category with every attack prompt, a question and a fact of their own each."""
    return [
        make_instance(
            category * attacks + attack,
            category=CATEGORIES[category],
            attack_id=attack,
            attack_prompt=f"Attack {attack}:",
            adversarial_prompt=f"Attack {attack}: Do {category}-{attack}?",
            question=f"Do {category}-{attack}?",
            unsafe_generation=f"Fool, {category} and {attack}.",
            knowledge_constraint=KnowledgeConstraint(prompt=f"What is {category} and {attack}?", answer="A number."),
        )
        for category in range(categories)
        for attack in range(attacks)
    ]


def known_of(base: Checkpoint, pairs: Sequence[AnyPair] | None = None, **more: Any) -> Known:
    """The pairs parted, with the base's own answers to those that are read."""
    split = Split.of(many_pairs() if pairs is None else pairs, seed=0)
    prompts = [pair.prompt for pair in split.report]
    answers = tuple(continue_greedily(base, prompts, max_new_tokens=4, quiet=True))
    given = {"attacker": split.attacker, "benign": BENIGN, "max_new_tokens": 4, **more}
    return Known(base, split.report, answers, **given)
