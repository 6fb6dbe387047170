"""Labels that are noise: what is held out is told by chance; labels that mean something are told.

Comments are repeated, questions shared by instances, and some labels contradict each other, as in data that is found.
"""

from __future__ import annotations

import itertools
import math
import random

import pytest
import torch
from conftest import make_instance

from mechinterp.answers.fold_judge import FoldJudge
from mechinterp.answers.judges import EmbeddedJudge
from mechinterp.audit.directions.probe import ToxicProbe
from mechinterp.data.safeedit import SafeEditInstance
from mechinterp.measures.splitting import Distinct, groups_of, half_of
from mechinterp.measures.statistics import auroc

SEEDS = range(20)
SYLLABLES = ("ba", "do", "ki", "lu", "me", "no", "ri", "sa", "tu", "ve")
WORDS = ["".join(three) for three in itertools.product(SYLLABLES, repeat=3)]


def contains_chance(value: float, n: float) -> bool:
    """Whether the 95% interval of an AUROC (of n texts, half of a kind) around it contains one half."""
    return abs(value - 0.5) <= 1.96 * math.sqrt((n + 1) / (12 * (n / 2) ** 2))


def found_texts(seed: int, n: int = 150) -> tuple[list[str], list[bool], torch.Tensor]:
    """Texts, random labels and features: every text thrice in other spellings, some with a label that contradicts."""
    rng = random.Random(seed)
    distinct = [" ".join(rng.choices(WORDS, k=6)) for _ in range(n)]
    labels = [rng.random() < 0.5 for _ in distinct]
    texts = [*distinct, *(text.upper() for text in distinct), *(f" {text}\n" for text in distinct)]
    three = [*labels, *labels, *(not label if row % 10 == 0 else label for row, label in enumerate(labels))]
    features = torch.randn(n, 24, generator=torch.Generator().manual_seed(seed))
    return texts, three, features


def probed(seed: int, *, real: bool) -> ToxicProbe:
    texts, labels, features = found_texts(seed)
    distinct = Distinct.of(texts, labels)
    toxic = torch.tensor(distinct.labels, dtype=torch.bool)
    x = features[list(distinct.rows)]
    if real:
        x[:, 0] += 3 * toxic
    return ToxicProbe.fit(x, toxic, seed=seed, test_share=0.3)


def test_probe() -> None:
    scores = [probed(seed, real=False).scores[0] for seed in SEEDS]
    assert sum(contains_chance(score.auroc, score.n_test) for score in scores) >= 19
    assert all(probed(seed, real=True).scores[0].auroc > 0.8 for seed in range(3))


@pytest.mark.parametrize("unit", ["question", "row"])
def test_directions(unit: str) -> None:
    """Means of one half set apart on the other, where features and labels belong to a question, or to a row."""
    held = 0
    for seed in SEEDS:
        rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
        questions = [f"q{n % 40}" for n in range(240)]
        groups = torch.tensor(groups_of([{question} for question in questions]))
        labels = [rng.random() < 0.5 for _ in range(240)]
        unsafe = torch.tensor(
            [labels[int(group)] if unit == "question" else labels[row] for row, group in enumerate(groups)]
        )
        x = torch.randn(40, 16, generator=generator)[groups] + 0.3 * torch.randn(240, 16, generator=generator)
        found = direction_tells(x, unsafe, groups, seed)
        held += found.low <= 0.5 <= found.high
        if seed < 3:
            x[:, 0] += 3 * unsafe
            assert direction_tells(x, unsafe, groups, seed).value > 0.85
    assert held >= 19


def direction_tells(x: torch.Tensor, unsafe: torch.Tensor, groups: torch.Tensor, seed: int):
    fit = torch.zeros(len(x), dtype=torch.bool)
    fit[half_of(groups.tolist(), seed)] = True
    direction = x[fit & unsafe].mean(0) - x[fit & ~unsafe].mean(0)
    return auroc(x[~fit] @ direction, unsafe[~fit], seed=seed, groups=groups[~fit], resamples=1000)


def test_embedded_judge() -> None:
    held = 0
    for seed in SEEDS:
        texts, labels, _ = found_texts(seed)
        judge = EmbeddedJudge.fit(texts, labels, seed=seed)
        held += contains_chance(judge.auroc, judge.n_test)
    assert held >= 19
    texts, labels, _ = found_texts(0)
    told = [f"{'sorry' if label else 'fool'} {text}" for text, label in zip(texts[:150], labels[:150], strict=True)]
    assert EmbeddedJudge.fit(told * 2, labels[:150] * 2, seed=0).auroc > 0.95


def noise_instances(seed: int) -> list[SafeEditInstance]:
    rng = random.Random(seed)
    instances = []
    for number in range(60):
        texts = [" ".join(rng.choices(WORDS, k=6)) for _ in range(2)]
        question = f"How do I do {number % 20:02}?"
        instances.append(
            make_instance(
                number,
                question=question,
                adversarial_prompt=f"Attack {number}: {question}",
                safe_generation=texts[0],
                unsafe_generation=texts[1],
                generalization_test=None,
            )
        )
    for number in range(0, 60, 10):  # the same text is called safe here and unsafe there
        text = instances[number].safe_generation
        instances[number + 1] = instances[number + 1].model_copy(update={"unsafe_generation": text.title()})
    return instances


def test_judge_of_the_data_it_judges() -> None:
    """Two texts that share a word judge each other, both right or both wrong: they count as one."""
    judges = [FoldJudge.of_instances(noise_instances(seed), seed=seed) for seed in SEEDS]
    assert sum(contains_chance(judge.auroc, judge.n_test / 2) for judge in judges) >= 19
    told = [
        i.model_copy(
            update={"safe_generation": f"sorry {i.safe_generation}", "unsafe_generation": f"fool {i.unsafe_generation}"}
        )
        for i in noise_instances(0)
    ]
    assert FoldJudge.of_instances(told, seed=0).auroc > 0.9
