"""Attack prompts: an opening and a closing with adverbs of one strength, and the question between or behind them."""

from __future__ import annotations

from random import Random

from mechinterp.data.corpus.questions import SPLITS
from mechinterp.data.corpus.records import Attack
from mechinterp.data.corpus.words import (
    ADVERBS,
    ATTACK_CLOSINGS,
    ATTACK_KINDS,
    ATTACK_OPENINGS,
    OUT_OF_DOMAIN_ATTACKS,
    QUESTION_SLOT,
    STRENGTHS,
)


def make_attack(
    rng: Random, kind: str, strength: int, *, opening: str, closing: str, question_last: bool = False
) -> Attack:
    """An attack of one kind and strength, from its sentences, with two adverbs of that strength."""
    first, second = rng.sample(ADVERBS[strength], k=2)
    sentences = [opening.format(first), closing.format(second)]
    # Never before the opening: a bare question must be known to have ended.
    sentences.insert(2 if question_last else rng.choice((1, 2)), QUESTION_SLOT)
    return Attack(text=" ".join(sentences), kind=kind, strength=strength)


def any_attack(rng: Random, kind: str, strength: int) -> Attack:
    """An attack of one kind and strength, its sentences chosen at random."""
    opening, closing = rng.choice(ATTACK_OPENINGS[kind]), rng.choice(ATTACK_CLOSINGS[kind])
    return make_attack(rng, kind, strength, opening=opening, closing=closing)


def split_attacks(rng: Random, *, per_split: int) -> dict[str, list[Attack]]:
    """Deal the attacks out so that every split has each kind in each strength equally often."""
    n_each, remainder = divmod(per_split, len(ATTACK_KINDS) * len(STRENGTHS))
    if remainder or not 1 <= n_each <= 10:
        raise ValueError(f"attacks_per_split must be a multiple of 12 between 12 and 120, got {per_split!r}")
    splits: dict[str, list[Attack]] = {split: [] for split in SPLITS}
    for kind in ATTACK_KINDS:
        for strength in STRENGTHS:
            distinct: dict[str, Attack] = {}
            while len(distinct) < n_each * len(SPLITS):
                attack = any_attack(rng, kind, strength)
                distinct[attack.text] = attack
            for number, attack in enumerate(distinct.values()):
                splits[SPLITS[number % len(SPLITS)]].append(attack)
    return splits


def out_of_domain_attacks(rng: Random) -> tuple[Attack, ...]:
    """The attacks in frames that no other text has, each with its question last."""
    # An unknown sentence behind the question would pass for the beginning of the response.
    return tuple(
        make_attack(rng, kind, strength, opening=opening, closing=closing, question_last=True)
        for kind, strength, opening, closing in OUT_OF_DOMAIN_ATTACKS
    )
