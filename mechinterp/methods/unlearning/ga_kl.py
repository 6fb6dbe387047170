"""Ascent on the answers to forget, and no other distributions on those to keep (KnowUnDo's GA+KL).

    loss = - forget_weight x NLL(forget) + retain_weight x KL(p_ref || p) over the tokens of the answers to keep

The released code takes a cross-entropy over all positions, padding and question included, whose gradient is that of the
divergence there; here only answers count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mechinterp.methods.method import Recipe
from mechinterp.methods.task import Task, Treatment
from mechinterp.methods.unlearning.grad_diff import GradDiffSettings, needs_kept
from mechinterp.methods.unlearning.losses import kl, nll
from mechinterp.methods.unlearning.organism import ORGANISM
from mechinterp.methods.unlearning.training import Term
from mechinterp.methods.unlearning.unlearned import Learning, unlearned, work_of
from mechinterp.methods.work import Texts, Work
from mechinterp.models.checkpoints import Checkpoint


class GaKlSettings(GradDiffSettings):
    """Settings of ascent with a divergence from the model before."""


def ga_kl(checkpoint: Checkpoint, task: Task) -> Iterator[Treatment]:
    """One checkpoint that was driven away from some answers and held to its own distributions on others."""
    return unlearned("ga_kl", checkpoint, task, GaKlSettings, _terms, keeps=needs_kept)


def _terms(learning: Learning[GaKlSettings]) -> Sequence[Term]:
    settings = learning.settings
    return [
        Term("forget", -settings.forget_weight, learning.forget, nll(learning.forget)),
        Term("retain", settings.retain_weight, learning.retain, kl(learning.retain, learning.reference)),
    ]


def _work(settings: GaKlSettings, texts: Texts) -> Work:
    return work_of(settings, texts, sets=2, references=1)


GA_KL = Recipe(ga_kl, GaKlSettings, organism=ORGANISM, work=_work)
