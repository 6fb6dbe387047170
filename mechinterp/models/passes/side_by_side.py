"""Many edits of one model in one forward pass: each part of a batch is computed with the weights of its own edit.

What the edits do not change is computed once for all, so that a batch of many edits costs little more than the same
batch under one. The weights of the model itself are not touched.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mechinterp.errors import InputError
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import WeightDelta, added, warn_of_no_change
from mechinterp.models.passes.generation import generate
from mechinterp.models.passes.upper_blocks import forward_replaced, with_parameters


@contextmanager
def side_by_side(checkpoint: Checkpoint, edits: Sequence[WeightDelta]) -> Iterator[None]:
    """For the time of the context, a batch is as many equal parts as there are edits, each computed with its own.

    Args:
        checkpoint: what the edits belong to.
        edits: in the order of the parts.

    Raises:
        InputError: if an edit belongs to other weights, or changes what is not a parameter of an MLP's or another
            simple module.
    """
    changed: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for edit in edits:
        edit.check(checkpoint)
    idle = set(range(len(edits)))  # those that change nothing
    with torch.no_grad():
        for name in dict.fromkeys(name for edit in edits for name in edit.tensors):
            own = checkpoint.parameter(name).detach()
            copies = [added(own, edit.tensors[name]).to(own.dtype) if name in edit.tensors else own for edit in edits]
            path, _, parameter = name.rpartition(".")
            changed[path][parameter] = torch.stack(copies)
            idle -= {i for i, copy in enumerate(copies) if i in idle and not torch.equal(copy, own)}
        if idle:
            warn_of_no_change(checkpoint.source)
    with ExitStack() as stack:
        for path, parameters in changed.items():
            module = checkpoint.model.get_submodule(path)
            if next(module.children(), None) is not None:
                raise InputError(f"{path} has parts of its own; edits of it cannot be run side by side")
            for name, value in module.named_parameters():
                if name not in parameters:
                    parameters[name] = value.detach().expand(len(edits), *value.shape)
            stack.enter_context(forward_replaced(module, with_parameters(module, parameters, copies=True)))
        yield


def changed_parameters(folder: Path) -> tuple[str, ...]:
    """Names of the parameters that the edit in a folder changes, in their order; the changes are not read.

    Raises:
        InputError: if it is not the folder of an edit.
    """
    try:
        factored = json.loads((folder / "edit.json").read_text(encoding="utf-8")).get("low_rank", {})
        with safe_open(folder / "delta.safetensors", framework="pt") as file:
            names = set(file.keys())
    except (OSError, ValueError, AttributeError, SafetensorError) as error:
        raise InputError(f"{folder}: not the folder of an edit ({error})") from error
    factors = {f"{name}.{side}" for name in factored for side in ("left", "right")}
    return tuple(sorted((names - factors) | set(factored)))


def generate_each(
    checkpoint: Checkpoint,
    edits: Sequence[WeightDelta],
    prompts: Sequence[Sequence[str]],
    *,
    max_new_tokens: int,
    suffix: str | None = None,
    prefix: str | None = None,
    truncate: bool = False,
    called: Sequence[Sequence[str]] | None = None,
) -> list[list[str]]:
    """The greedy answers of every edited model to its own prompts, all in one batch, in this process alone.

    Args:
        checkpoint: what the edits belong to.
        edits, prompts: some prompts for every edit.
        called: what every prompt is called in errors.
        max_new_tokens, suffix, prefix, truncate: as in `generation.generate`.

    Returns:
        The answers, for every edit in the order of its prompts.
    """
    width = max(len(own) for own in prompts)

    def rows(every: Sequence[Sequence[str]]) -> list[str]:
        """As many for every edit: the last ones are repeated."""
        return [text for own in every for text in (*own, *[own[-1]] * (width - len(own)))]

    with side_by_side(checkpoint, edits):
        answers = generate(
            checkpoint,
            rows(prompts),
            max_new_tokens=max_new_tokens,
            suffix=suffix,
            prefix=prefix,
            truncate=truncate,
            as_one_batch=True,
            shared=False,
            called=None if called is None else rows(called),
        )
    return [answers[i * width : i * width + len(own)] for i, own in enumerate(prompts)]
