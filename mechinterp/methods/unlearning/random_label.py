"""Random labels: fine-tuning on wrong tokens in the places of the right ones (KnowUnDo's baselines).

    random        ids drawn uniformly, once for each text, special ones left out
    adversarial   the most probable token but the right one, of the model before

KnowUnDo trains the first on all positions that are not special, the question's included; `positions` says which.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from pydantic import Field

from mechinterp.methods.method import Recipe
from mechinterp.methods.task import Task, Treatment
from mechinterp.methods.unlearning.corrupted import Vocabulary
from mechinterp.methods.unlearning.losses import IGNORED, nll
from mechinterp.methods.unlearning.organism import ORGANISM
from mechinterp.methods.unlearning.settings import UnlearningSettings
from mechinterp.methods.unlearning.training import Term
from mechinterp.methods.unlearning.unlearned import Learning, unlearned, work_of
from mechinterp.methods.work import Texts, Work
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.scoring import answer_logits, in_batches
from mechinterp.models.text.tokens import Encoded


class RandomLabelSettings(UnlearningSettings):
    """Settings of random labels."""

    labels: Literal["random", "adversarial"] = "random"
    positions: Literal["all", "answer"] = Field("all", description="which tokens are replaced as labels")


def random_label(checkpoint: Checkpoint, task: Task) -> Iterator[Treatment]:
    """One checkpoint that was fine-tuned to say other tokens; nothing is kept on purpose."""
    return unlearned("random_label", checkpoint, task, RandomLabelSettings, _terms, keeps=lambda settings: False)


def _terms(learning: Learning[RandomLabelSettings]) -> Sequence[Term]:
    settings, texts = learning.settings, learning.forget
    if settings.positions == "all":  # all that anything predicts: the first token stands after nothing
        texts = [Encoded.of(text.ids, 1) for text in texts]
    if settings.labels == "random":
        labels = random_labels(texts, Vocabulary.of(learning.reference), learning.seed)
    else:
        labels = adversarial_labels(learning.reference, texts)
    return [Term("forget", 1.0, texts, nll(texts, labels))]


def random_labels(texts: Sequence[Encoded], vocabulary: Vocabulary, seed: int) -> list[list[int]]:
    """For each token after the prompt one that is drawn uniformly; nothing (`IGNORED`) for special ones."""
    draw = vocabulary.drawing(seed)
    return [
        [IGNORED if token in vocabulary.special else draw() for token in text.ids[text.prompt_length :]]
        for text in texts
    ]


@torch.no_grad()
def adversarial_labels(checkpoint: Checkpoint, texts: Sequence[Encoded]) -> list[list[int]]:
    """For each token after the prompt the most probable other one; nothing (`IGNORED`) for special ones."""
    special = Vocabulary.of(checkpoint).special

    def measure(some: Sequence[Encoded]) -> list[list[int]]:
        logits, answers = answer_logits(checkpoint, some)
        right = torch.tensor([token for answer in answers for token in answer], device=logits.device)
        likely = logits.clone().scatter_(1, right[:, None], -torch.inf).argmax(1)
        others = [part.tolist() for part in likely.cpu().split([len(answer) for answer in answers])]
        return [
            [IGNORED if token in special else other for token, other in zip(answer, found, strict=True)]
            for answer, found in zip(answers, others, strict=True)
        ]

    return in_batches(checkpoint, texts, measure, shared=False)


def _work(settings: RandomLabelSettings, texts: Texts) -> Work:
    return work_of(settings, texts, sets=1, references=0)


RANDOM_LABEL = Recipe(random_label, RandomLabelSettings, organism=ORGANISM, work=_work)
