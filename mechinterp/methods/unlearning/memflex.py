"""MemFlex: gradient difference where forgetting and keeping part (KnowUnDo, Tian et al. 2024, arXiv 2407.01920).

From GA+GD it differs in three things, of which the paper speaks of the first. Each can be switched off alone:

    where            only tensors that are located by their gradients (`region`)      locate: false
    learning rate    3e-4, the baselines have 5e-5                                    learning_rate: 5e-5
    weights          0.4 of the ascent, 2.0 of the fine-tuning                        forget_weight, retain_weight: 1

With all three off it is `grad_diff`, bit for bit. New adapters (`lora`) have no gradients to be located by, as their
second factors are zero: the maps that they go on are located, by the gradients of their weights.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Literal, Self

from pydantic import Field, model_validator

from mechinterp.data.scopes import Scopes
from mechinterp.errors import InputError
from mechinterp.measures.gradient_region import Thresholds
from mechinterp.methods.method import Recipe
from mechinterp.methods.task import Task, Treatment
from mechinterp.methods.training.trained_parameters import linear_maps, trained_parameters
from mechinterp.methods.unlearning.grad_diff import GradDiffSettings, needs_kept, terms_of, work
from mechinterp.methods.unlearning.organism import ORGANISM
from mechinterp.methods.unlearning.region import locate_by_gradient
from mechinterp.methods.unlearning.unlearned import unlearned
from mechinterp.models.checkpoints import Checkpoint


class MemFlexSettings(GradDiffSettings):
    """Settings of MemFlex; thresholds are quantiles, since those of the paper do not pass to other models."""

    learning_rate: float = Field(3e-4, gt=0)
    forget_weight: float = Field(0.4, ge=0, description="of the ascent")
    retain_weight: float = Field(2.0, ge=0, description="of the fine-tuning")
    locate: bool = Field(True, description="train only what is located; false: everything")
    region: tuple[str, ...] = Field((), description="tensors that were located before, by name; () to locate them")
    per: Literal["tensor", "block"] = Field("tensor", description="what is located")
    cosine: float | None = Field(0.5, description="mu: the cosine lies below; None for no such condition")
    magnitude: float | None = Field(0.5, description="sigma: the mean absolute gradient lies above; None likewise")
    quantiles: bool = Field(True, description="whether both are quantiles among the tensors")
    corrupt: float = Field(0.5, ge=0, le=1, description="share of an answer's tokens that are drawn anew")
    copies: int = Field(3, ge=1, description="of each text")

    @model_validator(mode="after")
    def _check_region(self) -> Self:
        if self.region and not self.locate:
            raise ValueError("`region` says what is trained, and `locate: false` that all is; leave one of them out")
        return self

    @model_validator(mode="after")
    def _check_thresholds(self) -> Self:
        try:
            self.thresholds()
        except InputError as error:
            raise ValueError(str(error)) from error
        return self

    def thresholds(self) -> Thresholds:
        """Which tensors are located."""
        return Thresholds(self.cosine, self.magnitude, self.quantiles)


def memflex(checkpoint: Checkpoint, task: Task) -> Iterator[Treatment]:
    """One checkpoint in which only what forgetting needs, and keeping does not, was trained."""
    return unlearned("memflex", checkpoint, task, MemFlexSettings, terms_of, keeps=needs_kept, region=region_of)


def region_of(checkpoint: Checkpoint, scopes: Scopes, settings: MemFlexSettings, task: Task) -> Collection[str] | None:
    """Names of the tensors that are trained: those of `region`, or those located now; None for all."""
    if not settings.locate:
        return None
    if settings.region:
        return settings.region
    names: Collection[str] | None = None
    if settings.adapter is None:
        names = trained_parameters(checkpoint, only=settings.only, freeze=settings.freeze)
        if settings.lora is not None:
            names = [f"{path}.weight" for path in linear_maps(checkpoint, frozenset(names))]
    found = locate_by_gradient(
        checkpoint,
        scopes.forget,
        scopes.kept("memflex"),
        per=settings.per,
        thresholds=settings.thresholds(),
        corrupt=settings.corrupt,
        copies=settings.copies,
        settings=settings,
        parameters=names,
        seed=task.seed,
        progress=task.progress("memflex: locating"),
    )
    task.note(f"memflex: {len(found.names)} of {len(found.table)} {settings.per}s are located")
    return found.parameters


MEMFLEX = Recipe(memflex, MemFlexSettings, organism={**ORGANISM, "learning_rate": 1.8e-3}, work=work)
