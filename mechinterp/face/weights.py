"""What the weights alone tell: which of them changed, how toxic regions are, and which value vectors lie close."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mechinterp.audit.listed_vectors import VectorTables, list_vectors
from mechinterp.audit.weights_alone import regions as of_regions
from mechinterp.audit.weights_alone.belonging import check_origin
from mechinterp.audit.weights_alone.diff import diff as compare_weights
from mechinterp.audit.weights_alone.difference import Difference
from mechinterp.audit.weights_alone.regions import RegionTables
from mechinterp.face.given import check_seed
from mechinterp.face.loading import CheckpointLike, DirectionLike, directions_of, weights_of
from mechinterp.face.progress import watched
from mechinterp.measures.value_vectors import RANKINGS, Ranking
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.files.weights import LazyWeights


def diff(
    a: CheckpointLike, b: CheckpointLike, *, rank: bool = True, seed: int = 0, progress: bool | None = None
) -> Difference:
    """Which weights two checkpoints differ in, by how much and of what rank; nothing is loaded that has files.

    Args:
        a: the checkpoint before: in memory, or a source that `mi.load` takes.
        b: the one after; an edit stands on `a`.
        rank: estimate numerical ranks of the changes of matrices.
        seed: of the sketches behind the ranks of large matrices.
        progress: whether a bar is shown; None: in a notebook or on a terminal.

    Returns:
        The difference: `.summary()`, `.identical`, `.table`, `.blocks`, `.save(folder)`.

    Raises:
        InputError: if the architectures differ, or a checkpoint is not there.

    Example:
        >>> mi.diff("BASE", "runs/sft").summary()
    """
    check_seed(seed)
    with watched(progress) as shown:
        before = weights_of(a)
        after = weights_of(b, a)
        return compare_weights(before, after, rank=rank, seed=seed, progress=shown.progress("comparing tensors"))


def regions(
    base: CheckpointLike,
    direction: DirectionLike,
    *,
    against: Mapping[str, CheckpointLike] | None = None,
    blocks: Sequence[int] | None = None,
    top: int = 20,
    draws: int = 1000,
    check: bool | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> RegionTables:
    """Toxicity T of every block, the mean cosine of its value vectors with a direction, against random directions.

    Args:
        base: in memory, or a source that `mi.load` takes.
        direction: a probe, a direction, a vector, or the file of one.
        against: tuned checkpoints by name.
        blocks: all if not given.
        top: most toxic value vectors listed.
        draws: random directions of the null; they take most of the time.
        check: whether the direction is of these weights, by their hash; None: if they are few enough to read at once.
        seed: of bootstrap and random directions.
        progress: whether a bar is shown; None: in a notebook or on a terminal.

    Returns:
        The tables: `.region`, `.region_vectors`, `.save(folder)`.

    Raises:
        InputError: for a direction of other weights, or checkpoints of other sizes.

    Example:
        >>> mi.regions("BASE", probe, against={"sft": "runs/sft"}).region
    """
    check_seed(seed)
    with watched(progress) as shown:
        weights = weights_of(base)
        (wanted,) = directions_of(direction, weights.source).values()
        if note := check_origin(weights, wanted, None, hash_weights=check):
            shown.note(note)
        return of_regions.measure_regions(
            weights,
            wanted.vector,
            tuned=_tuned(against, base),
            blocks=blocks,
            top=top,
            draws=draws,
            seed=seed,
            progress=shown.progress("reading blocks"),
        )


def vectors(
    base: CheckpointLike,
    directions: DirectionLike | Mapping[str, DirectionLike],
    *,
    against: Mapping[str, CheckpointLike] | None = None,
    top: int = 128,
    tokens: int = 10,
    rankings: Sequence[Ranking] = RANKINGS,
    final_norm: bool = False,
    check: bool | None = None,
    progress: bool | None = None,
) -> VectorTables:
    """The value vectors closest to some directions: what they say, their common subspace, their drift in tuned models.

    Args:
        base: in memory, or a source that `mi.load` takes.
        directions: one or several by name: probes, directions, vectors, or files.
        against: tuned checkpoints by name.
        top: vectors in each list, over all blocks.
        tokens: what each promotes, at either end; 0 for none.
        rankings: of `cosine` and `projection`.
        final_norm: apply the final norm's gain before the unembedding.
        check: whether directions are of these weights, as `mi.regions` takes it.
        progress: whether a bar is shown; None: in a notebook or on a terminal.

    Returns:
        The tables: `.value_vectors`, `.toxic_subspace`, `.save(folder)`.

    Raises:
        InputError: for a direction of other weights or width, or checkpoints of other sizes.

    Example:
        >>> mi.vectors("BASE", probe, against={"sft": "runs/sft"}, top=10).value_vectors
    """
    with watched(progress) as shown:
        weights = base if isinstance(base, Checkpoint) else weights_of(base)
        wanted = directions_of(directions, weights.names.source)
        lazy = weights.weights if isinstance(weights, Checkpoint) else weights
        for each in wanted.values():
            each.check_width(weights.names.d_model, weights.names.source)
            if each.fingerprint and (note := check_origin(lazy, each, None, hash_weights=check)):
                shown.note(note)
        return list_vectors(
            weights,
            {name: each.vector for name, each in wanted.items()},
            tuned=_tuned(against, base),
            top=top,
            tokens=tokens,
            rankings=rankings,
            final_norm=final_norm,
            tokenizer=None if isinstance(base, Checkpoint) or not tokens else Checkpoint.skeleton(base).tokenizer,
            progress=shown.progress("reading blocks"),
        )


def _tuned(against: Mapping[str, CheckpointLike] | None, base: CheckpointLike) -> dict[str, LazyWeights]:
    return {name: weights_of(other, base) for name, other in (against or {}).items()}
