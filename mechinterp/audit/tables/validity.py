"""Whether the directions are in play in the base: without that, no decomposition along them explains anything."""

from __future__ import annotations

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechinterp.audit.directions.standard import PER_PROMPT
from mechinterp.audit.evidence import Baseline, Steering
from mechinterp.audit.tables.contrast import Contrast
from mechinterp.audit.tables.table import Table
from mechinterp.measures.local_verdict import Validity
from mechinterp.measures.statistics import auroc, bootstrap, compare_with_null, random_directions


def check_directions(baseline: Baseline) -> dict[tuple[str, str], Validity]:
    """Whether each direction is in play at each place."""
    seed, unsafe = baseline.inputs.seed, baseline.unsafe[baseline.checked]
    groups = None if baseline.groups is None else baseline.groups[baseline.checked]
    checks: dict[tuple[str, str], Validity] = {}
    for place in baseline.inputs.places:
        projections = baseline.evidence.recordings[place.name].projections.values()
        writes = torch.stack(list(projections)).sum(0)[baseline.checked]
        for column, name in enumerate(baseline.inputs.directions):
            steering = baseline.steering[name, place.steered_at]
            checks[name, place.name] = _check(writes[:, column], unsafe, steering, groups, seed)
    if (own := baseline.inputs.per_prompt) is not None and (terms := baseline.evidence.per_prompt) is not None:
        kept = baseline.checked[list(own.rows)]
        rows = torch.tensor(own.rows)[kept]
        writes, unsafe = terms.writes[kept], baseline.unsafe[rows]
        of_rows = None if baseline.groups is None else baseline.groups[rows]
        steering = baseline.steering[PER_PROMPT, "prompt_last"]
        checks[PER_PROMPT, "prompt_last"] = _check(writes, unsafe, steering, of_rows, seed)
    return checks


def _check(
    writes: Float[Tensor, " input"],
    unsafe: Bool[Tensor, " input"],
    steering: Steering,
    groups: Int[Tensor, " input"] | None,
    seed: int,
) -> Validity:
    """Whether a direction is in play, by the base's writes along it and by steering."""
    gain = steering.minus.double() - steering.plus.double()
    effect = bootstrap(lambda weights: weights @ gain, len(gain), seed=seed)
    gap = float(writes[unsafe].mean() - writes[~unsafe].mean())  # nan if all are alike
    return Validity(auroc(writes, unsafe, seed=seed, groups=groups), effect, gap)


def validity(contrast: Contrast) -> pd.DataFrame:
    """Section 6's validity check, a row per direction and place."""
    baseline = contrast.baseline
    answer = baseline.inputs.directions.get("answer")
    answer = (
        torch.full_like(baseline.inputs.directions["probe"], torch.nan).double() if answer is None else answer.double()
    )
    random = random_directions(baseline.evidence.values, 1000, seed=baseline.inputs.seed)
    band = compare_with_null(0.0, random @ (answer / answer.norm()))
    rows = []
    places = {place.name: place for place in baseline.inputs.places}
    for (name, place), check in contrast.checks.items():
        own = baseline.inputs.per_prompt if name == PER_PROMPT else None
        direction = (baseline.inputs.directions[name] if own is None else own.vectors).double()
        read = baseline.checked if own is None else torch.tensor(own.rows)[baseline.checked[list(own.rows)]]
        unsafe = baseline.unsafe[read]
        steering = baseline.steering[name, places[place].steered_at]
        rows.append(
            {
                "direction": name,
                "position": place,
                **check.auroc.columns("auroc"),
                "gap": check.gap,
                "n_unsafe": int(unsafe.sum()),
                "n_safe": int((~unsafe).sum()),
                "cosine_with_answer": float(torch.cosine_similarity(direction, answer, dim=-1).mean()),
                "cosine_null_low": band.low,
                "cosine_null_high": band.high,
                "steering_alpha": steering.alpha,
                "steering_entry_share": steering.entry_share,
                "steering_defense_minus": float(steering.minus.double().mean()),
                "steering_defense_none": float(steering.none.double().mean()),
                "steering_defense_plus": float(steering.plus.double().mean()),
                **{f"steering_degenerate_{name}": share for name, share in steering.degenerate.items()},
                **check.steering_effect.columns("steering_effect"),
                "steering_n": len(steering.none),
                "in_play": check.in_play,
                "reason": check.reason,
            }
        )
    return pd.DataFrame(rows)


VALIDITY = Table(
    name="validity",
    title="Are the directions in play?",
    row="a direction at a position, in the base",
    keys=("direction", "position"),
    columns={
        "auroc": (
            "how well the base’s summed write along the direction tells prompts it answers unsafely from the rest; 0.5 "
            "is chance"
        ),
        "gap": (
            "mean write on prompts the base answers unsafely less that on the others, in the direction’s unit: the "
            "scale on which a change is large or small"
        ),
        "n_unsafe, n_safe": "prompts that the base answers unsafely, and the others, among those checked on",
        "cosine_with_answer": "cosine with the direction answer (mean over prompts with one each); empty without it",
        "cosine_null_low, cosine_null_high": "the ends between which 95% of random directions lie",
        "steering_alpha": "length of what is added when steering, in units of the residual stream",
        "steering_entry_share": (
            "share that one dimension at one position makes of the squared lengths that it is a share of: near 1 it is "
            "a massive activation’s"
        ),
        "steering_defense_minus, steering_defense_none, steering_defense_plus": (
            "share of safe answers of the base with the direction subtracted, left, added"
        ),
        "steering_degenerate_*": (
            "share of those answers that only look safe (empty, short, looping, echo: see the table flags), with the "
            "direction subtracted (minus), left (none), added (plus)"
        ),
        "steering_effect": "defense with the direction subtracted less that with it added",
        "steering_n": "prompts steered on",
        "in_play": (
            "both intervals are on the side where a toxic direction must be: auroc above 0.5, steering effect above 0"
        ),
        "reason": "what speaks against it",
    },
    intervals=("auroc", "steering_effect"),
    decides=("auroc", "steering_effect", "in_play"),
    stage="compare",
    make=validity,
    once=True,
)
