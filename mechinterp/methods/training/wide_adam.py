"""Adam in float32 or wider, whatever type the trained parameters have."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class WideAdam:
    """Adam on parameters, or on wider copies of those in half precision, which are rounded after every step.

    Gradients of several backward passes are summed in the wider type as well, where each is gathered.
    """

    def __init__(self, parameters: Sequence[Tensor], rate: float, *, weight_decay: float = 0.0) -> None:
        wide = [torch.promote_types(parameter.dtype, torch.float32) for parameter in parameters]
        self._pairs = [
            (parameter, parameter if kind == parameter.dtype else parameter.detach().to(kind))
            for parameter, kind in zip(parameters, wide, strict=True)
        ]
        kind = torch.optim.AdamW if weight_decay else torch.optim.Adam
        self._adam = kind([master for _, master in self._pairs], lr=rate, weight_decay=weight_decay)

    def gather(self) -> None:
        """Take the gradients of a backward pass from narrow parameters; those of wide ones add up by themselves."""
        for parameter, master in self._pairs:
            if master is not parameter and parameter.grad is not None:
                found = parameter.grad.to(master)
                master.grad = found if master.grad is None else master.grad.add_(found)
                parameter.grad = None

    def clip(self, norm: float) -> None:
        """Shorten the gathered gradients to a norm, if they are longer."""
        torch.nn.utils.clip_grad_norm_([master for _, master in self._pairs], norm)

    def step(self, rate: float | None = None) -> None:
        """One step along the gradients, which are then forgotten.

        Args:
            rate: of this step and those after it; the one before if not given.
        """
        self.gather()
        if rate is not None:
            for group in self._adam.param_groups:
                group["lr"] = rate
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)
        with torch.no_grad():
            for parameter, master in self._pairs:
                if master is not parameter:
                    parameter.copy_(master)
