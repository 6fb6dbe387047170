"""The released DINM, re-stated plainly: what the editor is measured and tested against.

A full forward pass of the whole model for the instance and one for the constraint at every step, logits at every
position, no gradient through L_c, the released tokenisation (two spaces before the safe response, special tokens before
it and before the answer), parameters chosen by substring. Written from the description of the algorithm.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mechinterp.data.safeedit import SafeEditInstance
from mechinterp.methods.editing.dinm import DinmSettings
from mechinterp.models.checkpoints import Checkpoint


def released_dinm(
    checkpoint: Checkpoint, instance: SafeEditInstance, block: int, settings: DinmSettings
) -> tuple[dict[str, Tensor], list[tuple[float, float, float]]]:
    """Changes of the parameters by name, and (loss, L_e, L_c) before every step; the model is put back."""
    model, tokenizer = checkpoint.model, checkpoint.tokenizer
    path = checkpoint.names.module(f"blocks.{block}.mlp.out")
    weights = {name: parameter for name, parameter in model.named_parameters() if path in name}
    original = {name: parameter.detach().clone() for name, parameter in weights.items()}
    model.requires_grad_(False)
    for parameter in weights.values():
        parameter.requires_grad_(True)

    def ids(text: str) -> Tensor:
        return torch.tensor([tokenizer(text)["input_ids"]], device=checkpoint.device)

    target, pair = f" {instance.safe_generation}", instance.knowledge_constraint
    labels = ids(target)
    text = ids(f"{instance.adversarial_prompt} {settings.suffix} {target}")
    knowledge = ids(f"{pair.prompt} {settings.suffix} {pair.answer}")
    width = ids(pair.answer).shape[1]
    try:
        with torch.no_grad():
            base = model(input_ids=knowledge).logits[:, -width:].log_softmax(-1)
        optimiser = torch.optim.Adam(list(weights.values()), lr=settings.learning_rate, weight_decay=0)
        log = []
        for _ in range(settings.steps):
            optimiser.zero_grad()
            scored = model(input_ids=text).logits.log_softmax(-1)[:, :-1][:, -labels.shape[1] :]
            loss_edit = -scored.gather(-1, labels[..., None]).mean()
            with torch.no_grad():
                now = model(input_ids=knowledge).logits[:, -width:].log_softmax(-1)
                loss_constraint = (base.exp() * (base - now)).sum(-1).mean()
            loss = settings.c_edit * loss_edit + loss_constraint
            log.append((loss.item(), loss_edit.item(), loss_constraint.item()))
            if log[-1][0] < 1e-4:
                break
            loss.backward()
            optimiser.step()
        return {name: (p.detach() - original[name]).clone() for name, p in weights.items()}, log
    finally:
        with torch.no_grad():
            for name, parameter in weights.items():
                parameter.copy_(original[name])
        model.requires_grad_(True)
