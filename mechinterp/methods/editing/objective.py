"""What an edit descends: L_e and L_c of some instances as functions of the trained parameters.

    L_e = mean over tokens of Y_safe of -log P(token | [X; S], earlier tokens)
    L_c = mean over the answer tokens of the knowledge pair of KL between edited and unedited next-token distributions

Where L_c has no gradient (the released code) it steers nothing: what enters the unembedding is kept, and L_c of all
steps is computed in one product at the end, or as soon as the stop test may need it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from mechinterp.data.pairs import AnyPair
from mechinterp.methods.editing.settings import DinmSettings
from mechinterp.methods.editing.texts import constraint_text, edit_text
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.upper_blocks import Component, Upward

_ROWS = 512  # unembedded at a time when L_c is computed late


@dataclass
class Losses:
    """L_e, L_c and the token accuracy of some instances."""

    settings: DinmSettings
    edited: Upward
    labels: Int[Tensor, " scored"]
    constrained: Upward | None
    base: Float[Tensor, "answer vocabulary"] | None = None
    waiting: list[Float[Tensor, "answer d_model"]] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        checkpoint: Checkpoint,
        instances: Sequence[AnyPair],
        blocks: Sequence[int],
        component: Component,
        settings: DinmSettings,
    ) -> Losses:
        """Run the texts through the lower blocks, once.

        Raises:
            InputError: for a text that does not fit, or blocks that cannot be edited so.
        """
        texts = [edit_text(checkpoint, instance, settings) for instance in instances]
        answers = [constraint_text(checkpoint, instance, settings) for instance in instances if settings.use_constraint]
        labels = torch.tensor([label for text in texts for label in text.labels], device=checkpoint.device)
        edited = Upward(checkpoint, blocks, texts, component, exact=settings.released)
        if not answers:
            return cls(settings, edited, labels, None)
        constrained = Upward(checkpoint, blocks, answers, component)
        if settings.released:  # before the first step the parameters are the base's
            return cls(settings, edited, labels, constrained)
        with torch.no_grad():
            base = constrained(own_parameters(checkpoint, blocks, component)).float().log_softmax(-1)
        return cls(settings, edited, labels, constrained, base)

    @property
    def late(self) -> bool:
        """Whether L_c is not computed step by step."""
        return self.settings.released and self.constrained is not None

    def of_edit(
        self, parameters: Mapping[str, Tensor], *, copies: bool
    ) -> tuple[Float[Tensor, " instance"], Float[Tensor, " instance"]]:
        """L_e and the token accuracy of every instance, in float32."""
        logits = self.edited(parameters, copies=copies).float()
        labels = self.labels.to(logits.device)[:, None]
        loss = -_means(logits.log_softmax(-1).gather(-1, labels)[:, 0], self.edited.lengths)
        with torch.no_grad():
            right = logits.gather(-1, labels)[:, 0] == logits.amax(-1)
            return loss, _means(right.float(), self.edited.lengths)

    def of_constraint(self, parameters: Mapping[str, Tensor], *, copies: bool) -> Float[Tensor, " instance"] | None:
        """L_c of every instance, in float32; None where there is none, or it is `late`."""
        if self.constrained is None:
            return None
        if self.late:
            with torch.no_grad():
                self.waiting.append(self.constrained.before_unembedding(parameters, copies=copies))
            return None
        assert self.base is not None
        return self._divergence(self.constrained(parameters, copies=copies).float().log_softmax(-1), self.base)

    @torch.no_grad()
    def settle(self) -> Float[Tensor, "step instance"]:
        """L_c of every step so far, where it is `late`."""
        assert self.constrained is not None
        rows, found = len(self.waiting[0]), []
        base = self.constrained.unembedded(self.waiting[0]).float().log_softmax(-1)
        several = max(1, _ROWS // rows)
        for start in range(0, len(self.waiting), several):
            logits = self.constrained.unembedded(torch.cat(self.waiting[start : start + several]))
            found += [self._divergence(part.float().log_softmax(-1), base) for part in logits.split(rows)]
        return torch.stack(found)

    def _divergence(
        self, now: Float[Tensor, "answer vocabulary"], base: Float[Tensor, "answer vocabulary"]
    ) -> Float[Tensor, " instance"]:
        """KL of every instance, in the order of the settings."""
        assert self.constrained is not None
        by_default = "base||edited" if self.settings.released else "edited||base"
        reverse = (self.settings.kl_direction or by_default) == "base||edited"
        first, second = (base, now) if reverse else (now, base)
        divergence = functional.kl_div(second, first, log_target=True, reduction="none").sum(-1)
        return _means(divergence, self.constrained.lengths)


def own_parameters(checkpoint: Checkpoint, blocks: Sequence[int], component: Component) -> dict[str, Tensor]:
    """The model's own parameters of the component in some blocks, by their names."""
    paths = [checkpoint.names.module(f"blocks.{block}.{component}") for block in blocks]
    return {
        f"{path}.{name}": value.detach()
        for path in paths
        for name, value in checkpoint.model.get_submodule(path).named_parameters()
    }


def _means(values: Float[Tensor, " scored"], lengths: Sequence[int]) -> Float[Tensor, " instance"]:
    return torch.stack([part.mean() for part in values.split(list(lengths))])
