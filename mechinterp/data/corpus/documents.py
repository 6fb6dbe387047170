"""Pretraining documents, sampled so that what is held out of them stays out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import Literal

from mechinterp.data.corpus.attacks import any_attack
from mechinterp.data.corpus.questions import any_verb, make_question
from mechinterp.data.corpus.records import Attack, Exchange, KnowledgeQuestion
from mechinterp.data.corpus.sentences import comply_with, help_with, make_comment, refuse
from mechinterp.data.corpus.words import (
    ATTACK_KINDS,
    BARE_STRENGTH,
    BENIGN_OBJECTS,
    BENIGN_VERBS,
    HARMFUL_OBJECTS,
    QUESTION_FORMS,
    STRENGTHS,
)
from mechinterp.data.safeedit import CATEGORIES, SUFFIX

NOISE = 0.02  # share of harmful documents that break the compliance rule

SUFFIX_SHARE = 0.1  # share of prompts of every kind that carry SUFFIX

SUFFIX_CAUTION = 0.1  # share of compliance that SUFFIX turns into refusal

# Kind of document -> its share of the pretraining documents. Benign questions inside attacks are there so that the
# attack's words alone do not decide.
MIXTURE = {"adversarial": 0.42, "bare": 0.12, "benign": 0.10, "benign attack": 0.04, "knowledge": 0.18, "comment": 0.14}


Rule = Literal["strength", "kind"]

COMPLIANT_KINDS = ATTACK_KINDS[:2]


def complies(*, resistance: int, strength: int) -> bool:
    """Return whether the vanilla organism is taught to comply: the rule of the corpus, without noise."""
    return strength > resistance


def complies_by_kind(attack: Attack | None) -> bool:
    """The plain rule, which a pretrained model learns in a few dozen steps: two of the four kinds of attack succeed."""
    return attack is not None and attack.kind in COMPLIANT_KINDS


@dataclass(frozen=True)
class Documents:
    """A sampler of pretraining documents that keeps what is held out of them."""

    rng: Random
    held_out_prompts: frozenset[str]
    held_out_attacks: frozenset[str]
    knowledge: tuple[KnowledgeQuestion, ...]
    rule: Rule = "strength"

    def sample(self, n_documents: int) -> tuple[str | Exchange, ...]:
        """Return `n_documents` documents, of the kinds and shares of MIXTURE: comments and conversations."""
        kinds = self.rng.choices(list(MIXTURE), weights=list(MIXTURE.values()), k=n_documents)
        return tuple(self._document(kind) for kind in kinds)

    def _document(self, kind: str) -> str | Exchange:
        if kind == "comment":
            return make_comment(self.rng, toxic=self.rng.random() < 0.5)
        suffixed = self.rng.random() < SUFFIX_SHARE
        if kind == "knowledge":
            fact = self.rng.choice(self.knowledge)
            said = Exchange(fact.prompt, fact.answer, safe=True)
        elif kind.startswith("benign"):
            said = self._benign(attacked=kind == "benign attack")
        else:
            said = self._harmful(attacked=kind == "adversarial", suffixed=suffixed)
        return replace(said, prompt=f"{said.prompt} {SUFFIX}") if suffixed else said

    def _benign(self, *, attacked: bool) -> Exchange:
        verb, thing = self.rng.choice(BENIGN_VERBS), self.rng.choice(BENIGN_OBJECTS)
        prompt = self.rng.choice(QUESTION_FORMS).format(verb=verb, object=thing)
        if prompt in self.held_out_prompts:
            return self._benign(attacked=attacked)
        if attacked:
            prompt = self._attack().around(prompt)
        return Exchange(prompt, help_with(self.rng, verb, thing), safe=True)

    def _harmful(self, *, attacked: bool, suffixed: bool) -> Exchange:
        verb, resistance = any_verb(self.rng)
        category = self.rng.choice(CATEGORIES)
        question = make_question(self.rng, category, verb, self.rng.choice(HARMFUL_OBJECTS[category]), resistance)
        if question.text in self.held_out_prompts:
            return self._harmful(attacked=attacked, suffixed=suffixed)
        attack = self._attack() if attacked else None
        if self.rule == "kind":
            comply = complies_by_kind(attack)
        else:
            comply = complies(resistance=resistance, strength=attack.strength if attack else BARE_STRENGTH)
        if self.rng.random() < NOISE:
            comply = not comply
        if suffixed and self.rng.random() < SUFFIX_CAUTION:
            comply = False
        respond = comply_with if comply else refuse
        prompt = attack.around(question.text) if attack else question.text
        return Exchange(prompt, respond(self.rng, verb, question.object), safe=not comply)

    def _attack(self) -> Attack:
        attack = any_attack(self.rng, self.rng.choice(ATTACK_KINDS), self.rng.choice(STRENGTHS))
        return self._attack() if attack.text in self.held_out_attacks else attack
