"""Directions of a model that are made on request, each a `ToxicDirection` that says how.

    means      mean residual stream over a concept's positive texts minus that over its negative ones
    svd        a singular vector of the value vectors closest to a direction (Lee et al. 3.1)
    effective  a direction of a read-out after the final norm, pulled back through the norm's gain

A direction that separates texts, or that many value vectors share, need not be one that the model decides by.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor

from mechinterp.audit.directions.toxic_direction import ToxicDirection
from mechinterp.audit.top_vectors import Weights, find_vectors
from mechinterp.data.concepts import Concept
from mechinterp.errors import InputError
from mechinterp.measures.value_vectors import Ranking
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.names import resid_post
from mechinterp.models.passes.recording import record
from mechinterp.models.unembedding import back_through_final_norm


def difference_of_means(
    checkpoint: Checkpoint,
    positive: Sequence[str],
    negative: Sequence[str],
    *,
    block: int,
    position: Literal["last", "mean"] = "last",
    truncate: bool = False,
    without_sinks: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Float[Tensor, " d_model"]:
    """Mean residual stream after a block over some texts minus that over others, float32; see `means_direction`.

    Raises:
        InputError: if activations are not finite.
    """
    hook, means, done = resid_post(block), [], 0
    settings: dict[str, Any] = {"position": position, "truncate": truncate, "without_sinks": without_sinks}
    for texts in (positive, negative):

        def advance(some: int, _: int, before: int = done) -> None:
            if progress is not None:
                progress(before + some, len(positive) + len(negative))

        found = record(checkpoint, texts, [hook], groups=1, progress=advance, **settings)
        if bad := found.non_finite[hook]:
            raise InputError(
                f"{checkpoint.source}: {bad} values at {hook} are NaN or infinite; is the checkpoint damaged, or "
                "float16 too narrow?"
            )
        means.append(found.mean(hook))
        done += len(texts)
    return (means[0] - means[1]).float()


def means_direction(
    checkpoint: Checkpoint,
    concept: Concept,
    *,
    block: int | None = None,
    position: Literal["last", "mean"] = "last",
    truncate: bool = False,
    without_sinks: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> ToxicDirection:
    """Mean residual stream over a concept's positive texts minus that over its negative ones.

    Args:
        checkpoint: the model.
        concept: its texts; memory does not grow with their number.
        block: after which the stream is read, from 0; the last (before the final norm) if not given.
        position: `last`, the last token of each text, or `mean`, the mean over its tokens.
        truncate: cut texts that exceed the context from the left instead of raising.
        without_sinks: leave tokens with massive activations out of every text's mean.
        progress: called with (texts done, texts in all).

    Returns:
        A direction called by the concept's name; the length of the difference is kept.

    Raises:
        InputError: for a block or position that does not exist, activations that are not finite, or no difference.
    """
    if position not in ("last", "mean"):
        raise InputError(f"position must be last or mean, got {position!r}")
    block = checkpoint.n_blocks - 1 if block is None else checkpoint.names.check_block(block)
    found = difference_of_means(
        checkpoint,
        concept.positive,
        concept.negative,
        block=block,
        position=position,
        truncate=truncate,
        without_sinks=without_sinks,
        progress=progress,
    )
    settings: dict[str, Any] = {
        "concept": concept.name,
        "n_positive": len(concept.positive),
        "n_negative": len(concept.negative),
        "block": block,
        "position": position,
    }
    if without_sinks:
        settings["without_sinks"] = True
    return ToxicDirection(
        found, "means", concept.name, checkpoint.fingerprint, settings, checkpoint.tokenizer_fingerprint
    )


def svd_direction(
    weights: Weights,
    direction: ToxicDirection,
    *,
    component: int = 1,
    top: int = 128,
    by: Ranking = "cosine",
    progress: Callable[[int, int], None] | None = None,
) -> ToxicDirection:
    """A singular vector of the base's value vectors closest to a direction (Lee et al.'s SVD.U_toxic).

    Args:
        weights: the base: a model, or the files of one.
        direction: the toxic direction that ranks them.
        component: which singular vector, from 1.
        top: value vectors.
        by: `cosine` or `projection`.
        progress: called with (blocks done, blocks in all).

    Raises:
        InputError: if the direction belongs to other weights, or there are fewer components.
    """
    direction.check(weights.fingerprint, weights.names.source)
    direction.check_width(weights.names.d_model, weights.names.source)
    listed = find_vectors(
        weights, {direction.name: direction.vector}, top=top, tokens=0, rankings=[by], progress=progress
    )
    found = listed.subspaces[direction.name].components
    if not 1 <= component <= len(found):
        raise InputError(f"the component must be from 1 to {len(found)}, got {component}")
    settings = {"of": direction.name, "component": component, "top": top, "ranking": by}
    name = f"{direction.name}_svd{component}"
    vector = found[component - 1].float()
    return ToxicDirection(vector, "svd", name, weights.fingerprint, settings, direction.tokenizer)


def effective_direction(weights: Weights, direction: ToxicDirection) -> ToxicDirection:
    """A read-out's direction pulled back through the final norm's gain, see `back_through_final_norm`.

    What is written along it before the final norm moves the read-out along `direction` after it.

    Raises:
        InputError: if the direction belongs to other weights, or nothing of it passes the norm.
    """
    direction.check(weights.fingerprint, weights.names.source)
    direction.check_width(weights.names.d_model, weights.names.source)
    vector = back_through_final_norm(weights, direction.vector)
    settings = {"of": direction.name, "of_kind": direction.kind, **direction.settings}
    return replace(
        direction,
        vector=vector,
        kind="effective",
        name=f"{direction.name}_effective",
        fingerprint=weights.fingerprint,
        settings=settings,
    )
