"""Facts changed in a model, and EasyEdit's settings for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mechinterp.data.facts.fact import Fact
from mechinterp.face.given import check_given, check_seed
from mechinterp.face.loading import CheckpointLike, facts_of, load
from mechinterp.face.progress import watched
from mechinterp.methods.facts import editing
from mechinterp.methods.facts.easyedit import EasyEdit
from mechinterp.methods.facts.settings import EditorSettings, default_settings
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import WeightDelta
from mechinterp.models.passes.second_moments import SecondMoments


def edit_facts(
    base: CheckpointLike,
    facts: Sequence[Fact] | str | Path,
    method: editing.Editor = "rome",
    *,
    mode: editing.Mode = "each",
    settings: EditorSettings | EasyEdit | Mapping[str, Any] | None = None,
    contexts: Sequence[str] | None = None,
    moments: SecondMoments | str | Path | None = None,
    texts: Sequence[str] | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> list[WeightDelta]:
    """Edit facts by ROME, MEMIT, AlphaEdit or FT-M; the model is left as it was.

    Args:
        base: the model, in memory or a source that `mi.load` takes.
        facts: with their new targets, or the file of them; numbered from 1.
        method: `rome`, `memit`, `alphaedit` or `ft_m`.
        mode: an edit for `each` fact; one on top of the other (`sequential`, the sum so far after each); or one of all
            (`batch`; not ROME).
        settings: what is not left to EasyEdit's for the architecture, `{"blocks": (5,)}`; or what `mi.read_easyedit`
            read.
        contexts: texts with `{}` for the prompt, the bare one first; by default the model writes some.
        moments: second moments of the edited blocks, or their file; of `texts` if not given.
        texts: what to make second moments of, which memit and alphaedit need.
        seed: of the contexts that the model writes.
        progress: whether bars are shown; None: in a notebook or on a terminal.

    Returns:
        Of `each` an edit per fact, of `sequential` the sums, of `batch` one edit.

    Raises:
        InputError: for a subject that is not in its prompt, settings of another model, missing moments, or an
            architecture without value matrices.

    Example:
        >>> (edit,) = mi.edit_facts("BASE", [mi.Fact("France", "The capital of {} is", "Rome")])
    """
    check_seed(seed)
    check_given("texts", texts, (list, tuple), "a list of texts")
    given = facts_of(facts)
    with watched(progress) as reporter:
        checkpoint = base if isinstance(base, Checkpoint) else load(base)
        if isinstance(settings, EasyEdit):
            settings = settings.settings_of(method, checkpoint.names)
        if settings is None or isinstance(settings, Mapping):
            settings = default_settings(method, checkpoint, settings)
        if isinstance(moments, str | Path):
            moments = SecondMoments.load(moments)
        if moments is None:
            moments = editing.moments_for(checkpoint, texts, settings, progress=reporter.progress("second moments"))
        return list(
            editing.edit_facts(
                checkpoint,
                given,
                method,
                mode=mode,
                settings=settings,
                contexts=contexts,
                moments=moments,
                seed=seed,
                progress=reporter.progress(f"{method}: facts"),
            )
        )
