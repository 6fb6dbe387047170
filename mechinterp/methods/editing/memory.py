"""About how much memory edits take beside the model, and how much they may."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mechinterp.data.pairs import AnyPair
from mechinterp.methods.editing.settings import DinmSettings
from mechinterp.methods.editing.texts import edit_texts
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.upper_blocks import Component

MEMORY = 2**31  # bytes that edits may take on a CPU


def allowed(checkpoint: Checkpoint) -> int:
    """Bytes that edits may take: half of what is free on a GPU."""
    if checkpoint.device.type == "cuda":
        return torch.cuda.mem_get_info(checkpoint.device)[0] // 2
    return MEMORY


def bytes_of_edit(
    checkpoint: Checkpoint,
    instance: AnyPair,
    blocks: Sequence[int],
    settings: DinmSettings,
    component: Component,
) -> tuple[int, int]:
    """Tokens of an instance's text, and about how many bytes its edit takes.

    Six copies of the trained weights (values, gradients, two moments, and two for arithmetic), four of the logits, and
    in blocks below the last what a training step keeps of every block above.
    """
    texts, names = edit_texts(checkpoint, instance, settings), checkpoint.names
    weights = sum(
        parameter.numel()
        for block in blocks
        for parameter in checkpoint.module(f"blocks.{block}.{component}").parameters()
    )
    scored, tokens = sum(len(text.positions) for text in texts), sum(len(text.ids) for text in texts)
    widths = _widths(checkpoint, blocks)
    above = tokens * (names.n_blocks - 1 - min(blocks)) * (12 * names.d_model + 4 * max(widths))
    wide = 4 * (6 * weights + 4 * scored * _vocabulary(checkpoint) + above + tokens * sum(widths))
    return len(texts[0].ids), wide


def bytes_kept(
    checkpoint: Checkpoint, instances: Sequence[AnyPair], blocks: Sequence[int], settings: DinmSettings
) -> int:
    """About how many bytes `Losses` of these instances hold from step to step.

    The streams in front of the trained matrix at every position (above the last block the scored ones), and, where L_c
    has a gradient, the unedited model's distributions over the answers.
    """
    last, width = min(blocks) == checkpoint.names.n_blocks - 1, sum(_widths(checkpoint, blocks))
    vocabulary = 0 if settings.released else _vocabulary(checkpoint)
    numbers = 0
    for instance in instances:
        texts = edit_texts(checkpoint, instance, settings)
        numbers += width * sum(len(text.positions if last else text.ids) for text in texts)
        numbers += vocabulary * sum(len(text.positions) for text in texts[1:])
    return 4 * numbers


def _widths(checkpoint: Checkpoint, blocks: Sequence[int]) -> tuple[int, ...]:
    """d_model and d_mlp, in the order of the value matrix's shape."""
    return checkpoint.shapes[checkpoint.names.value_parameter(blocks[0])[0]]


def _vocabulary(checkpoint: Checkpoint) -> int:
    return int(checkpoint.model.config.get_text_config().vocab_size)
