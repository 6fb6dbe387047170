"""Negative preference optimisation (Zhang et al. 2024, arXiv 2404.05868): ascent that stops by itself.

    loss = (2 / beta) softplus(beta (log p(y|x) - log p_ref(y|x))) on the answers to forget, sums over their tokens,
           + retain_weight x (NLL, or KL from the model before) on those to keep

For beta to 0 it is gradient ascent; an answer that is far below the reference is pushed no more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import Field

from mechinterp.methods.method import Recipe
from mechinterp.methods.task import Task, Treatment
from mechinterp.methods.unlearning.losses import kl, nll, npo
from mechinterp.methods.unlearning.organism import ORGANISM
from mechinterp.methods.unlearning.settings import UnlearningSettings
from mechinterp.methods.unlearning.training import Term
from mechinterp.methods.unlearning.unlearned import Learning, unlearned, work_of
from mechinterp.methods.work import Texts, Work
from mechinterp.models.checkpoints import Checkpoint


class NpoSettings(UnlearningSettings):
    """Settings of NPO."""

    beta: float = Field(0.1, gt=0)
    retain: Literal["nll", "kl", "none"] = Field("nll", description="what is asked of the answers to keep")
    retain_weight: float = Field(1.0, ge=0)


def make_npo(checkpoint: Checkpoint, task: Task) -> Iterator[Treatment]:
    """One checkpoint in which some answers are less likely than before, and others as likely."""
    return unlearned("npo", checkpoint, task, NpoSettings, _terms, keeps=_keeps)


def _keeps(settings: NpoSettings) -> bool:
    return settings.retain != "none" and settings.retain_weight > 0


def _terms(learning: Learning[NpoSettings]) -> Sequence[Term]:
    settings, kept = learning.settings, learning.retain
    terms = [Term("forget", 1.0, learning.forget, npo(learning.forget, learning.reference, settings.beta))]
    if _keeps(settings):
        losses = nll(kept) if settings.retain == "nll" else kl(kept, learning.reference)
        terms.append(Term("retain", settings.retain_weight, kept, losses))
    return terms


def _work(settings: NpoSettings, texts: Texts) -> Work:
    return work_of(settings, texts, sets=1 + _keeps(settings), references=int(settings.retain == "kl"))


NPO = Recipe(make_npo, NpoSettings, organism=ORGANISM, work=_work)
