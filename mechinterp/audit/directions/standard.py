"""The directions along which writes are measured.

    probe        the toxic probe's direction
    answer       mean unembedding row of the first tokens of unsafe answers minus that of safe answers, times the final
                 norm's gain: along it the residual stream moves the log-odds of starting an unsafe answer, through the
                 direct path and up to the norm's scale on that input
    class_means  mean residual stream before the final norm at the last prompt token, prompts the base answers unsafely
                 minus prompts it answers safely

Others that a user may want are made in `audit.directions.making`.

The decomposition holds for any direction; it explains a method only along one that is in play.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mechinterp.audit.directions.making import difference_of_means
from mechinterp.audit.directions.probe import ToxicProbe
from mechinterp.audit.directions.toxic_direction import ToxicDirection
from mechinterp.data.counting import parted
from mechinterp.data.pairs import AnyPair
from mechinterp.errors import InputError
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.feeding import ANY_LENGTH, as_fed
from mechinterp.models.unembedding import back_through_final_norm, unembedding

_logger = logging.getLogger(__name__)

DIRECTIONS = ("probe", "answer", "class_means")
"""Those that every comparison has, or has where they exist."""

PER_PROMPT = "per_prompt"
"""The name in tables of a direction of each prompt's own (`of_prompts`)."""


@torch.no_grad()
def answer_direction(checkpoint: Checkpoint, instances: Sequence[AnyPair]) -> Float[Tensor, " d_model"]:
    """The read-out that decides between starting an unsafe and a safe answer.

    Args:
        checkpoint: the base; its unembedding and final norm are used.
        instances: their safe and unsafe responses give the first tokens, each weighed by how often it occurs.

    Raises:
        InputError: if safe and unsafe responses start with the same tokens equally often.
    """
    rows = unembedding(checkpoint)
    means = []
    for texts in ([i.unsafe for i in instances], [i.safe for i in instances]):
        first = torch.tensor(first_tokens(checkpoint, instances, texts), device=rows.device)
        means.append(rows[first].float().mean(0))
    difference = means[0] - means[1]
    if difference.norm() < 1e-6 * means[0].norm():
        raise InputError("safe and unsafe responses start with the same tokens; there is no answer direction")
    return back_through_final_norm(checkpoint, difference)


def first_tokens(checkpoint: Checkpoint, instances: Sequence[AnyPair], responses: Sequence[str]) -> list[int]:
    """The first token of each response after the adversarial prompt of its instance."""
    prompts = [instance.prompt for instance in instances]
    # the context is no limit here: nothing is run
    texts = as_fed(checkpoint, prompts, responses, max_length=ANY_LENGTH)
    return [text.ids[text.prompt_length] for text in texts]


def class_means_direction(
    checkpoint: Checkpoint, prompts: Sequence[str], unsafe: Bool[Tensor, " input"], *, truncate: bool = False
) -> Float[Tensor, " d_model"]:
    """Difference of class means of the last residual stream at the last prompt token.

    Args:
        prompts: texts.
        unsafe: whether the checkpoint answers each unsafely.
        truncate: cut prompts that exceed the context from the left instead of raising.

    Raises:
        InputError: if it answers all alike.
    """
    if unsafe.all() or not unsafe.any():
        raise InputError("the base answers all prompts alike; there are no two classes to take the means of")
    positive, negative = parted(prompts, unsafe.tolist())
    return difference_of_means(checkpoint, positive, negative, block=checkpoint.n_blocks - 1, truncate=truncate)


def find_directions(
    checkpoint: Checkpoint,
    probe: ToxicProbe,
    instances: Sequence[AnyPair],
    unsafe: Bool[Tensor, " input"],
    *,
    more: Sequence[ToxicDirection] = (),
    truncate: bool = False,
) -> Mapping[str, Float[Tensor, " d_model"]]:
    """All directions that exist for a base: `probe`, `class_means` where it answers both ways, and `more`.

    And `answer`, where safe and unsafe answers start otherwise; of facts, and of opinions, they need not.

    Raises:
        InputError: for a probe or direction of another model, or two directions of one name.
    """
    check_more(more, checkpoint.names.d_model, checkpoint.source)
    if len(probe.direction) != checkpoint.names.d_model:
        raise InputError(
            f"the probe has {len(probe.direction)} dimensions, {checkpoint.source} has {checkpoint.names.d_model}; "
            "make a probe for this model with `mechinterp probe`"
        )
    directions = {"probe": probe.direction}
    try:
        directions["answer"] = answer_direction(checkpoint, instances)
    except InputError as nothing:
        _logger.warning("%s: nothing is measured along it", nothing)
    if unsafe.any() and not unsafe.all():
        prompts = [instance.prompt for instance in instances]
        directions["class_means"] = class_means_direction(checkpoint, prompts, unsafe, truncate=truncate)
    return directions | {direction.name: direction.vector for direction in more}


def check_more(more: Sequence[ToxicDirection], width: int, source: str) -> None:
    """Raise `InputError` for directions of another width, or of a name that occurs twice or is taken."""
    names = [direction.name for direction in more]
    for direction in more:
        direction.check_width(width, source)
        if direction.name in (*DIRECTIONS, PER_PROMPT) or names.count(direction.name) > 1:
            raise InputError(f"two directions are called {direction.name!r}; give NAME=FILE with a name of its own")
